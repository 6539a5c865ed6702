"""Event files: what a reader finds in them, also after a stop and on a full disk."""

import struct

import numpy as np
import pytest
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from byol_jax.workdir import tensorboard
from tests.support import systems


def read(folder):
    """All events of a folder's only file; every checksum is compared."""
    (path,) = folder.iterdir()
    assert path.name.startswith("events.out.tfevents.")
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        parts = data[:8], data[12 : 12 + length]
        for part, end in zip(parts, (12, 16 + length), strict=True):
            found = struct.unpack("<I", data[end - 4 : end])[0]
            assert found == record_writer.masked_crc32c(part)
        events.append(event_pb2.Event.FromString(parts[1]))
        data = data[16 + length :]
    return events


def test_numbers_and_pictures_are_there_at_once(tmp_path):
    board = tensorboard.TensorBoard(tmp_path / "events", first_step=4)
    board.write(5, {"train/loss": 2.5, "train/nan": float("nan")})
    board.write_image(5, "pairs", np.zeros((4, 6, 3), np.uint8))
    version, start, loss, _, picture = read(tmp_path / "events")
    assert version.file_version == "brain.Event:2"
    assert start.step == 4 and start.session_log.status == event_pb2.SessionLog.START
    (value,) = loss.summary.value
    assert (loss.step, value.tag, value.simple_value) == (5, "train/loss", 2.5)
    (value,) = picture.summary.value
    assert (value.image.height, value.image.width, value.tag) == (4, 6, "pairs")


def test_a_file_that_is_closed_and_opened_again_goes_on(tmp_path):
    board = tensorboard.TensorBoard(tmp_path, first_step=1)
    board.write(1, {"loss": 2.0})
    before = board._file
    board.reopen()
    assert before.closed
    board.write(2, {"loss": 1.0})
    assert [event.step for event in read(tmp_path)] == [0, 1, 1, 2]


@systems.NEEDS_FULL_DEVICE
def test_a_full_disk_is_an_error_and_nobody_waits(tmp_path, monkeypatch):
    board = tensorboard.TensorBoard(tmp_path, first_step=1)
    monkeypatch.setattr(board, "_file", open("/dev/full", "wb"))
    with pytest.raises(OSError, match="No space left"):
        board.write(1, {"loss": 1.0})
    with pytest.raises(OSError):
        board.close()
