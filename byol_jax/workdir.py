"""The folder of a run: its config, its metrics, and what must not be mixed up in it."""

import contextlib
import fcntl
import importlib.metadata
import json
import math
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax import tensorboard, trackers

UsageError = config_lib.UsageError


# What may differ when a run goes on: none of it changes what is learned.
CHANGEABLE = (
    "accept_changes",
    "checkpoint_every_steps",
    "collapse.action",
    "collapse.max_target_cosine",
    "collapse.min_effective_rank",
    "collapse.min_feature_std",
    "collapse.patience",
    "data.dir",
    "data.max_bad_share",
    "data.threads",
    "gallery.max_images",
    "keep_checkpoints",
    "keep_every_steps",
    "log_every_steps",
    "wandb_project",
)

PACKAGES = (
    "jax",
    "jaxlib",
    "dm-haiku",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "grain",
    "opencv-python-headless",
    "pillow",
    "scikit-learn",
)


class DataCard(NamedTuple):
    """What was found out about the training data when a run began.

    Attributes:
        num_images: of the training split.
        num_classes: 0 without labels.
        fingerprint: of the list of images, if it can change.
        mean: of the channels, in [0, 1]; images are normalised with it.
        std: standard deviation of the channels.
    """

    num_images: int
    num_classes: int
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def make_data_card(fields: Mapping[str, Any]) -> DataCard:
    """A card from what has been JSON."""
    card = DataCard(**fields)
    return card._replace(mean=tuple(card.mean), std=tuple(card.std))


def read_data_card(workdir: pathlib.Path) -> DataCard | None:
    """The card of the run in this folder; None if there is none yet."""
    try:
        return make_data_card(json.loads((workdir / "data.json").read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"Cannot read {workdir / 'data.json'}: {error}.") from None


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Makes the folder and keeps other runs out of it for as long as this process lives.

    The system frees the lock of a process that is killed.

    Raises:
        UsageError: the folder cannot be written to, or another run is using it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / "lock").open("a+")
    except OSError as error:
        raise UsageError(f"Cannot write to the workdir {workdir}: {error}.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"Another run is using the workdir {workdir} ({file.read().strip()}): wait for "
                "it, stop it, or give another --workdir."
            ) from None
        except OSError:
            pass  # a file system without locks
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def open_workdir(workdir: pathlib.Path, config: Any, data_card: DataCard) -> list[str]:
    """Makes the folder and stores config and card in it, or checks that the config is the same.

    Returns:
        In what the config differs from the stored one, if that is accepted; a line for each key.

    Raises:
        UsageError: the folder cannot be written to, or belongs to a run of another config.
    """
    changed: list[str] = []
    path, accept = workdir / "config.json", config.accept_changes
    text = config_lib.to_json(config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            changed = _changes(path, json.loads(text), accept=accept)
        _replace(path, text)
        _replace(workdir / "data.json", json.dumps(data_card._asdict()) + "\n")
    except OSError as error:
        raise UsageError(f"Cannot write to the workdir {workdir}: {error}.") from None
    return changed


def _changes(path: pathlib.Path, new: Any, *, accept: bool) -> list[str]:
    """Differences that matter; raises unless they are accepted."""
    try:
        old = json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"Cannot read {path}: {error}. Give another --workdir.") from None
    differences = config_lib.differences(old, new)
    changed = [line for line in differences if line.split(":")[0] not in CHANGEABLE]
    if changed and not accept:
        raise UsageError(
            f"{path.parent} holds a run of another config:\n  "
            + "\n  ".join(changed)
            + "\nGive the same config to resume it, or another --workdir. To go on with the new "
            "one all the same, add --config.accept_changes=true."
        )
    return changed


def _replace(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a crash leaves the old one or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """All whole lines of ``metrics.jsonl``; a last one cut off by a kill is left out."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(_parse, lines) if row is not None]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


def write_result(workdir: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Writes ``result.json``, in one piece.

    Raises:
        UsageError: the folder cannot be written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _replace(workdir / "result.json", json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise UsageError(f"Cannot write to the workdir {workdir}: {error}.") from None


def versions() -> dict[str, str]:
    """What computed a result: Python and the packages that numbers depend on."""
    return {"python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in PACKAGES
    }


def note_bad_images(workdir: pathlib.Path, reasons: Mapping[str, str]) -> None:
    """Adds lines ``name, tab, reason`` to ``bad_images.txt`` for what is not in it yet."""
    path = workdir / "bad_images.txt"
    encoding = {"encoding": "utf-8", "errors": "backslashreplace"}
    listed = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()
    lines = [
        " ".join(f"{name}\t{reason}".encode(**encoding).decode().splitlines())
        for name, reason in reasons.items()
    ]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines if line not in listed)


class Logger:
    """Writes scalars to ``metrics.jsonl``, one object a line, and to TensorBoard.

    Args:
        workdir: folder of the run.
        first_step: what an interrupted run logged after this step is dropped, since these steps
            run again.
        others: get the same; none of them may raise.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        first_step: int = 0,
        others: Sequence[trackers.Tracker] = (),
    ):
        path = workdir / "metrics.jsonl"
        kept = [row for row in read_metrics(workdir) if row["step"] <= first_step]
        if first_step == 0:
            kept = []  # the measurement before the first step is made again
        _replace(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a")
        board = trackers.Harmless(
            "TensorBoard",
            lambda: tensorboard.TensorBoard(workdir / "tensorboard", first_step=first_step + 1),
        )
        self._trackers = (board, *others)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Appends one line; numbers that JSON lacks (NaN, infinity) are written as null."""
        safe = {key: value if math.isfinite(value) else None for key, value in scalars.items()}
        self._file.write(json.dumps({"step": step, **safe}) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.write(step, scalars)

    def write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3], for those who show some."""
        for tracker in self._trackers:
            tracker.write_image(step, name, pixels)

    def close(self) -> None:
        """Closes everything; `write` has said it if one of the files could not be written to."""
        for file in (self._file, *self._trackers):
            with contextlib.suppress(OSError):
                file.close()
