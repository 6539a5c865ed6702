"""Processes are set up by several threads at once: trackers' and readers'."""

import os
import threading
import time
from concurrent import futures
from multiprocessing import resource_tracker

import pytest

from byol_jax.host import processes


@pytest.mark.parametrize("before", [None, "error::ImportWarning"])
def test_threads_that_start_processes_leave_the_environment_as_it_was(monkeypatch, before):
    """They change and restore one variable: without a lock some find it gone, or keep it."""
    monkeypatch.setattr(resource_tracker, "ensure_running", lambda: time.sleep(0.01))
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONWARNINGS", before)
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        with processes.deaf_children():
            pass

    with futures.ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(start) for _ in range(8)]:
            future.result()
    assert os.environ.get("PYTHONWARNINGS") == before
