"""Who of the processes of a run is alive: heartbeats, last words, and limits for every wait.

Each process writes a heartbeat into the store that all share, and reads those of the others. One
that fails leaves its message there; the others end with a line that names it.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from byol_jax.distributed import kv_store, lifeline

BEAT_SECONDS = 2.0  # between two heartbeats of a process
WAIT_SECONDS = 3600.0  # that a process waits for others that are alive
NOTE_SECONDS = 20.0  # a wait or a silence of this length is mentioned
GRACE_SECONDS = 4.0  # to fail by oneself, with a message of one's own, after another has failed
FAREWELL_SECONDS = 15.0  # that process 0 stays for others to read why it ends


class Beat(NamedTuple):
    """What a process says of itself every `BEAT_SECONDS`.

    Attributes:
      count: grows by one each time.
      host: where it runs.
      place: what it does or waits for.
    """

    count: int
    host: str
    place: str


class Watch:
    """The processes of a run, as one of them sees them.

    Args:
      store: that all of them share.
      index: of this one.
      count: of all.
      silent_seconds: a process without a heartbeat for so long counts as dead.
      wait_seconds: limit of a wait for processes that are alive.
      say: prints a line.
    """

    def __init__(
        self,
        store: kv_store.Store,
        index: int,
        count: int,
        *,
        silent_seconds: float = lifeline.SILENT_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ):
        self._store, self._index, self._count = store, index, count
        self._silent_seconds, self._wait_seconds, self._say = silent_seconds, wait_seconds, say
        self._others = [other for other in range(count) if other != index]
        self._own_beats, self._place = 0, "the start"
        self._beats: dict[int, Beat] = {}
        self._failures: dict[int, str] = {}
        self._lost: dict[int, float] = {}
        self._wait: tuple[str, float] | None = None
        self._noted: set[Any] = set()
        self._is_ending = False
        self._failed_at: float | None = None
        self._restart_clocks(time.monotonic())

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Marks a wait for the other processes, which the watch ends at its limit."""
        before, self._wait, self._place = self._wait, (what, time.monotonic()), what
        try:
            yield
        finally:
            self._wait, self._place = before, before[0] if before else f"after {what}"

    def fail(self, message: str) -> None:
        """Tells the others that this process ends, and why; to be called right before it does."""
        self._is_ending = True
        self._post_failure(first_line(message))
        deadline = time.monotonic() + FAREWELL_SECONDS
        # The store goes with process 0, and with the store JAX in all the others.
        while self._index == 0 and time.monotonic() < deadline and not self._are_others_gone():
            time.sleep(0.1)
        time.sleep(0.3)  # between somebody's last word and his end

    def _are_others_gone(self) -> bool:
        now = time.monotonic()
        silent = {who for who, heard in self._heard.items() if now - heard > self._silent_seconds}
        gone = self._store.list("failed").keys() | self._lost.keys() | silent
        return set(self._others) <= gone

    def _post_failure(self, text: str) -> None:
        """Does not wait long for a store that does not answer."""

        def write() -> None:
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._store.set(f"failed/{self._index}", text.encode())

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        thread.join(5)

    def explain(self) -> str | None:
        """Which other process failed or fell silent just now; None if all seem well."""
        before = {other: beat.count for other, beat in self._beats.items()}
        deadline = time.monotonic() + 4 * BEAT_SECONDS
        while time.monotonic() < deadline:
            if self._failures:
                return self._describe_failure()
            if self._lost and time.monotonic() - min(self._lost.values()) > 2 * BEAT_SECONDS:
                return self._describe_loss(self._first_lost())
            time.sleep(0.1)
        still = [other for other in self._others if self._count_of(other) == before.get(other, 0)]
        if not still:
            return None
        return f"{self._name(still[0])} is silent; it was last at '{self._place_of(still[0])}'."

    def stand_down(self) -> None:
        """Stops watching: this process is about to end by itself, with a message of its own."""
        self._is_ending = True

    def start(self) -> None:
        """Starts the threads that send and read heartbeats and end this process if need be."""
        for run in (self._beat_forever, self._judge_forever):
            threading.Thread(target=run, daemon=True).start()

    def lose(self, other: int) -> None:
        """Notes that a process has ended, whether or not it said why.

        Without process 0 this one ends at once: JAX would abort it a moment later, with a dump.
        """
        self._lost.setdefault(other, time.monotonic())
        if other == 0 and not self._is_ending:
            self._is_ending = True
            why = self._describe_failure() if self._failures else self._describe_loss(0)
            self._say(f"Error: {why}")
            os._exit(1)

    def _beat_forever(self) -> None:
        while not self._is_ending:
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # the clocks go on
                self.beat()
            time.sleep(BEAT_SECONDS)

    def _judge_forever(self) -> None:
        while not self._is_ending:
            time.sleep(BEAT_SECONDS / 4)
            message = self.judge(time.monotonic())
            if message and not self._is_ending:
                self._say(f"Error: {message}")
                self.fail(message)
                os._exit(1)

    def beat(self) -> None:
        """Sends a heartbeat and reads those of the others."""
        self._own_beats += 1
        own = Beat(self._own_beats, socket.gethostname(), self._place)
        self._store.set(f"beats/{self._index}", json.dumps(own).encode())
        beats, failures = self._store.list("beats"), self._store.list("failed")
        now = time.monotonic()
        for other in self._others:
            if other not in beats:
                continue
            beat = Beat(*json.loads(beats[other]))
            if beat.count != self._count_of(other):
                self._heard[other] = now
                self._noted.discard(other)
            self._beats[other] = beat
        self._failures = {
            other: failures[other].decode() for other in self._others if other in failures
        }

    def judge(self, now: float) -> str | None:
        """Why this process has to end now, if it has to."""
        if now - self._judged > 5 * BEAT_SECONDS:  # this process itself stood still
            self._restart_clocks(now)
        self._judged = now
        if self._failures:
            self._failed_at = self._failed_at or now
            return self._describe_failure() if now - self._failed_at > GRACE_SECONDS else None
        if self._lost and now - min(self._lost.values()) > GRACE_SECONDS:
            return self._describe_loss(self._first_lost())
        silence = {other: now - heard for other, heard in self._heard.items()}
        if 0 in silence and silence[0] >= max(silence.values()) - 2 * BEAT_SECONDS:
            silence = {0: silence[0]}  # the others are heard through it
        for other, seconds in silence.items():
            text = f"{self._name(other)} has been silent for {seconds:,.0f} s"
            if seconds > self._silent_seconds:
                return f"{text}; it was last at '{self._place_of(other)}'. It is taken for dead."
            if seconds > min(NOTE_SECONDS, self._silent_seconds / 2):
                limit = f"after {self._silent_seconds:,.0f} s this run ends (--silent_seconds)"
                self._note(other, f"{text}; {limit}.")
        return self._judge_wait(now)

    def _judge_wait(self, now: float) -> str | None:
        wait = self._wait
        if wait is None:
            return None
        what, since = wait
        late = [other for other in self._others if self._place_of(other) != what]
        text = f"Process {self._index} has waited {now - since:,.0f} s at '{what}'"
        if late:
            text += f"; {self._name(late[0])} is at '{self._place_of(late[0])}'"
        if now - since > self._wait_seconds:
            return f"{text}. Nothing waits longer than {self._wait_seconds:,.0f} s."
        if now - since > NOTE_SECONDS and late:
            self._note(wait, f"{text}.")
        return None

    def _restart_clocks(self, now: float) -> None:
        self._judged = now
        self._heard = dict.fromkeys(self._others, now)
        if self._wait:
            self._wait = (self._wait[0], now)

    def _note(self, key: Any, text: str) -> None:
        if key not in self._noted:
            self._noted.add(key)
            self._say(text)

    def _describe_failure(self) -> str:
        other, message = next(iter(self._failures.items()))
        return f"{self._name(other)} failed: {message}"

    def _first_lost(self) -> int:
        return min(self._lost, key=self._lost.__getitem__)

    def _describe_loss(self, other: int) -> str:
        return (
            f"{self._name(other)} is gone without a word: killed, perhaps for want of memory. "
            f"It was last at '{self._place_of(other)}'."
        )

    def _count_of(self, other: int) -> int:
        return self._beats[other].count if other in self._beats else 0

    def _place_of(self, other: int) -> str:
        return self._beats[other].place if other in self._beats else "the start"

    def _name(self, other: int) -> str:
        host = f" on {self._beats[other].host}" if other in self._beats else ""
        return f"Process {other}{host}"


def first_line(text: str) -> str:
    """What of a message fits into one line."""
    return (text.strip().splitlines() or ["no message"])[0][:500]
