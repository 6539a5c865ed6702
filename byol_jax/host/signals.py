"""What the signals that ask a command to end do to it, at every moment of its life.

Ctrl-C (SIGINT), SIGTERM, a terminal that is closed (SIGHUP) and SLURM's warning (SIGUSR1) are one
request. What it leads to is a `Reaction`, which differs between parts of a command: work that can
be saved is saved, everything else ends with a message.

Python runs signal handlers in the main thread, between two of its own instructions. That may be
minutes away while XLA compiles, so a thread watches, too: it answers at once, and ends the process
if the main thread does not.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from byol_jax.host import streams

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Those that end a process at once when they come again. Of the others several may come in a row:
# of the terminal and of its shell, or of SLURM as the time runs out.
INSISTENT = (signal.SIGINT, signal.SIGTERM)
SAME_SECONDS = 0.3  # within which a signal is the same one, sent on by a wrapper
LIMIT_SECONDS = 5.0  # that the main thread has to end, where nothing is to be saved
AT_ONCE = "Stopped at once, without saving: rerun the same command to resume from the last save."


class Interrupted(KeyboardInterrupt):
    """A signal asks to end, and there is nothing to save.

    Attributes:
      number: of the signal.
      message: what there is to say; empty if nobody has said it.
    """

    def __init__(self, number: int = signal.SIGINT, message: str = ""):
        super().__init__(number)
        self.number, self.message = number, message


class Reaction(NamedTuple):
    """What the first signal leads to.

    Attributes:
      hear: called with its number in the main thread; may raise `Interrupted`.
      message: printed at once; nothing if empty.
      limit: seconds after which the process is ended if it still is in this part; None for never.
      farewell: printed then.
    """

    hear: Callable[[int], None]
    message: str = ""
    limit: float | None = None
    farewell: str = ""


def interrupt(number: int) -> NoReturn:
    """Raises `Interrupted`; to be `Reaction.hear`."""
    raise Interrupted(number)


def leave(message: str, status: int) -> NoReturn:
    """Ends the process, if wanted with a message, and without taking the interpreter apart.

    That crashes while threads of XLA or Grain are still at work, as they are wherever an exception
    has come from.
    """
    streams.flush()
    if message:
        streams.write(message)
    os._exit(status)


def end_without_work() -> None:
    """From now on a signal ends this process at once: for the time before there is any work.

    Nothing is raised, as tracebacks of half-done imports would help nobody.
    """
    for number in _numbers():
        signal.signal(number, lambda number, _: leave("\nInterrupted.", 128 + number))


def ignore() -> None:
    """From now on nothing interrupts: for the end of the interpreter, which takes no exception."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def in_a_program() -> Iterator[None]:
    """Within it only Ctrl-C is heard, and nothing ends the process, which is somebody else's.

    The first one leads to the reaction, another one raises `Interrupted`.
    """
    global _is_ours
    before, _is_ours = _is_ours, False
    try:
        yield
    finally:
        _is_ours = before


@contextlib.contextmanager
def reacting(reaction: Reaction) -> Iterator[None]:
    """Within it the first signal leads to this reaction, and a second one ends the process.

    May be nested; there is one first signal for all of them. In another thread than the main one,
    which alone may set handlers, nothing is heard.
    """
    global _watch
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outermost = _watch is None
    if outermost:
        _watch = _Watch()
    _watch.reactions.append(reaction)
    try:
        yield
    finally:
        _watch.reactions.remove(reaction)
        if outermost:
            watch, _watch = _watch, None
            watch.close()


def _numbers() -> list[int]:
    """Signals to listen to; `nohup` makes SIGHUP one that is ignored, and it remains so."""
    return [
        number
        for number in (STOPS if _is_ours else (signal.SIGINT,))
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    ]


class _Watch:
    """Handlers of all signals, and the thread that is told of them as soon as they come."""

    def __init__(self):
        self.reactions: list[Reaction] = []
        self._heard: Reaction | None = None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._handlers = {n: signal.signal(n, self._hear) for n in _numbers()}
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._pass_over
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Puts everything back."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if sys.unraisablehook == self._pass_over:  # else somebody put one on top, which goes on
            sys.unraisablehook = self._unraisable
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _hear(self, number: int, _frame: Any) -> None:
        reaction = self._reaction()
        if not self._heard and reaction:
            self._heard = reaction
            reaction.hear(number)
        elif not _is_ours:
            interrupt(number)

    def _pass_over(self, unraisable: Any) -> None:
        """Shows no traceback where an interruption is lost, in a finalizer: `limit` ends it."""
        if not issubclass(unraisable.exc_type, Interrupted):
            self._unraisable(unraisable)

    def _listen(self) -> None:
        """Runs in the thread: answers the first signal, and ends the process if need be."""
        number = self._next(None)
        # The main thread may have been quicker, and have left the part that reacted.
        reaction = self._heard or self._reaction()
        if number is None or reaction is None:
            return
        if reaction.message:
            streams.write(f"\n{reaction.message}")
        if not _is_ours:
            return
        came = time.monotonic()
        insisted = came if number in INSISTENT else None
        since = came  # when the part began that has a limit
        while (again := self._next(0.1)) is not None:
            now = time.monotonic()
            if again in INSISTENT:
                if insisted is not None and now - insisted > SAME_SECONDS:
                    leave(f"\n{AT_ONCE}", 128 + again)
                insisted = insisted or now
            reaction = self._reaction() or reaction
            if reaction.limit is None:
                since = now
            elif now - since > reaction.limit:
                leave(reaction.farewell, 128 + number)

    def _reaction(self) -> Reaction | None:
        """Of the part that runs now; None while the last one ends."""
        return next(reversed(self.reactions), None)

    def _next(self, seconds: float | None) -> int | None:
        """The next signal to end; 0 if none comes in time; None once this is closed."""
        while select.select([self._reader], [], [], seconds)[0]:
            data = os.read(self._reader, 1)
            if not data:
                return None
            if data[0] in self._handlers:
                return data[0]
        return 0


_watch: _Watch | None = None
_is_ours = True  # the process: a command of this project, not a program that calls it
