"""Requests to end, at every moment of a process: real processes, which import next to nothing."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from byol_jax.host import processes, signals
from tests.support import systems

START = "from byol_jax.host import signals; import signal, sys, time\n"
READY = "print('ready', file=sys.stderr, flush=True)"
SAVING = """
def hear(number):
    pass
with signals.reacting(signals.Reaction(hear, "Saving.")):
    print('ready', file=sys.stderr, flush=True)
    time.sleep(0.6)
    print('saved', file=sys.stderr)
"""
INTERRUPTED = """
try:
    with signals.reacting(signals.Reaction(signals.interrupt, limit=0.3, farewell="Over.")):
BODY
except signals.Interrupted as stop:
    signals.leave("Interrupted.", 128 + stop.number)
"""


WAIT = READY + "\ntime.sleep(9)"


def interrupted(body):
    """A program whose work is the body, from which a signal raises an exception."""
    return INTERRUPTED.replace("BODY", textwrap.indent(body, 8 * " "))


def live(code, *numbers, pause=0.4, shell=()):
    """Runs code, sends signals one after the other; gives the exit status and what was printed."""
    process = subprocess.Popen(
        [*shell, sys.executable, "-c", START + code],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr.readline() == "ready\n"
    for number in numbers:
        process.send_signal(number)
        time.sleep(pause)
    return process.wait(timeout=10), process.stderr.read()


@pytest.mark.parametrize("number", signals.STOPS)
def test_every_request_interrupts_with_its_status(number):
    status, text = live(interrupted(WAIT), number)
    assert (status, text) == (128 + number, "Interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_can_be_saved_is_saved(number):
    status, text = live(SAVING, number)
    assert status == 0 and text.split() == ["Saving.", "saved"], text


@pytest.mark.parametrize("numbers", [(signal.SIGINT,) * 2, (signal.SIGTERM, signal.SIGINT)])
def test_a_second_one_ends_at_once_and_says_so(numbers):
    status, text = live(SAVING, *numbers)
    assert status == 130 and text == f"\nSaving.\n\n{signals.AT_ONCE}\n"


@pytest.mark.parametrize(
    "numbers", [(signal.SIGHUP,) * 3, (signal.SIGUSR1, signal.SIGTERM), (signal.SIGTERM,) * 2]
)
def test_the_same_request_that_comes_several_times_is_one(numbers):
    """As from a terminal and its shell, from SLURM, and from wrappers that pass signals on."""
    status, text = live(SAVING, *numbers, pause=0.01)
    assert status == 0 and text.endswith("saved\n"), text


BUSY = {
    # As while XLA compiles: another thread gets the signal, and Python's handler has to wait.
    "code that is not Python": f"""
import ctypes, threading
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
threading.Timer(0.5, lambda: {READY}).start()  # when the code below has begun
ctypes.CDLL(None).sleep(9)
""",
    "a library that swallows it": f"""
while True:
    try:
        {READY}
        time.sleep(9)
    except BaseException:
        pass
""",
    "a finalizer": f"""
class Slow:
    def __del__(self):
        {READY}
        time.sleep(2)
Slow()
time.sleep(9)
""",
}


@pytest.mark.parametrize("case", BUSY)
def test_a_main_thread_that_does_not_answer_is_ended_after_a_while(case):
    status, text = live(interrupted(BUSY[case]), signal.SIGINT)
    assert status == 130 and text.replace("ready\n", "") == "Over.\n"


def test_a_run_under_nohup_goes_on_when_its_terminal_is_closed():
    status, text = live(SAVING, signal.SIGHUP, shell=("sh", "-c", "trap '' HUP; exec \"$@\"", ""))
    assert (status, text) == (0, "saved\n")


def test_before_there_is_any_work_nothing_is_raised():
    code = f"signals.end_without_work()\n{WAIT}"
    status, text = live(code, signal.SIGINT)
    assert (status, text.strip()) == (130, "Interrupted.")


def test_everything_is_put_back():
    before = [signal.getsignal(number) for number in signals.STOPS], sys.unraisablehook
    with signals.reacting(signals.Reaction(signals.interrupt)):
        with pytest.raises(signals.Interrupted):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(1)
    assert before == ([signal.getsignal(number) for number in signals.STOPS], sys.unraisablehook)


@systems.NEEDS_PROC
def test_children_do_not_hear_what_a_terminal_sends_to_all():
    with processes.deaf_children():
        child = subprocess.Popen(["sleep", "9"])
    with open(f"/proc/{child.pid}/status") as file:
        blocked = int(file.read().split("SigBlk:")[1].split()[0], 16)
    child.kill()
    child.wait()
    assert all(blocked >> (number - 1) & 1 for number in signals.STOPS)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
