"""How the processes that read images are set up: the run's own, and its workers."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


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


def prepare_worker(_index: int, _count: int) -> None:
    """Leaves signals to the main process, which ends its workers, and does not outlive it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
