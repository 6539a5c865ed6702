"""Which checkpoint a path stands for, and what may be there in its place."""

import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

from byol_jax import config as config_lib

UsageError = config_lib.UsageError
T = TypeVar("T")

_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".pkl")


class GoneError(UsageError):
    """A checkpoint was deleted while it was read: its run goes on, and keeps the newest."""


def until_sound(path: str, load: Callable[[], T]) -> T:
    """Loads again for as long as a run that goes on deletes what is being loaded.

    Args:
      path: as `find` takes it.
      load: from the checkpoint that `find` gives at the time.

    Raises:
      GoneError: the path names a checkpoint, which has been deleted.
    """
    while True:
        before = find(path)
        try:
            return load()
        except UsageError:
            if not before.exists() and before == pathlib.Path(path).expanduser():
                raise GoneError(
                    f"{before} was deleted while it was read: its run goes on and keeps only its "
                    "newest checkpoints. Give the run's workdir for the newest one."
                ) from None
            if find(path) == before:
                raise


def find(path: str) -> pathlib.Path:
    """The folder ``checkpoints/<step>`` that a path stands for.

    Args:
      path: a workdir (its newest checkpoint) or one step's folder in its ``checkpoints``.

    Raises:
      UsageError: there is no such path, or no finished checkpoint at it.
    """
    folder = pathlib.Path(path).expanduser()
    if not path or not folder.exists():
        wrong = f"No checkpoint at {path}: no such path." if path else "No checkpoint was given."
        raise UsageError(
            f"{wrong} Give a workdir of a run, or one of its checkpoints/<step>, as "
            "--config.checkpoint=RUN."
        )
    if folder.parent.name == "checkpoints" and not folder.name.isdigit():
        raise UsageError(
            f"{folder} was never finished: a run was stopped while it wrote it. Give another "
            f"folder of {folder.parent}, or the workdir for its newest finished one."
        )
    return _step_folder(folder)


def _step_folder(path: pathlib.Path) -> pathlib.Path:
    if (path / "state").is_dir():
        return path
    steps = list_steps(path / "checkpoints")
    if not steps:
        raise UsageError(
            f"No checkpoint at {path}: {_describe(path)}. Give a workdir of a run, or one of its "
            "checkpoints/<step>."
        )
    return path / "checkpoints" / str(steps[-1])


def list_steps(folder: pathlib.Path) -> list[int]:
    """Steps of the checkpoints in a folder ``checkpoints``, in order; none if it is not there.

    Raises:
      UsageError: the folder cannot be read, so that nobody knows.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(
            f"Cannot read {folder}: {error.strerror}. Nothing was changed; once it can be read, "
            "rerun the same command to resume."
        ) from None
    return sorted(int(name) for name in names if name.isdecimal())


def _describe(path: pathlib.Path) -> str:
    """What is there in place of a run, and what may have been meant."""
    if not path.is_dir():
        return "it is neither a folder nor a file"
    names = sorted(entry.name for entry in path.iterdir())
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    if path.name == "checkpoints" and any(map(str.isdigit, names)):
        return f"it is a run's folder of them, and the workdir is {path.parent}"
    if path.name == "state" and path.parent.parent.name == "checkpoints":
        return f"it is a part of the checkpoint {path.parent}"
    if "result.json" in names and "metrics.jsonl" not in names:
        return "it is the workdir of an evaluation, whose result.json names what was evaluated"
    if "data.json" in names or "metrics.jsonl" in names:
        return "its run has not saved any yet"
    if weights:
        return f"it holds the file {path / weights[0]}, which can be given itself"
    return f"it holds {', '.join(names[:3])}" if names else "it is an empty folder"
