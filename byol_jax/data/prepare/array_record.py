"""Writes ArrayRecord files so that a run that stops leaves whole shards and no others."""

import contextlib
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm
from array_record.python import array_record_module

from byol_jax.distributed import pmap
from byol_jax.workdir import files

T = TypeVar("T")

# One record can be read without its neighbours; images have been compressed already.
_OPTIONS = "group_size:1,uncompressed"
INFO = "dataset_info.json"  # without it TFDS does not take a folder for a set
FEATURES = "features.json"


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
    """Writes a shard as `files.whole` does; TFDS does not take the unfinished file for one.

    Whatever stops it, also an error of ``records``, the unfinished file is removed.

    Raises:
      files.WriteError: no space, or the folder cannot be written to.
    """
    with files.whole(path) as part:
        _write(part, records)


def _write(part: pathlib.Path, records: Iterable[bytes]) -> None:
    writer = array_record_module.ArrayRecordWriter(str(part), _OPTIONS)
    try:
        for record in records:
            with _writing(part):
                writer.write(record)
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    with _writing(part):
        writer.close()  # what is still in its buffer may not fit either


@contextlib.contextmanager
def _writing(part: pathlib.Path) -> Iterator[None]:
    """As `files.writing`; array_record has RuntimeError for everything that the system says."""
    try:
        with files.writing(part):
            yield
    except RuntimeError as error:
        raise files.WriteError(part, OSError(str(error))) from None


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
        disable=not pmap.is_writer(),
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
    if pmap.is_writer():
        tqdm.tqdm.write(text, file=sys.stderr)


def format_size(num_bytes: int) -> str:
    """A size for people to read."""
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:.1f} MiB"
    return f"{num_bytes / 2**30:.1f} GiB"
