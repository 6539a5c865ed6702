"""How the processes that read images are set up: the run's own, and its workers."""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

from byol_jax.host import signals

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_environment_lock = threading.Lock()  # trackers and readers start processes from their threads


class WorkerError(RuntimeError):
    """A worker process has ended by itself."""

    def __init__(self, reason: Exception):
        super().__init__(
            f"{reason}\nIt may have been out of memory, or of shared memory (/dev/shm, in Docker "
            "--shm-size). Give fewer --config.data.workers, or 0 and only threads, and "
            "rerun the command to resume."
        )


def settle() -> None:
    """Readies a process that has imported all that it needs for reading many batches.

    Objects that exist by now are left out of garbage collections, a full one of which would stop
    all threads for a tenth of a second; memory of past batches is kept for those to come, not
    given back to the system and asked for again (mallopt(3)).
    """
    gc.freeze()
    malloc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(malloc, "mallopt"):  # glibc's
        malloc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # bytes; it takes no more
        malloc.mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


@contextlib.contextmanager
def deaf_children() -> Iterator[None]:
    """Within it processes are born without an ear for signals, which a terminal sends to all.

    They are deaf for good: `prepare_worker` comes only after imports that take seconds.
    """
    _start_tracker()  # else it would be started within, and end the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Starts the process that removes semaphores of dead ones, and keeps it from saying so."""
    name = "PYTHONWARNINGS"
    with _environment_lock:
        before = os.environ.get(name)
        os.environ[name] = "ignore:resource_tracker"
        try:
            resource_tracker.ensure_running()
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


def prepare_worker(_index: int, _count: int) -> None:
    """Leaves signals to the main process, which ends its workers, and does not outlive it."""
    for number in signals.STOPS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
