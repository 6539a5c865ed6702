"""Runs long computations in a thread of their own, so that the main one hears signals meanwhile.

Python runs signal handlers between two of its own instructions in the main thread, which compiled
code may keep busy for minutes.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax

T = TypeVar("T")

POLL_SECONDS = 0.1
PATIENCE_SECONDS = 5.0  # for a computation to notice a stop request by itself

_left: list[threading.Thread] = []


class StoppedError(Exception):
    """A computation was given up because somebody asked to stop."""


def run(call: Callable[[], T], should_stop: Callable[[], bool]) -> T:
    """Calls in another thread and waits; gives up soon after it is asked to stop.

    With several processes, of which others may be waiting for this one, it is for ``call`` alone to
    give up, after a vote.

    Raises:
      StoppedError: there was a stop request; also raised by ``call`` itself.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    asked: float | None = None
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        if should_stop() and jax.process_count() == 1:
            asked = asked or time.monotonic()
            if time.monotonic() - asked > PATIENCE_SECONDS:
                _left.append(thread)
                raise StoppedError
    if errors:
        raise errors[0]
    return results[0]


def is_anything_left() -> bool:
    """Whether a computation that was given up still runs; the process would wait for its end."""
    return any(thread.is_alive() for thread in _left)


def wait(arrays: Any) -> None:
    """Waits until a device has computed arrays, and hears signals meanwhile."""
    pause = 1e-4
    leaves = [leaf for leaf in jax.tree.leaves(arrays) if isinstance(leaf, jax.Array)]
    while not all(leaf.is_ready() for leaf in leaves):
        time.sleep(pause)
        pause = min(2 * pause, POLL_SECONDS)
    jax.block_until_ready(leaves)  # raises what went wrong
