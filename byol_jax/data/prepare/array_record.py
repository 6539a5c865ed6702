"""Writes ArrayRecord files so that a run that stops leaves whole shards and no others."""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

from array_record.python import array_record_module

from byol_jax import config as config_lib
from byol_jax.workdir import files

UsageError = config_lib.UsageError

T = TypeVar("T")

# One record can be read without its neighbors; images have been compressed already.
_OPTIONS = "group_size:1,uncompressed"
INFO = "dataset_info.json"  # without it TFDS does not take a folder for a set
FEATURES = "features.json"


def count(path: pathlib.Path) -> int | None:
    """The number of records of a shard; None if there is none, or not a whole one.

    Raises:
      UsageError: there is something that cannot be read, which says nothing about what it holds.
    """
    try:
        files.open_regular(path).close()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(
            f"Cannot read {path}: {error.strerror}. It is left as it is: mend it, or choose "
            "another folder by --config.output_dir, and rerun the same command to resume."
        ) from None
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
