"""Ctrl-C at moments of every task's life, as its user would: never a traceback, never a crash."""

import functools
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from byol_jax import main_loop
from byol_jax.training import online_eval
from tests.support import run_process, systems

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, systems.NEEDS_PROC]
TASKS = {
    "knn": ("knn.py",),
    "linear_eval": ("linear_eval.py", "--config.total_epochs=3"),
    "transfer": ("transfer.py",),
    "embed": ("embed.py",),
    "export": ("export.py",),
}


def start(arguments, workdir):
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=workdir,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until_heard(process):
    """Returns when Python has come to the program's first line."""
    while process.poll() is None:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        if caught >> (signal.SIGUSR1 - 1) & 1:
            return
        time.sleep(0.002)


def end(process, number, seconds):
    time.sleep(seconds)
    if process.poll() is None:
        os.killpg(process.pid, number)
    text, _ = process.communicate(timeout=60)
    for word in ("Traceback", "Fatal", "Exception ignored", "leaked"):
        assert word not in text, text
    is_done = process.returncode == 2 and text.startswith("Usage")  # it had nothing to do
    assert is_done or process.returncode in (0, 128 + number), text
    return process.returncode, text


@pytest.mark.parametrize("module", ["main_loop", "inspect"])
def test_ctrl_c_during_imports(module, tmp_path):
    for seconds in (0, 0.3, 1):
        process = start([f"byol_jax.{module}"], tmp_path)
        wait_until_heard(process)
        if process.poll() is not None:  # it was quicker than this test: it has nothing to do
            assert "Usage" in process.communicate()[0]
            continue
        status, text = end(process, signal.SIGINT, seconds)
        assert status == 0 or any(word in text for word in ("Interrupted", "Error", "Usage")), text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", TASKS)
def test_a_task_may_be_interrupted_at_any_moment(task, run_folder, tmp_path):
    config, *options = TASKS[task]
    arguments = ["byol_jax.main_loop", f"--config={ROOT}/configs/{config}", *options]
    arguments += [f"--config.checkpoint={run_folder}", f"--workdir={tmp_path}/work"]
    for seconds, number in ((0.3, signal.SIGINT), (1.5, signal.SIGTERM)):
        process = start(arguments, tmp_path)
        os.read(process.stdout.fileno(), 1)  # a progress bar, or what an export has written
        status, text = end(process, number, seconds)
        assert status == 0 or "the same command" in text or text == "\nInterrupted.\n", text


def test_a_run_is_saved_when_its_terminal_is_closed(tmp_path):
    """The terminal is gone, and so is every stream; the shell and the system each say so."""
    controller, terminal = os.openpty()
    small = "batch_size=8 total_steps=5000 log_every_steps=1 checkpoint_every_steps=1000"
    small += (
        " data.image_size=16 probe.max_images=20 gallery.max_images=0 model.encoder=tiny_resnet"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "byol_jax.main_loop", f"--config={ROOT}/configs/byol.py"]
        + [f"--config.{option}" for option in small.split()]
        + [f"--workdir={tmp_path}/run"],
        # One device: four fake ones that wait for each other on a busy machine can take minutes.
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and '"step": 3,' in metrics.read_text()):
        assert process.poll() is None
        os.read(controller, 4096)
    os.close(controller)
    os.killpg(process.pid, signal.SIGHUP)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=180) == 0
    assert any(path.name.isdigit() for path in (tmp_path / "run" / "checkpoints").iterdir())


def slow_probes(first=2):
    """Makes probes from this one on take their time."""
    measure = online_eval.Probe.measure
    calls = []

    def slow(self, *arguments, **options):
        calls.append(1)
        if len(calls) >= first:
            print("PROBING", file=sys.stderr, flush=True)
            time.sleep(30)
        return measure(self, *arguments, **options)

    online_eval.Probe.measure = slow


def test_a_probe_is_left_and_made_by_the_command_that_resumes(tmp_path):
    """The state of its step is saved, and in the end nothing tells the run from a calm one."""
    plan = {"total_steps": 9, "probe__every_steps": 5, "checkpoint_every_steps": 100}
    run_process.finish(tmp_path / "calm", **plan)
    life = run_process.RunProcess(tmp_path / "run", before=slow_probes, **plan)
    life.wait_for_text("PROBING")
    life.signal(signal.SIGINT)
    assert life.finish(seconds=20) == [0], life.text()
    assert run_process.steps(tmp_path / "run") == [5] and "Leaving the probe" in life.text()
    run_process.finish(tmp_path / "run", **plan)
    assert run_process.metrics(tmp_path / "run") == run_process.metrics(tmp_path / "calm")


def test_before_the_first_step_there_is_nothing_to_save_and_nobody_says_so(tmp_path):
    life = run_process.RunProcess(tmp_path / "run", before=functools.partial(slow_probes, first=1))
    life.wait_for_text("PROBING")
    life.signal(signal.SIGTERM)
    assert life.finish(seconds=20) == [128 + signal.SIGTERM], life.text()
    assert "saved" not in life.text() and not run_process.steps(tmp_path / "run")


ENDS = {
    "memory": (MemoryError(), "Error: Out of memory. Its checkpoints, if"),
    "system": (OSError(5, "Input/output error", "/data/x.jpg"), "Error: .*'/data/x.jpg'. Its"),
    "fault": (ZeroDivisionError("by zero"), "Error: A fault of this program, ZeroDivisionError."),
}


def fail(case):
    def run(config, workdir, **options):
        raise ENDS[case][0]

    main_loop.load_task = lambda name: run


@pytest.mark.parametrize("case", ENDS)
def test_an_error_that_nobody_expected_ends_in_a_line(case, tmp_path):
    """A fault of the program has its trace before it; nothing else has one."""
    life = run_process.RunProcess(tmp_path / "run", before=functools.partial(fail, case))
    assert life.finish() == [1]
    assert re.match(ENDS[case][1], life.text().splitlines()[-1]), life.text()
    assert ("Traceback" in life.text()) == (case == "fault")
