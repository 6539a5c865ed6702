"""Runs an update N times and calls hooks; knows nothing about learning.

Metrics of a step are fetched while the next one already runs, so that the host never makes the
device wait.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
import tqdm

from byol_jax.distributed import multihost
from byol_jax.host import signals

Check = Callable[[int, Mapping[str, np.ndarray]], None]
NOTHING_TO_SAVE = "Stopped before a step: rerun the same command to begin again."


class NonFiniteError(RuntimeError):
    """The loss or a gradient is no longer a number."""


class NothingDoneError(RuntimeError):
    """A run was told to stop before it had done anything to be saved."""


class Hook(NamedTuple):
    """Something to do after some of the steps.

    Attributes:
      is_due: asked once after each step, with the number of steps done.
      run: called with (steps done, state after that many updates).
    """

    is_due: Callable[[int], bool]
    run: Callable[[int, Any], None]


def every(steps: int, run: Callable[[int, Any], None]) -> Hook:
    """A hook for every so many steps; 0 for never."""
    return Hook(lambda step: bool(steps) and step % steps == 0, run)


class Bar:
    """A progress bar of steps, as `run` moves it."""

    def __init__(self, bar: tqdm.tqdm):
        self._bar = bar

    def advance(self) -> None:
        """One step more is done."""
        self._bar.update()

    def restart(self, step: int) -> None:
        """Begins to measure speed from now on, when so many steps are done."""

    def pause(self, seconds: float) -> None:
        """Leaves time spent elsewhere, such as in a probe, out of the speed."""

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()


class Progress(Bar):
    """A tqdm bar on a terminal, else a plain line now and then, to standard error.

    Args:
      first_step: updates done before.
      total_steps: updates to have been done at the end.
      batch_size: images of an update.
      is_shown: else nothing is printed, and speed is measured all the same.
    """

    def __init__(
        self, *, first_step: int, total_steps: int, batch_size: int, is_shown: bool = True
    ):
        self._batch_size = batch_size
        self._is_shown = is_shown
        self._is_terminal = sys.stderr.isatty()
        self._last = (first_step, time.monotonic())
        self._total = total_steps
        bar = tqdm.tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            disable=not (self._is_terminal and is_shown),
        )
        super().__init__(bar)

    def report(self, step: int, loss: float) -> float:
        """Shows loss, speed and time left; returns images per second since the last report."""
        now = time.monotonic()
        (last_step, last_time), self._last = self._last, (step, now)
        seconds = max(now - last_time, 1e-9)
        rate = (step - last_step) / seconds
        images = rate * self._batch_size
        self._bar.set_postfix_str(f"loss={loss:.3f}, {images:.0f} img/s")
        if not self._is_terminal:
            left = tqdm.tqdm.format_interval((self._total - step) / rate) if rate else "?"
            self.say(f"step {step}/{self._total}  loss {loss:.3f}  {images:.0f} img/s  ETA {left}")
        return images

    def restart(self, step: int) -> None:
        self._last = (step, time.monotonic())

    def pause(self, seconds: float) -> None:
        self._last = (self._last[0], self._last[1] + seconds)

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._is_shown:
            tqdm.tqdm.write(text, file=sys.stderr)


class StopRequest:
    """Turns the first signal that asks to end into a flag; the second one ends the process at once.

    Attributes:
      is_made: whether there was a signal.
    """

    def __enter__(self) -> "StopRequest":
        self.is_made = False
        message = "Finishing this step, then saving. Again to stop at once."
        self._reacting = signals.reacting(signals.Reaction(self._remember, message))
        self._reacting.__enter__()
        return self

    def _remember(self, _number: int) -> None:
        self.is_made = True

    def __exit__(self, *_: Any) -> None:
        self._reacting.__exit__(None, None, None)

    @contextlib.contextmanager
    def interrupting(self, *, message: str, ends: bool = False) -> Iterator[None]:
        """Within it the request, or one that was made before, raises an exception.

        For what may take long between two steps, and can be left; several processes leave nothing,
        as they stop together, by their votes.

        Args:
          message: printed at once, or as the last word.
          ends: there is nothing to save, so that the process is ended if nobody answers.

        Raises:
          signals.Interrupted: a signal has come.
        """

        def hear(number: int) -> NoReturn:
            self.is_made = True
            raise signals.Interrupted(number, message)

        if jax.process_count() > 1:
            yield
            return
        reaction = signals.Reaction(hear, message)
        if ends:
            limit = signals.LIMIT_SECONDS
            reaction = signals.Reaction(hear, limit=limit, farewell=f"\n{message}")
        with signals.reacting(reaction):
            if self.is_made:
                raise signals.Interrupted(message=message)
            yield


def require_finite(step: int, metrics: Mapping[str, np.ndarray]) -> None:
    """Raises NonFiniteError, naming a metric that is not finite, and its step."""
    for name, value in metrics.items():
        if not np.isfinite(value):
            raise NonFiniteError(f"{name} of step {step} is {value}.")


def run(
    update: Callable[[Any, Any], tuple[Any, dict[str, Any], Any]],
    state: Any,
    batches: Iterator[Any],
    *,
    first_step: int,
    total_steps: int,
    log_every: int,
    on_metrics: Callable[[int, dict[str, np.ndarray], Any], None],
    hooks: Sequence[Hook],
    progress: Bar,
    should_stop: Callable[[], bool] = lambda: False,
    check: Check = require_finite,
) -> tuple[Any, int]:
    """Runs updates until ``total_steps`` are done or it is asked to stop.

    Args:
      update: (state, batch) -> (state, metrics, outputs); all metrics are scalars, at least one.
      state: state after ``first_step`` updates; its buffers are given away.
      batches: one batch a step.
      first_step: updates done before.
      total_steps: updates to have been done at the end.
      log_every: every so many steps, and at the last one, metrics are fetched.
      on_metrics: called with (steps done, metrics, outputs) of such a step.
      hooks: called in this order when their turn comes.
      progress: what the person sees.
      should_stop: asked before the first step and after each, while the device still works on it.
      check: called with (steps done, metrics) of a step before a hook or a person sees it.

    Returns:
      The state, and the number of updates that made it.

    Raises:
      NonFiniteError: by ``check``, unless it is another one.
    """
    pending, previous = None, None
    step = first_step
    is_stopped = should_stop()
    while step < total_steps and not is_stopped:
        state, metrics, outputs = update(state, next(batches))
        step += 1
        # Waits for the step before this one, so that the host is one step ahead and no more: with
        # many steps handed out, a signal would be obeyed after the last of them. The wait is here,
        # between two calls, since a call of the update itself hears no signal.
        jax.block_until_ready(previous)
        previous = metrics
        is_stopped = should_stop()
        if step == first_step + 1:
            with multihost.waiting(f"step {step}"):
                jax.block_until_ready(metrics)
            progress.restart(step)  # compilation is no part of the speed
        # Metrics of the last step that was to be logged: this step was handed out above, so the
        # device is busy while the host fetches and writes them.
        _flush(pending, check, on_metrics)
        pending = None
        if step % log_every == 0 or step == total_steps:
            pending = (step, metrics, outputs)
        progress.advance()
        due = [hook for hook in hooks if hook.is_due(step)]
        if due:
            with multihost.waiting(f"step {step}"):
                jax.block_until_ready(metrics)
            # Before a hook saves or measures this state: its numbers are sound, and all rows of
            # metrics up to it are written, so that a checkpoint never is ahead of the log.
            check(step, jax.device_get(metrics))
            _flush(pending, check, on_metrics)
            pending = None
            _run_hooks(due, step, state, progress)
            is_stopped = is_stopped or should_stop()  # hooks may take longer than steps
    _flush(pending, check, on_metrics)
    if step > first_step:
        check(step, jax.device_get(metrics))
    return state, step


def _flush(pending: Any, check: Check, on_metrics: Callable[..., None]) -> None:
    if pending is None:
        return
    step, metrics, outputs = pending
    with multihost.waiting(f"step {step}"):
        jax.block_until_ready(metrics)
    metrics = jax.device_get(metrics)
    check(step, metrics)
    on_metrics(step, metrics, outputs)


def _run_hooks(due: list[Hook], step: int, state: Any, progress: Bar) -> None:
    with multihost.waiting(f"step {step}"):
        jax.block_until_ready(state)  # else its computation would count as the hooks' time
    start = time.monotonic()
    for hook in due:
        hook.run(step, state)
    progress.pause(time.monotonic() - start)
