"""Two processes of which one differs, fails or stands still: the other one ends, and names it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support import run_process

pytestmark = pytest.mark.slow


def assert_one_line_names(life, survivor, text):
    """The last line of the survivor, and no dump of C++ above it."""
    lines = life.text(survivor).strip().splitlines()
    assert lines[-1].startswith("Error: ") and text in lines[-1], life.text(survivor)
    assert "Traceback" not in life.text(survivor) and "    @ " not in life.text(survivor)


def fail_at_step_six():
    """Lets one process meet an error that nobody has thought of."""
    import jax

    from byol_jax.training import loop

    flush = loop._flush

    def spoiled(pending, *rest):
        if pending and pending[0] == 6 and jax.process_index() == int(os.environ["FAILING"]):
            raise ValueError("an error at step six")
        return flush(pending, *rest)

    loop._flush = spoiled


def fail_on_first():
    os.environ["FAILING"] = "0"
    fail_at_step_six()


def fail_on_second():
    os.environ["FAILING"] = "1"
    fail_at_step_six()


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_on_one_process_ends_the_other_in_a_line(failing, tmp_path):
    before = (fail_on_first, fail_on_second)[failing]
    life = run_process.RunProcess(tmp_path / "run", (2, 1), before=before)
    life.wait_for_step(4)
    start = time.monotonic()
    assert life.finish(60) == [1, 1], life.text()
    assert time.monotonic() - start < 30
    assert "Traceback" in life.text(failing)
    last = life.text(failing).strip().splitlines()[-1]
    assert last.startswith("Error: A fault of this program, ValueError: an error at step six. ")
    assert_one_line_names(life, 1 - failing, f"Process {failing} on ")
    assert "ValueError: an error at step six" in life.text(1 - failing)


def test_different_configs_are_refused_before_anything_is_written(tmp_path):
    own = {1: ["--config.total_steps=61", "--config.seed=1"]}
    life = run_process.RunProcess(tmp_path / "run", (2, 1), own=own)
    assert life.finish(60) == [2, 2], life.text()
    for process in (0, 1):
        assert "--config.seed is 1 there and 0 on process 0" in life.text(process)
        assert "--config.total_steps is 61 there and 60 on process 0" in life.text(process)
        assert "Traceback" not in life.text(process)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("still", [0, 1])
def test_a_process_that_stands_still_too_long_ends_the_other_in_a_line(still, tmp_path):
    limit = ["--silent_seconds=10"]
    life = run_process.RunProcess(
        tmp_path / "run", (2, 1), own={0: limit, 1: limit}, total_steps=100_000
    )
    life.wait_for_step(4)
    life.signal(signal.SIGSTOP, still)
    life.processes[1 - still].join(45)
    assert life.processes[1 - still].exitcode == 1, life.text(1 - still)
    assert_one_line_names(life, 1 - still, f"Process {still} on ")
    assert "taken for dead" in life.text(1 - still)
    life.kill()


@pytest.mark.parametrize("alone, reason", [(0, "not all of them"), (1, "process 0 is not running")])
def test_a_process_whose_others_are_never_started_ends_in_a_line(alone, reason):
    code = (
        "from byol_jax.distributed import cluster\n"
        "cluster.JOIN_SECONDS = 3\n"
        f"cluster.initialize('localhost:{run_process._free_port()}', 2, {alone})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: The 2 processes of this run did not meet") and reason in last
    assert "    @ " not in done.stderr
