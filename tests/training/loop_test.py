"""The loop alone: order of calls, hooks, signals, numbers that are none."""

import contextlib
import itertools
import os
import signal

import numpy as np
import pytest

from byol_jax.host import signals
from byol_jax.training import loop, summary
from tests.support import waiting


def run(update, *, first_step=0, total_steps=6, log_every=2, hooks=(), log=None, should_stop=bool):
    progress = loop.Progress(first_step=first_step, total_steps=total_steps, batch_size=4)
    rows = [] if log is None else log
    state, step = loop.run(
        update,
        np.float32(first_step),
        itertools.count(first_step),
        first_step=first_step,
        total_steps=total_steps,
        log_every=log_every,
        on_metrics=lambda step, metrics, outputs: rows.append((step, float(metrics["loss"]))),
        hooks=hooks,
        progress=progress,
        should_stop=should_stop,
    )
    progress.close()
    return state, step, rows


def count(state, batch):
    assert state == batch
    return state + 1, {"loss": np.float32(state)}, None


def test_metrics_come_at_their_steps_and_at_the_last():
    assert run(count, total_steps=5)[1:] == (5, [(2, 1.0), (4, 3.0), (5, 4.0)])


def test_the_host_is_one_step_ahead_and_no_more():
    assert run(waiting.counting(count), log_every=100)[1] == 6


def test_hooks_come_after_the_metrics_of_their_step_and_see_its_state():
    seen = []
    hooks = [
        loop.every(2, lambda step, state: seen.append((step, float(state)))),
        loop.every(0, None),
    ]
    run(count, hooks=hooks, log=seen)
    assert seen == [(2, 1.0), (2, 2.0), (4, 3.0), (4, 4.0), (6, 5.0), (6, 6.0)]


def test_a_resumed_run_does_the_rest():
    assert run(count, first_step=3)[1:] == (6, [(4, 3.0), (6, 5.0)])


@pytest.mark.parametrize("number", signals.STOPS)
def test_a_signal_ends_the_run_after_its_step(number):
    def update(state, batch):
        if batch == 3:
            os.kill(os.getpid(), number)
        return count(state, batch)

    before = signal.getsignal(number)
    with loop.StopRequest() as stop:
        state, step, _ = run(update, should_stop=lambda: stop.is_made)
    assert step == state == 4
    assert signal.getsignal(number) is before


def test_a_signal_before_the_first_step_leaves_nothing_to_do():
    with loop.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert run(count, first_step=2, should_stop=lambda: stop.is_made) == (2, 2, [])


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_a_number_that_is_none_stops_the_run_before_a_hook_sees_it(name):
    def update(state, batch):
        metrics = {"loss": np.float32(0), "gradient_norm": np.float32(0)}
        metrics[name] = np.float32(np.nan if batch == 2 else 0)
        return state + 1, metrics, None

    seen = []
    with pytest.raises(loop.NonFiniteError, match=f"{name} of step 3 is nan"):
        run(update, log_every=100, hooks=[loop.every(3, lambda step, state: seen.append(step))])
    assert not seen


def test_a_run_that_is_told_to_stop_says_what_is_saved_and_no_more():
    assert (
        summary.stopped(0, 7) == "Stopped after step 7 and saved. Rerun the same command to resume."
    )
    assert "before a new step; the checkpoint of step 7 is there" in summary.stopped(7, 7)
    with pytest.raises(loop.NothingDoneError, match="there is nothing to save"):
        summary.stopped(0, 0)


def test_a_hook_may_be_interrupted_and_the_run_stops_after_its_step():
    def probe(step, state):
        with stop.interrupting(message="Leaving it."):
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("goes on in spite of the signal")

    def try_probe(step, state):
        with contextlib.suppress(signals.Interrupted):
            probe(step, state)

    with loop.StopRequest() as stop:
        hooks = [loop.every(3, try_probe)]
        state, step, _ = run(count, hooks=hooks, should_stop=lambda: stop.is_made)
    assert step == state == 3


def test_a_request_that_was_made_before_interrupts_at_once():
    with loop.StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(signals.Interrupted), stop.interrupting(message="Leaving it."):
            raise AssertionError("begins in spite of the signal")
