"""The folder of a run: its config, its metrics, and what must not be mixed up in it."""

import contextlib
import errno
import fcntl
import importlib.metadata
import math
import os
import pathlib
import platform
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

from byol_jax import config as config_lib
from byol_jax.workdir import files, metrics_log

UsageError = config_lib.UsageError


# What file systems without locks say.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)

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
        mean: of the channels, in [0, 1]; images are normalized with it.
        std: standard deviation of the channels.
        grey_ranges: what is black and white in grayscale of more than 8 bits, by kind of values;
            None if the set has none (`gray.range_of`).
    """

    num_images: int
    num_classes: int
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grey_ranges: Mapping[str, tuple[float, float]] | None = None


def make_data_card(fields: Mapping[str, Any]) -> DataCard:
    """A card from what has been JSON.

    Raises:
        TypeError, ValueError: it is not what a card holds.
    """
    card = DataCard(**fields)
    for numbers in (card.mean, card.std):
        if not is_numbers(numbers, 3):
            raise ValueError("its mean or std are not three numbers")
    ranges = make_ranges(card.grey_ranges)
    return card._replace(mean=tuple(card.mean), std=tuple(card.std), grey_ranges=ranges)


def make_ranges(stored: Any) -> dict[str, tuple[float, float]] | None:
    """Ranges of gray values from what has been JSON.

    Raises:
        ValueError: it is not what ranges are.
    """
    if stored is None:
        return None
    if not isinstance(stored, Mapping) or not all(is_numbers(x, 2) for x in stored.values()):
        raise ValueError("its grey_ranges are not a least and a largest value by kind")
    return {kind: (low, high) for kind, (low, high) in stored.items()}


def is_numbers(value: Any, count: int) -> bool:
    """Whether something from JSON is a list of so many finite numbers."""
    return (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    )


@contextlib.contextmanager
def lock(workdir: pathlib.Path) -> Iterator[None]:
    """Makes the folder and keeps other runs out of it for as long as this process lives.

    The system frees the lock of a process that is killed.

    Raises:
        UsageError: the folder cannot be written to, or another run is using it, or its file
            ``lock`` is somebody's.
    """
    path = workdir / "lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", errors="replace")
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
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise UsageError(f"Cannot lock {path}: {error.strerror}.") from None
        with files.writing(path):
            _sign(path, file)
        yield


def _sign(path: pathlib.Path, file: IO[str]) -> None:
    """Notes whose lock it is."""
    file.seek(0)
    if file.read(8) not in ("", "process "):
        raise UsageError(
            f"{path} is no lock of a run and is left as it is: give another --workdir."
        )
    file.truncate(0)
    os.write(file.fileno(), f"process {os.getpid()} on {platform.node()}\n".encode())


class WriteError(RuntimeError):
    """A file of the run cannot be written to any more."""


_replace = files.write_text  # a crash leaves the old file or the new one, never half of it


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """All lines of ``metrics.jsonl`` that can be read; a last one cut off by a kill is left out."""
    return list(metrics_log.rows(workdir))


def versions() -> dict[str, str]:
    """What computed a result: Python and the packages that numbers depend on."""
    return {"python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in PACKAGES
    }


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns what the system says into which file cannot be written.

    Raises:
        WriteError: naming it.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"Cannot write to {path}: {error.strerror or error}.") from None


def note_bad_images(workdir: pathlib.Path, reasons: Mapping[str, str]) -> None:
    """Adds lines ``name, tab, reason`` to ``bad_images.txt`` for what is not in it yet."""
    path = workdir / "bad_images.txt"
    encoding = {"encoding": "utf-8", "errors": "backslashreplace"}
    lines = [
        " ".join(f"{name}\t{reason}".encode(**encoding).decode().splitlines())
        for name, reason in reasons.items()
    ]
    with writing(path), path.open("a+", encoding="utf-8", errors="replace") as file:
        file.seek(0)
        listed = set(file.read().splitlines())
        file.writelines(f"{line}\n" for line in lines if line not in listed)
