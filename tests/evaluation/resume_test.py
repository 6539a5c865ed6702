"""Evaluations that are stopped, or killed, and go on with the same command."""

import functools
import json
import os
import signal
import time

import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.distributed import pmap
from byol_jax.evaluation import resume
from byol_jax.tasks import linear_eval, semi_supervised
from tests.tasks import linear_eval_test, semi_supervised_test

pytestmark = pytest.mark.slow  # they evaluate a run

TASKS = {
    "linear_eval": (
        linear_eval,
        functools.partial(linear_eval_test.make_config, features="augmented"),
    ),
    "semi_supervised": (semi_supervised, semi_supervised_test.make_config),
}


class Killed(BaseException):
    """What ends a process, as far as a test can let it."""


@pytest.fixture
def steps(monkeypatch):
    """Counts the steps of training; does something at one of them."""
    taken, actions = [], {}
    pmap_update = pmap.pmap_update

    def counting(update):
        run = pmap_update(update)

        def one(state, batch):
            taken.append(len(taken) + 1)
            actions.get(len(taken), lambda: None)()
            return run(state, batch)

        return one

    monkeypatch.setattr(pmap, "pmap_update", counting)
    return taken, actions


def measure(task, run_folder, workdir):
    module, make_config = TASKS[task]
    module.run(make_config(run_folder), workdir)
    result = json.loads((workdir / "result.json").read_text())
    return {key: value for key, value in result.items() if key not in ("seconds", "versions")}


def interrupt():
    os.kill(os.getpid(), signal.SIGTERM)


def kill():
    raise Killed


STOPS = {interrupt: (2, -1), kill: (-8,)}  # at which step; negative ones count from the end


@pytest.mark.parametrize("action", STOPS)
@pytest.mark.parametrize("task", TASKS)
def test_a_stopped_evaluation_goes_on_to_the_same_result(
    task, action, steps, run_folder, tmp_path, monkeypatch, capfd
):
    taken, actions = steps
    monkeypatch.setattr(resume, "SAVE_SECONDS", 0.0)  # after every step
    whole = measure(task, run_folder, tmp_path / "whole")
    total = len(taken)
    for stop in STOPS[action]:
        stop = stop % total
        taken.clear()
        actions.clear()
        actions[stop] = action
        workdir = tmp_path / f"{action.__name__}{stop}"
        with pytest.raises((resume.Stopped, Killed)):
            measure(task, run_folder, workdir)
        assert not (workdir / "result.json").exists()
        before = len(taken) - (action is kill)
        actions.clear()
        taken.clear()
        assert measure(task, run_folder, workdir) == whole
        # The best network of a sweep is not stored, so may have to be trained once more.
        assert len(taken) <= total - before + run_again(task, whole)
        assert not (workdir / "unfinished").exists()
    assert "Resuming" in capfd.readouterr().err


def run_again(task, result):
    return 0 if task == "linear_eval" else result["steps"]


def test_what_another_config_left_is_of_no_use_and_is_left_alone(run_folder, steps, tmp_path):
    _, actions = steps
    actions[2] = interrupt
    with pytest.raises(resume.Stopped):
        measure("linear_eval", run_folder, tmp_path / "run")
    module, make_config = TASKS["linear_eval"]
    module.run(make_config(run_folder, seed=1), tmp_path / "run")
    module.run(make_config(run_folder, seed=1), tmp_path / "other")
    results = [json.loads((tmp_path / n / "result.json").read_text()) for n in ("run", "other")]
    assert results[0]["table"] == results[1]["table"]
    (left,) = (tmp_path / "run" / "unfinished").iterdir()
    assert (left / "state.npz").exists() and not (tmp_path / "other" / "unfinished").exists()


def test_what_cannot_be_read_at_the_moment_is_not_replaced(tmp_path):
    work = resume.Unfinished(tmp_path, "identity")
    (tmp_path / "state.npz").symlink_to("state.npz")
    with pytest.raises(UsageError, match="Cannot read .*state.npz: Too many levels"):
        work._restore("part", {"x": np.zeros(3)}, Batches())
    (tmp_path / "results.json").symlink_to("results.json")
    with pytest.raises(UsageError, match="Cannot read .*results.json: Too many levels"):
        resume.Unfinished(tmp_path, "identity")


def test_damaged_results_are_said_to_be_left_out(tmp_path, capfd):
    (tmp_path / "results.json").write_text("{")
    assert resume.Unfinished(tmp_path, "identity").remember("part", lambda: 3) == 3
    assert "results.json is damaged and left out" in capfd.readouterr().err


def test_the_work_of_other_settings_is_not_replaced(tmp_path):
    """An evaluation that was stopped goes on after another one has used its folder."""
    first, second = {"seed": 0}, {"seed": 1}
    with pytest.raises(Killed), resume.opened(tmp_path, first, "sha") as work:
        work.remember("part", lambda: 1)
        raise Killed
    with resume.opened(tmp_path, second, "sha") as work:
        assert work.remember("part", lambda: 2) == 2
    with resume.opened(tmp_path, first, "sha") as work:
        assert work.remember("part", lambda: pytest.fail("made again")) == 1
    assert not (tmp_path / "unfinished").exists()


def test_a_damaged_state_is_named_and_left_out(tmp_path, capfd):
    work = resume.Unfinished(tmp_path, "identity")
    batches = Batches()
    work._save("part", {"x": np.arange(3.0)}, 7, batches)
    state, step = work._restore("part", {"x": np.zeros(3)}, batches)
    assert step == 7 and batches.state == {"at": 7}
    np.testing.assert_array_equal(state["x"], np.arange(3.0))
    assert work._restore("other part", {"x": np.zeros(3)}, batches)[1] == 0
    data = bytearray((tmp_path / "state.npz").read_bytes())
    for place in range(0, len(data), 40):
        damaged = data.copy()
        damaged[place] ^= 255
        (tmp_path / "state.npz").write_bytes(damaged)
        state, step = work._restore("part", {"x": np.zeros(3)}, batches)
        assert step == 0 or np.array_equal(state["x"], np.arange(3.0))
    (tmp_path / "state.npz").write_bytes(data[:-30])
    assert work._restore("part", {"x": np.zeros(3)}, batches)[1] == 0
    assert "is damaged" in capfd.readouterr().err


class Batches:
    def get_state(self):
        return {"at": 7}

    def set_state(self, state):
        self.state = state


def start_two(workdir, run_folder):
    """The program in two processes, and the file to which they write what they say."""
    log = workdir.with_suffix(".log")
    with log.open("w") as file:
        options = {"devices": 1, "processes": 2, "stdout": file, "stderr": file}
        return linear_eval_test.start(workdir, run_folder, **options), log


def test_two_processes_stop_together_and_go_on_to_the_same_result(run_folder, tmp_path):
    processes, log = start_two(tmp_path / "stopped", run_folder)
    while "sweep" not in log.read_text():
        assert all(process.poll() is None for process in processes), log.read_text()
        time.sleep(0.1)
    processes[1].terminate()  # one of them, while the step is compiled
    assert [process.wait(120) for process in processes] == [0, 0], log.read_text()
    assert "Stopped 'sweep'" in log.read_text()
    for name in ("stopped", "whole"):
        processes, log = start_two(tmp_path / name, run_folder)
        assert [process.wait(120) for process in processes] == [0, 0], log.read_text()
        assert ("Resuming 'sweep of seed 0'" in log.read_text()) == (name == "stopped")
    results = [
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("stopped", "whole")
    ]
    for key in ("accuracy", "table", "selected"):
        assert results[0][key] == results[1][key]
