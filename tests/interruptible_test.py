"""Long computations hear signals, and pass on what they give and raise."""

import os
import signal
import threading
import time

import jax.numpy as jnp
import pytest

from byol_jax import eval_pipeline, interruptible, loop, probes


def test_results_and_errors_come_through():
    assert interruptible.run(lambda: 3, lambda: False) == 3
    with pytest.raises(KeyError, match="own"):
        interruptible.run(lambda: {}["own"], lambda: False)
    assert not interruptible.is_anything_left()


def test_a_signal_is_heard_at_once_and_the_computation_given_up(monkeypatch):
    monkeypatch.setattr(interruptible, "PATIENCE_SECONDS", 0.2)
    release = threading.Event()
    with loop.StopRequest() as stop:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        with pytest.raises(interruptible.StoppedError):
            interruptible.run(release.wait, lambda: stop.is_made)
    assert time.monotonic() - start < 2
    assert interruptible.is_anything_left()
    release.set()


def test_a_probe_stops_between_two_batches():
    batch = eval_pipeline.EvalBatch(None, None, jnp.ones(2), None)
    seen = []
    with pytest.raises(interruptible.StoppedError):
        for _ in probes.show([batch] * 5, 10, "images", lambda: len(seen) == 3):
            seen.append(1)
    assert len(seen) == 3


def test_waiting_for_arrays_takes_any_tree():
    interruptible.wait({"a": jnp.ones(3) + 1, "b": [2.0, None]})
