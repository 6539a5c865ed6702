"""Where a run's numbers and pictures go besides its own files: services that track experiments.

None of them may stop or delay a run. One that fails, on a full disk or without a network, is named
once and gets nothing more.
"""

import math
import pathlib
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from byol_jax import config as config_lib
from byol_jax.host import processes
from byol_jax.workdir import console

UsageError = config_lib.UsageError

MOST_WAITING = 1000  # rows and pictures that a service may be behind
CLOSE_SECONDS = 60.0  # that it has at the end of a run


class Tracker(Protocol):
    """Takes what a run measures."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers of a step."""
        ...

    def write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3]."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


class Harmless:
    """Passes everything on to a tracker until that fails for the first time, which is said.

    Args:
      name: of the service.
      make: opens it; may fail, too.
    """

    def __init__(self, name: str, make: Callable[[], Tracker]):
        self._name = name
        self._tracker: Tracker | None = None
        try:
            self._tracker = make()
        except Exception as error:
            self._warn(error)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers of a step."""
        self._try(lambda tracker: tracker.write(step, scalars))

    def write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3]."""
        self._try(lambda tracker: tracker.write_image(step, name, pixels))

    def reopen(self) -> None:
        """Closes the file of a tracker that has one, and goes on in it."""
        self._try(lambda tracker: tracker.reopen())

    def close(self) -> None:
        """Sends what is left."""
        self._try(lambda tracker: tracker.close())
        self._tracker = None

    def _try(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:
            self._tracker = None
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        _say_without(self._name, reason)


def _say_without(name: str, reason: str) -> None:
    console.say(f"Warning: the run goes on without {name} ({reason}). metrics.jsonl has all of it.")


class Background:
    """Passes everything on to a tracker in a thread, so that nobody ever waits for a service.

    Args:
      name: of the service.
      make: opens it, in that thread.
      most_waiting: calls that it may be behind; one that is further behind gets nothing more.
      close_seconds: that it has to send what is left.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Tracker],
        *,
        most_waiting: int = MOST_WAITING,
        close_seconds: float = CLOSE_SECONDS,
    ):
        self._name, self._make, self._close_seconds = name, make, close_seconds
        self._calls: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(most_waiting)
        self._is_open = True
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers of a step."""
        self._put(lambda tracker: tracker.write(step, scalars))

    def write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3]."""
        self._put(lambda tracker: tracker.write_image(step, name, pixels))

    def close(self) -> None:
        """Lets it send what is left, but does not wait for ever."""
        self._put(lambda tracker: tracker.close())
        self._put(None)
        if not self._is_open:
            return
        self._is_open = False
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            _say_without(self._name, f"not finished after {self._close_seconds:g} s")

    def _put(self, call: Callable[[Tracker], None] | None) -> None:
        if not self._is_open:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._is_open = False
            _say_without(self._name, "it does not answer")

    def _work(self) -> None:
        # Processes that a service starts are to take what is logged after a Ctrl-C, too.
        with processes.deaf_children():
            tracker = Harmless(self._name, self._make)
            for call in iter(self._calls.get, None):
                call(tracker)


class WeightsAndBiases:
    """Logs to a project of Weights & Biases; WANDB_MODE=offline keeps everything on this machine.

    A run that goes on after an interruption goes on there too, by an id kept in its folder. Kept on
    this machine, each session is a run of its own, in one group by that id: of two folders with one
    id, what is synchronized last would replace what was before.

    Args:
      project: name of the project.
      workdir: folder of the run.
      config: of the run, nested.
    """

    def __init__(self, project: str, workdir: pathlib.Path, config: Mapping[str, Any]):
        import wandb

        self._wandb = wandb
        path = workdir / "wandb_id"
        known = path.read_text().strip() if path.exists() else secrets.token_hex(4)
        path.write_text(known + "\n")
        is_offline = wandb.setup().settings.mode in ("offline", "dryrun")
        session = f"-{time.strftime('%Y%m%d-%H%M%S')}" if is_offline else ""
        self._run = wandb.init(
            project=project,
            id=known + session,
            group=known,
            name=workdir.name,
            dir=str(workdir),
            config=dict(config),
            resume="never" if is_offline else "allow",
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers of a step; those that are not finite are left out."""
        finite = {name: value for name, value in scalars.items() if math.isfinite(value)}
        self._run.log(finite, step=step)

    def write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3]."""
        self._run.log({name: self._wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        """Sends what is left, and waits for it."""
        self._run.finish()


def make_trackers(
    project: str, workdir: pathlib.Path, config: Mapping[str, Any]
) -> Sequence[Tracker]:
    """Those that are asked for; none of them raises or waits.

    Args:
      project: of Weights & Biases; empty for none.
      workdir: of the run.
      config: of the run, to be shown.

    Raises:
      UsageError: the package wandb is not installed.
    """
    if not project:
        return ()
    try:
        import wandb  # noqa: F401, only to know that it is there
    except ImportError:
        raise UsageError(
            f"--config.wandb_project={project} needs the package wandb: pip install '.[wandb]'."
        ) from None
    return (Background("Weights & Biases", lambda: WeightsAndBiases(project, workdir, config)),)
