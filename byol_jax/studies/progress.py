"""What is shown of a study while it runs: a table that fills in, and the time left."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from byol_jax.workdir import console

WAITING, RUNNING, ELSEWHERE, DONE, FAILED, STALE = (
    *("waiting", "running", "elsewhere", "done", "failed", "silent"),
)


class State(NamedTuple):
    """How a run stands.

    Attributes:
      kind: one of the words above.
      done: fraction of its steps.
      seconds: that it has run, in this process's time.
      note: who does it, or why it failed.
    """

    kind: str
    done: float = 0.0
    seconds: float = 0.0
    note: str = ""


class Clock:
    """Estimates how long a study still takes, by what has been done since it was started."""

    def __init__(self):
        self._began = time.monotonic()
        self._first: dict[str, float] = {}  # fraction of each run that was done before

    def left(self, states: Mapping[str, State]) -> float | None:
        """Seconds, of the runs that have no end yet; None before anything was done."""
        done, rest = 0.0, 0.0
        for name, state in states.items():
            if state.kind == RUNNING:
                first = self._first.setdefault(name, state.done)
                done += state.done - first
                rest += 1 - state.done
            elif state.kind == DONE:
                done += 1 - self._first.get(name, 1.0)
            elif state.kind == WAITING:
                rest += 1
        elapsed = time.monotonic() - self._began
        return rest * elapsed / done if done > 0 else None


def spoken(seconds: float | None) -> str:
    """A time left, for people."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


class Screen:
    """Shows a table in place on a terminal that has room for it, else a line for each change.

    Args:
      make_table: the table as it is now.
    """

    def __init__(self, make_table: Callable[[Mapping[str, State]], str]):
        self._make_table, self._clock = make_table, Clock()
        self._states: dict[str, State] = {}
        self._height = 0

    def show(self, states: Mapping[str, State]) -> None:
        """Shows what has changed."""
        left = spoken(self._clock.left(states))
        done = sum(state.kind == DONE for state in states.values())
        end = f"{done}/{len(states)} runs done  ETA {left}"
        table = self._make_table(states) if sys.stderr.isatty() else ""
        room = shutil.get_terminal_size()
        if table and len(table.splitlines()) < room.lines - 1:
            self._replace(f"{table}\n{end}", room.columns)
        else:
            for name, state in states.items():
                before = self._states.get(name, State(WAITING)).kind
                if state.kind != before:
                    console.say(_line(name, state, end))
        self._states = dict(states)

    def _replace(self, text: str, columns: int) -> None:
        lines = [line[: columns - 1] for line in text.splitlines()]
        up = f"\x1b[{self._height}F\x1b[J" if self._height else ""
        sys.stderr.write(up + "\n".join(lines) + "\n")
        sys.stderr.flush()
        self._height = len(lines)


def _line(name: str, state: State, end: str) -> str:
    seconds = f" in {spoken(state.seconds)}" if state.kind == DONE and state.seconds else ""
    note = f": {state.note}" if state.note else ""
    return f"{name} {state.kind}{seconds}{note}  ({end})"
