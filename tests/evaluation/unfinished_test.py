"""Training as part of an evaluation: when it saves, what ends it and what does not."""

import os
import signal
import time

import jax
import numpy as np
import pytest

from byol_jax.evaluation import resume
from tests.support import waiting


class Batches:
    """Numbers of steps, for all local devices."""

    def __init__(self):
        self.at, self.is_closed = 0, False

    def __iter__(self):
        return self

    def __next__(self):
        self.at += 1
        return {"step": np.full(jax.local_device_count(), self.at)}

    def get_state(self):
        return {"at": self.at}

    def set_state(self, state):
        self.at = state["at"]

    def close(self):
        self.is_closed = True


def count(state, batch):
    """A step of training that has diverged."""
    assert (np.asarray(batch["step"]) == int(state) + 1).all()
    return state + 1, {"loss": np.float32(np.nan)}, None


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Unfinished work, and the steps at which it was saved."""
    saved = []
    work = resume.Unfinished(tmp_path, "identity")
    save = work._save

    def noting(name, state, done, batches):
        saved.append(done)
        save(name, state, done, batches)

    monkeypatch.setattr(work, "_save", noting)
    return work, saved


def train(work, update=count, total_steps=6):
    batches = Batches()
    try:
        return work.train(
            "part", update, np.int32(0), batches, total_steps=total_steps, title="part"
        )
    finally:
        assert batches.is_closed


def test_training_that_diverges_comes_to_its_end(work):
    assert train(work[0]) == 6 and work[1] == []


def test_the_host_is_one_step_ahead_and_no_more(work):
    assert train(work[0], waiting.counting(count)) == 6


def test_what_is_due_is_saved_once(work, monkeypatch):
    """Ten minutes pass in one of the steps."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def slow(state, batch):
        now[0] += 601 if state == 2 else 1
        return count(state, batch)

    assert train(work[0], slow) == 6
    assert work[1] == [3]


def test_a_signal_saves_and_the_rest_is_done_by_the_next_command(work, capfd):
    def stopped(state, batch):
        if state == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return count(state, batch)

    with pytest.raises(resume.Stopped, match="Stopped 'part' after step 4 of 6 and saved"):
        train(work[0], stopped)
    assert work[1] == [4]
    assert train(work[0]) == 6
    assert "Resuming 'part' from step 4" in capfd.readouterr().err


def test_a_signal_in_the_last_step_leaves_nothing_to_be_done_again(work):
    def stopped(state, batch):
        if state == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return count(state, batch)

    with pytest.raises(resume.Stopped):
        train(work[0], stopped)
    assert train(work[0], lambda *_: pytest.fail("done already")) == 6
