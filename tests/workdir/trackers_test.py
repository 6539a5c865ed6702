"""Weights & Biases, kept on this machine: numbers and pictures, and going on after a stop."""

import errno
import os
import threading
import time

import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.workdir import trackers


def test_nothing_is_tracked_unless_asked_for(tmp_path):
    assert trackers.make_trackers("", tmp_path, {}) == () and not list(tmp_path.iterdir())


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[wandb\]'"):
        trackers.make_trackers("birds", tmp_path, {"seed": 0})


class Recorder:
    """Keeps what it gets; fails or sleeps as it is told."""

    def __init__(self, *, fails=False, wait=None):
        self.rows, self.fails, self.wait = [], fails, wait

    def write(self, step, scalars):
        if self.wait:
            self.wait.wait(30)
        if self.fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.rows.append(step)

    def close(self):
        self.rows.append("closed")


def test_a_tracker_that_fails_is_named_once_and_gets_nothing_more(capsys):
    recorder = Recorder()
    tracker = trackers.Harmless("TensorBoard", lambda: recorder)
    tracker.write(1, {})
    recorder.fails = True
    for step in (2, 3):
        tracker.write(step, {})
        recorder.fails = False
    tracker.close()
    assert recorder.rows == [1]
    warning = capsys.readouterr().err
    assert warning.count("Warning") == 1 and "without TensorBoard (No space left" in warning


def test_a_tracker_that_cannot_be_opened_is_named_and_left_out(capsys):
    def make():
        raise ConnectionError("no network")

    tracker = trackers.Harmless("TensorBoard", make)
    tracker.write(1, {})
    tracker.close()
    assert capsys.readouterr().err.count("no network") == 1


def test_a_service_gets_everything_in_order_in_the_background():
    recorder = Recorder()
    tracker = trackers.Background("service", lambda: recorder)
    for step in range(100):
        tracker.write(step, {})
    tracker.close()
    assert recorder.rows == [*range(100), "closed"]


def test_nobody_waits_for_a_service_that_hangs(capsys):
    event = threading.Event()
    recorder = Recorder(wait=event)
    tracker = trackers.Background("service", lambda: recorder, most_waiting=3, close_seconds=0.1)
    began = time.monotonic()
    for step in range(10):
        tracker.write(step, {})
    tracker.close()
    assert time.monotonic() - began < 5
    assert capsys.readouterr().err.count("without service (it does not answer)") == 1
    event.set()


def test_a_service_that_is_slow_at_the_end_is_left(capsys):
    event = threading.Event()
    recorder = Recorder(wait=event)
    tracker = trackers.Background("service", lambda: recorder, close_seconds=0.1)
    tracker.write(1, {})
    tracker.close()
    assert "not finished after 0.1 s" in capsys.readouterr().err
    event.set()


@pytest.mark.slow
def test_sessions_of_an_offline_run_are_runs_of_their_own_in_one_group(tmp_path, monkeypatch):
    """Of two with one id, the one that is synchronized last would replace the other."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (1, 2):
        (tracker,) = trackers.make_trackers("birds", tmp_path, {"seed": 0})
        tracker.write(step, {"train/loss": 1.0, "train/nan": float("nan")})
        tracker.write_image(step, "pairs", np.zeros((8, 8, 3), np.uint8))
        tracker.close()
        time.sleep(1.1)
    name = (tmp_path / "wandb_id").read_text().strip()
    runs = list((tmp_path / "wandb").glob(f"offline-run-*-{name}-*"))
    ids = {run.name.split("-", 4)[-1] for run in runs}
    assert len(runs) == len(ids) == 2 and all(list(run.glob("*.wandb")) for run in runs)
