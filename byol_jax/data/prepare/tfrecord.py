"""Reads TFRecord files without TensorFlow."""

import pathlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

import google_crc32c

from byol_jax import config as config_lib
from byol_jax.data.prepare import array_record

UsageError = config_lib.UsageError


_COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")  # gzip, zlib


AGAIN = (
    "Get that file once more from where it came, or prepare the set anew; shards that were "
    "finished are kept: rerun the same command to resume."
)


def read_tfrecord(
    path: pathlib.Path,
    num_records: int,
    *,
    on_bytes: Callable[[int], Any] = lambda number: None,
) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, one at a time in memory.

    Args:
      path: of the file.
      num_records: how many it has to hold.
      on_bytes: called after every record with the number of bytes that it took in the file.

    Raises:
      UsageError: a wrong checksum, a truncated file, another number of records, a compressed file;
        with the record's number and where it begins.
    """
    offset = number = 0
    with path.open("rb", buffering=1 << 20) as file:
        while header := file.read(12):
            where = f"{path}, record {number} at byte {offset:,}"
            if number == 0 and header.startswith(_COMPRESSED) and not _is_sound(header):
                raise UsageError(f"{path} is compressed, which cannot be converted. {AGAIN}")
            yield _read_record(file, header, where)
            size = file.tell() - offset
            offset += size
            number += 1
            on_bytes(size)
    if number != num_records:
        raise UsageError(
            f"{path} ends at byte {offset:,} after {number:,} records; {array_record.INFO} says "
            f"that it has {num_records:,}. {AGAIN}"
        )


def _is_sound(header: bytes) -> bool:
    return len(header) == 12 and _checksum(header[:8]) == header[8:]


def _read_record(file: Any, header: bytes, where: str) -> bytes:
    if len(header) == 12 and not _is_sound(header):
        raise UsageError(f"{where}: damaged, the checksum of its length is wrong. {AGAIN}")
    # A sound length is no reason to believe that so many bytes are there.
    length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
    data, checksum = file.read(length), file.read(4)
    if len(header) < 12 or len(data) < length or len(checksum) < 4:
        raise UsageError(f"{where}: the file ends within it. {AGAIN}")
    if _checksum(data) != checksum:
        raise UsageError(f"{where}: damaged, its checksum is wrong. {AGAIN}")
    return data


def _checksum(data: bytes) -> bytes:
    """TFRecord's: a CRC-32C, turned and shifted."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
