"""Systems that lack what Linux has: macOS works without it, Windows is refused in words."""

import ast
import ctypes
import errno
import fcntl
import importlib.util
import os
import pathlib
import subprocess
import sys
import types

import pytest

from byol_jax.host import machine, processes
from byol_jax.report import run_state
from byol_jax.workdir import place, run_folder

ROOT = pathlib.Path(__file__).parents[2]
# What macOS lacks, of modules that it has.
ONLY_LINUX = {
    "os": (
        "copy_file_range eventfd getrandom memfd_create pidfd_open posix_fadvise posix_fallocate "
        "process_cpu_count sched_getaffinity sched_setaffinity splice O_DIRECT O_TMPFILE setns"
    ).split(),
    "signal": "SIGPWR SIGRTMIN SIGSTKFLT pidfd_send_signal sigtimedwait sigwaitinfo".split(),
    "socket": "AF_NETLINK TCP_KEEPIDLE TCP_USER_TIMEOUT".split(),
    "resource": "prlimit RUSAGE_THREAD".split(),
    "fcntl": "F_OFD_SETLK F_SETPIPE_SZ F_ADD_SEALS".split(),
}


@pytest.mark.parametrize("path", sorted((ROOT / "byol_jax").rglob("*.py")), ids=lambda p: p.stem)
def test_what_only_linux_has_is_asked_for_first(path):
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in ONLY_LINUX.get(node.value.id, ()):
                assert f'hasattr({node.value.id}, "{node.attr}")' in text, ast.unparse(node)


def test_memory_is_set_up_only_where_the_c_library_can(monkeypatch):
    monkeypatch.setattr(processes.gc, "freeze", lambda: None)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: types.SimpleNamespace())  # as musl's
    processes.settle()
    monkeypatch.setattr(ctypes, "CDLL", None)  # which would fail if it were called
    monkeypatch.setattr(sys, "platform", "darwin")
    processes.settle()


def test_processors_are_counted_without_an_affinity(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert machine.processors(tmp_path) == 10


def test_a_lost_workdir_is_called_removed_only_where_the_system_tells(monkeypatch):
    for system, words in {"linux": "removed", "darwin": "renamed or removed"}.items():
        monkeypatch.setattr(sys, "platform", system)
        spec = importlib.util.spec_from_file_location("place", place.__file__)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.LOST == words


def test_a_renamed_workdir_is_noticed_without_proc_but_not_followed(tmp_path, monkeypatch):
    def readlink(path):
        raise FileNotFoundError(errno.ENOENT, "no /proc", path)

    with run_folder.lock(tmp_path / "run"):
        found = place.Place(tmp_path / "run")
        monkeypatch.setattr(os, "readlink", readlink)
        assert not found.is_left()
        (tmp_path / "run").rename(tmp_path / "kept")
        assert found.is_left() and found.now() is None
        found.close()


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK])
def test_a_workdir_on_a_file_system_without_locks_can_be_used(number, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_folder.lock(tmp_path / "run"):
        assert (tmp_path / "run" / "lock").read_text().startswith("process ")


def test_reports_are_made_without_file_locks(tmp_path, monkeypatch):
    (tmp_path / "lock").write_text("process 1 on somewhere\n")
    monkeypatch.setattr(run_state, "fcntl", None)
    assert run_state.state(tmp_path) == run_state.UNKNOWN


def test_windows_is_refused_by_what_to_use_instead():
    code = "import sys; sys.platform = 'win32'; import byol_jax.host.signals"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and "WSL 2" in done.stderr.splitlines()[-1]
