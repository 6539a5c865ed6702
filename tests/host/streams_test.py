"""A command without a screen: closed streams, pipes without readers, full disks, lost terminals."""

import os
import pty
import subprocess
import sys

import pytest

from byol_jax.host import streams as console
from tests.support import systems

# The standard streams are protected; then whatever prints prints, and the work goes on.
CODE = """
import logging, sys, warnings
from byol_jax.host import streams as console
console.protect()
import tqdm
for number in tqdm.tqdm(range(3), file=sys.stderr):
    print("out", number, flush=True)
    print("err", number, file=sys.stderr, flush=True)
    tqdm.tqdm.write("bar", file=sys.stderr)
    logging.warning("log")
    warnings.warn(f"warning {number}")
    console.write("from a handler")
with open(sys.argv[1], "w") as file:
    file.write("done")
"""


def run(path, *, shell=(), **streams):
    command = [*shell, sys.executable, "-c", CODE, str(path)]
    return subprocess.run(command, timeout=20, **streams).returncode


def broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def lost_terminal():
    controller, terminal = pty.openpty()
    os.close(controller)
    return os.fdopen(terminal, "w")


SCREENS = {
    "a pipe whose reader has ended": broken_pipe,
    "a terminal that is gone": lost_terminal,
    "a full disk": lambda: open("/dev/full", "w"),
}
MARKS = {"a full disk": systems.NEEDS_FULL_DEVICE}


@pytest.mark.parametrize("screen", [pytest.param(s, marks=MARKS.get(s, ())) for s in SCREENS])
def test_work_goes_on_without(screen, tmp_path):
    with SCREENS[screen]() as stream:
        status = run(tmp_path / "work", stdout=stream, stderr=stream)
    assert status == 0 and (tmp_path / "work").read_text() == "done"


def test_work_goes_on_with_all_streams_closed_and_no_file_gets_what_is_printed(tmp_path):
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', ""]
    assert run(tmp_path / "work", shell=closed) == 0
    assert (tmp_path / "work").read_text() == "done"


PRINT = """
import sys
from byol_jax.host import streams as console
console.protect()
print("all that there is")
console.finish(0)
"""


@pytest.mark.parametrize("screen, status", [("a pipe whose reader has ended", 141)])
def test_a_command_that_only_prints_ends_quietly_when_nobody_reads(screen, status):
    with SCREENS[screen]() as stream:
        done = subprocess.run([sys.executable, "-c", PRINT], stdout=stream, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (status, b"")


@systems.NEEDS_FULL_DEVICE
def test_a_command_that_only_prints_says_that_the_disk_is_full():
    with open("/dev/full", "w") as stream:
        done = subprocess.run([sys.executable, "-c", PRINT], stdout=stream, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"No space left" in done.stderr


def test_once_is_enough(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", console.Stream(sys.stdout))
    before = sys.stdout
    monkeypatch.setattr(sys, "stderr", console.Stream(sys.stderr))
    console.protect()
    assert sys.stdout is before
