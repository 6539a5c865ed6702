"""Writes ArrayRecord files so that a run that stops leaves whole shards and no others."""

import contextlib
import errno
import os
import pathlib
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm
from array_record.python import array_record_module

from byol_jax import config as config_lib
from byol_jax import parallel

UsageError = config_lib.UsageError
T = TypeVar("T")

# One record can be read without its neighbours; images have been compressed already.
_OPTIONS = "group_size:1,uncompressed"
INFO = "dataset_info.json"  # without it TFDS does not take a folder for a set
FEATURES = "features.json"
_PART = ".part"  # TFDS knows shards by their whole name, so these are none


def count(path: pathlib.Path) -> int | None:
    """The number of records of a shard; None if there is none, or not a whole one."""
    if not path.is_file():
        return None
    options = "readahead_buffer_size:0,max_parallelism:0"
    reader = array_record_module.ArrayRecordReader(str(path), options)
    try:
        return reader.num_records() if reader.ok() else None
    finally:
        with contextlib.suppress(RuntimeError):  # repeats that the file is not whole
            reader.close()


def write_shard(path: pathlib.Path, records: Iterable[bytes]) -> None:
    """Writes a shard under another name, and renames it once it is whole and on the disk.

    Whatever stops it, also an error of ``records``, the unfinished file is removed.

    Raises:
      UsageError: no space, or the folder cannot be written to.
    """
    with whole_file(path) as part:
        _write(part, records)


def _write(part: pathlib.Path, records: Iterable[bytes]) -> None:
    writer = array_record_module.ArrayRecordWriter(str(part), _OPTIONS)
    try:
        for record in records:
            with writing_to(part.parent):
                writer.write(record)
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    with writing_to(part.parent):
        writer.close()  # what is still in its buffer may not fit either


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file that is there as a whole or, after a crash, as it was before.

    Raises:
      UsageError: no space, or the folder cannot be written to.
    """
    with whole_file(path) as part, writing_to(path.parent):
        part.write_text(text, encoding="utf-8")


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a small file.

    Raises:
      UsageError: no space, or the folder cannot be written to.
    """
    with writing_to(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file to write, which gets its name once its content has reached the disk, or is removed.

    Raises:
      UsageError: no space, or the folder cannot be written to.
    """
    part = path.with_name(path.name + _PART)
    try:
        with writing_to(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            part.touch()  # the writer of shards would tell only later that it may not
        yield part
        with writing_to(path.parent):
            _sync(part)
            os.replace(part, path)
            _sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing_to(folder: pathlib.Path) -> Iterator[None]:
    """Turns what the system says about a folder into what to do about it.

    Raises:
      UsageError: no space, or the folder cannot be written to.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # array_record has RuntimeError for everything
        reason = getattr(error, "strerror", None) or str(error)
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        full = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
        if is_full or any(text in reason for text in full):
            raise UsageError(
                f"No space is left in {folder}. What was finished is kept: make room, and the same "
                "command goes on."
            ) from None
        raise UsageError(
            f"Cannot write to {folder}: {reason}. Choose another folder by --config.output_dir or "
            "--workdir, or mend this one, and the same command goes on."
        ) from None


def progress_bar(
    *, total: int | None, done: int = 0, unit: str, title: str, delay: float = 0
) -> tqdm.tqdm:
    """A bar with the time left, on standard error; into a file it goes twice a minute.

    Args:
      total: of all; None if nobody knows.
      done: before.
      unit: of them.
      title: what is being done.
      delay: seconds that pass first, so that what is quick is not shown; what is shown after all
        goes into a file every ten seconds.
    """
    return tqdm.tqdm(
        delay=delay,
        disable=not parallel.is_writer(),
        total=total,
        initial=done,
        unit=unit,
        unit_scale=True,
        desc=title,
        mininterval=0.1 if sys.stderr.isatty() else 10.0 if delay else 30.0,
        dynamic_ncols=True,
    )


def shown(bar: tqdm.tqdm, items: Iterable[T], step: int) -> Iterator[T]:
    """The same items; whenever one has been dealt with, the bar moves on by so many."""
    with bar:
        for item in items:
            yield item
            bar.update(min(step, bar.total - bar.n))


def say(text: str) -> None:
    """Prints a line to standard error without breaking a bar; of several processes the first."""
    if parallel.is_writer():
        tqdm.tqdm.write(text, file=sys.stderr)


def format_size(num_bytes: int) -> str:
    """A size for people to read."""
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:.1f} MiB"
    return f"{num_bytes / 2**30:.1f} GiB"
