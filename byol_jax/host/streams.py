"""The standard streams of a command, which outlives them.

A terminal may be closed, the reader of a pipe may end, the disk of a log file may be full: what
cannot be shown then is dropped, and the work goes on.
"""

import contextlib
import os
import select
import signal
import sys
import threading
from typing import Any, NoReturn

WAIT_SECONDS = 1.0  # for somebody to read, before a process ends


class Stream:
    """A text stream whose failures are nobody's business but `failure`'s.

    Args:
      stream: to write to.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self.failure: Exception | None = None  # the last one, for a command that only prints

    def write(self, text: str) -> int:
        """Writes or, if that fails, drops the text."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self.failure = error
            return len(text)

    def flush(self) -> None:
        """Passes on what is still in a buffer, if that is possible."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.failure = error

    def isatty(self) -> bool:
        """Whether it is a terminal; one that is gone is none."""
        try:
            return self._stream.isatty()
        except (OSError, ValueError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def protect() -> None:
    """Puts a `Stream` in place of standard output and standard error; once is enough.

    Descriptors that were closed when the process began lead to nowhere from now on: the next file
    that is opened would otherwise get such a number, and every library's messages.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this
            os.set_inheritable(opened, True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, Stream):
            continue
        if stream is None:
            stream = open(os.devnull, "w")
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # a file name may be no valid text
        setattr(sys, name, Stream(stream))


def finish(status: int) -> NoReturn:
    """Ends a command whose only work is to print, and says by its status if it could not.

    Args:
      status: if all was printed; else it is 1, and 141 for a reader that wants no more, as of a
        program that SIGPIPE ends.
    """
    sys.stdout.flush()
    failure = sys.stdout.failure
    if isinstance(failure, BrokenPipeError):
        sys.exit(128 + signal.SIGPIPE)
    if failure is not None:
        print(f"Error: Cannot write to standard output: {failure}", file=sys.stderr)
        sys.exit(1)
    sys.exit(status)


def write(text: str) -> None:
    """Prints a line to standard error from a signal handler or a thread, whatever print does now.

    Args:
      text: without the end of the line.
    """
    with contextlib.suppress(OSError, ValueError):
        # A pipe whose reader sleeps would make this wait for ever.
        if select.select([], [2], [], WAIT_SECONDS)[1]:
            os.write(2, f"{text}\n".encode(errors="backslashreplace"))


def flush() -> None:
    """Passes on what is in the buffers of both streams, but waits for nobody."""
    # In a thread, as the interrupted code may hold a stream's lock, or a reader may sleep.
    thread = threading.Thread(target=_flush, daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
