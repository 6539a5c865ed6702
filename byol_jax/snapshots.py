"""The checkpoints of a run while it lives: atomic, asynchronous, verified, the last few kept.

One process reads and writes them, and no trace of processes or devices is in them.
"""

import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from byol_jax import checkpoint, soundness
from byol_jax import config as config_lib

UsageError = config_lib.UsageError


class SaveError(RuntimeError):
    """A checkpoint could not be written; those before it are as they were."""


class DamagedError(ValueError):
    """What a checkpoint holds is not what was saved."""


class Checkpoints:
    """Writes the checkpoints of one run: its state, and where its input iterator stands.

    Args:
      workdir: folder of the run; checkpoints go to ``checkpoints/<step>`` below it.
      keep: how many of the newest to keep.
      keep_every: those whose step divides by it stay for good; 0: none.
    """

    def __init__(self, workdir: pathlib.Path, *, keep: int, keep_every: int = 0):
        self._folder = workdir / "checkpoints"
        self._folder.mkdir(exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every or None,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # of runs that were killed while they wrote
            create=False,
            multiprocessing_options=checkpoint.alone(),
        )
        self._manager = ocp.CheckpointManager(self._folder.absolute(), options=options)

    def save(self, step: int, state: Any, iterator_state: dict[str, Any]) -> None:
        """Starts to save; returns as soon as the state has been copied off the device.

        Raises:
          SaveError: this or the previous checkpoint could not be written.
        """
        if step in self._manager.all_steps():
            return
        state = jax.device_get(state)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            iterator=ocp.args.JsonSave(iterator_state),
            digests=ocp.args.JsonSave(_digests(state, iterator_state)),
        )
        self._try(lambda: self._manager.save(step, args=items))

    def finish(self) -> None:
        """Waits until everything is on disk; raises `SaveError` if that fails."""
        self._try(self._manager.wait_until_finished)

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except (OSError, ValueError, RuntimeError) as error:
            kept = ", ".join(map(str, sorted(_steps(self._folder)))) or "none"
            raise SaveError(
                f"Cannot write a checkpoint to {self._folder}: {_reason(error)}. Those of earlier "
                f"steps are as they were ({kept}). Once this is mended, the same command goes on."
            ) from None

    @property
    def latest_path(self) -> pathlib.Path | None:
        """Folder of the newest checkpoint that is whole; None if there is none."""
        steps = _steps(self._folder)
        return self._folder / str(max(steps)) if steps else None

    def close(self) -> None:
        """Ends the threads that write, without a word about what they could not."""
        try:
            self._manager.close()
        except Exception:  # said by `save` or `finish`, or of no interest next to another error
            pass


class Restored(NamedTuple):
    """A sound checkpoint.

    Attributes:
      step: updates done.
      state: on the host, built like the template.
      iterator: where the input stood.
    """

    step: int
    state: Any
    iterator: dict[str, Any]


def restore_newest(
    workdir: pathlib.Path, template: Any, *, warn: Callable[[str], None]
) -> Restored | None:
    """Reads the newest sound checkpoint of a run; None if there is none at all.

    Newer ones that are damaged are named in a warning and put aside, as ``<step>.damaged``.

    Args:
      workdir: folder of the run.
      template: a state of arrays (or shapes) as the current config builds it.
      warn: takes a line of text.

    Raises:
      UsageError: all checkpoints are damaged, or the newest sound one is of another network.
    """
    damaged: dict[pathlib.Path, str] = {}
    restored = None
    for step in sorted(_steps(workdir / "checkpoints"), reverse=True):
        folder = workdir / "checkpoints" / str(step)
        try:
            restored = _read(folder, template)
            break
        except DamagedError as error:
            damaged[folder] = str(error)
    if damaged and restored is None:
        lines = [f"\n  {folder}: {reason}" for folder, reason in damaged.items()]
        raise UsageError(
            f"None of the checkpoints in {workdir} is sound:{''.join(lines)}\nPut back copies of "
            "them, or begin again with another --workdir."
        )
    for folder, reason in damaged.items():
        aside = folder.with_name(f"{folder.name}.damaged")
        warn(f"WARNING: skipped the damaged checkpoint {folder} ({reason}); it is now {aside}.")
        if aside.exists():
            aside = aside.with_name(f"{aside.name}-{len(list(folder.parent.iterdir()))}")
        folder.rename(aside)
    return restored


def _read(folder: pathlib.Path, template: Any) -> Restored:
    """Reads and verifies one checkpoint; whatever a reader trips over becomes a `DamagedError`."""
    try:
        expected = soundness.read_digests(folder)
        with checkpoint.Reader(folder / "state") as reader:
            shapes = checkpoint.shapes(reader.tree["online_params"])
            if expected and soundness.digest_json(shapes) != expected["shapes"]:
                raise DamagedError("its list of parameters has changed")
            checkpoint.require_same_network(
                folder, reader.tree["online_params"], template.online_params
            )
            state = reader.read(template)
        iterator = json.loads((folder / "iterator" / "metadata").read_text())
        changed = expected and soundness.first_difference(
            expected, _digests(state, iterator), expected
        )
    except (DamagedError, UsageError):
        raise
    except Exception as error:
        raise DamagedError(_reason(error)) from None
    if changed:
        raise DamagedError(f"its {changed} are not what was saved")
    return Restored(int(folder.name), state, iterator)


def _digests(state: Any, iterator_state: dict[str, Any]) -> dict[str, str]:
    digests = {name: soundness.digest_arrays(getattr(state, name)) for name in state._fields}
    digests["shapes"] = soundness.digest_json(checkpoint.shapes(state.online_params))
    return digests | {"iterator": soundness.digest_json(iterator_state)}


def _steps(folder: pathlib.Path) -> list[int]:
    return [int(path.name) for path in folder.glob("*") if path.name.isdigit()]


def _reason(error: Exception) -> str:
    """What the system said, whose number TensorStore puts at the end of much, or the first line."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return os.strerror(int(code[1])) if code else lines[0][:200]
