"""An error of Orbax is said once, by whoever caught it, and not by its threads as well."""

import logging
import subprocess
import sys
import types

import pytest

from byol_jax.checkpoints import orbax_traces
from byol_jax.host import signals
from tests.support import documents, earlier_version

LATE = RuntimeError("Event loop is closed")


@pytest.fixture
def heard(monkeypatch):
    """What comes through to the hooks that were there before."""
    heard = []
    monkeypatch.setattr(orbax_traces, "_unraisable_hook", None)
    monkeypatch.setattr(sys, "unraisablehook", lambda found: heard.append(found.exc_value))
    monkeypatch.setattr(sys, "__excepthook__", lambda kind, error, trace: heard.append(error))
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    return heard


def tell(error):
    sys.unraisablehook(types.SimpleNamespace(exc_type=type(error), exc_value=error))
    sys.excepthook(type(error), error, None)


def test_late_callbacks_are_left_out_and_everything_else_is_heard(heard):
    for _ in range(2):  # once is enough
        orbax_traces.leave_out()
    other = ValueError("no such thing")
    tell(LATE)
    tell(other)
    assert heard == [other, other]


def test_they_stay_left_out_after_a_part_that_reacted_to_signals(heard):
    with signals.reacting(signals.Reaction(lambda number: None)):
        orbax_traces.leave_out()
    with signals.reacting(signals.Reaction(lambda number: None)):
        tell(LATE)
    tell(LATE)
    assert heard == []


def test_the_log_of_orbax_alone_is_left_out(heard):
    orbax_traces.leave_out()
    logger = logging.getLogger("absl")
    record = logging.LogRecord("absl", logging.ERROR, "/lib/orbax/x.py", 1, "failed", (), None)
    assert not logger.filter(record)
    record.pathname = "/lib/byol_jax/x.py"
    assert logger.filter(record)


@pytest.mark.slow
def test_a_checkpoint_of_which_many_arrays_cannot_be_read_is_one_line(tmp_path):
    folder = earlier_version.unpack(tmp_path)
    state = folder / "run" / "checkpoints" / "2" / "state" / "ocdbt.process_0" / "d"
    largest = max(state.iterdir(), key=lambda path: path.stat().st_size)
    largest.unlink()
    largest.mkdir()
    command = [sys.executable, "-m", "byol_jax.main_loop", "--config=configs/knn.py"]
    command += [f"--config.checkpoint={folder / 'run'}", f"--workdir={folder / 'out'}"]
    done = subprocess.run(
        command, cwd=documents.ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "is half-written or damaged" in line
