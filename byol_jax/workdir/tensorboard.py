"""Event files that TensorBoard reads, written at once and without a thread.

A thread with a queue in between, as tensorboardX has it, ends on a full disk, and whoever puts
something into its queue waits for ever.
"""

import os
import pathlib
import platform
import struct
import time
from collections.abc import Mapping

import numpy as np
from tensorboardX import record_writer, summary
from tensorboardX.proto import event_pb2


class TensorBoard:
    """A tracker that writes an event file into a folder.

    Args:
      folder: made if need be.
      first_step: what earlier files have from this step on is to be left out.

    Raises:
      OSError: the file cannot be written, here or by a method.
    """

    def __init__(self, folder: pathlib.Path, *, first_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{platform.node()}.{os.getpid()}"
        self._path = folder / name
        self._file = self._path.open("wb")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(event_pb2.Event(file_version="brain.Event:2"))
        self._add(event_pb2.Event(step=first_step, session_log=start))
        self._file.flush()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers of a step."""
        for name, value in scalars.items():
            self._add(event_pb2.Event(step=step, summary=summary.scalar(name, value)))
        self._file.flush()

    def write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3]."""
        content = summary.image(name, pixels, dataformats="HWC")
        self._add(event_pb2.Event(step=step, summary=content))
        self._file.flush()

    def reopen(self) -> None:
        """Closes the file and goes on in it."""
        self._file.close()
        self._file = self._path.open("ab")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, event: event_pb2.Event) -> None:
        """Appends a record in the format of TFRecord: length, its checksum, data, theirs."""
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        for part in (length, data):
            checksum = struct.pack("<I", record_writer.masked_crc32c(part))
            self._file.write(part + checksum)
