"""Runs side by side, their failures, and interruptions; they only pretend to train."""

import os
import signal
import threading
import time

import pytest

from byol_jax.studies import children, claims, grid, progress, results, runner
from tests.studies import small


def run(config, workdir, show=lambda states: None):
    """All runs of a study; gives its runner's folder."""
    folder = runner.Folder(workdir)
    runner.Runner(config, grid.make_runs(config), folder, show).run()
    return folder


def study_of(jobs=2, **changes):
    config = small.make(**changes)
    config.jobs = jobs
    return config


def test_every_run_is_done_once_and_then_skipped(tmp_path, monkeypatch):
    small.pretend(monkeypatch)
    seen = []
    folder = run(study_of(), tmp_path, lambda states: seen.append(dict(states)))
    runs = grid.make_runs(study_of())
    assert all(results.is_finished(folder.run(one)) for one in runs)
    assert max(sum(s.kind == progress.RUNNING for s in now.values()) for now in seen) == 2
    assert list(folder.claim(runs[0]).parent.iterdir()) == []
    monkeypatch.setattr(children, "Child", None)  # which nobody needs any more
    run(study_of(), tmp_path)


def test_a_run_that_fails_is_named_with_what_it_said_and_the_others_are_done(tmp_path, monkeypatch):
    small.pretend(monkeypatch, "if tau == 1: sys.exit('Error: no more numbers.')")
    with pytest.raises(runner.RunsFailedError) as caught:
        run(study_of(seeds=1), tmp_path)
    text = str(caught.value)
    assert "1 of 2 runs have no result:\n  1.0-seed0: no more numbers. (status 1; " in text
    assert results.is_finished(tmp_path / "runs" / "0.5-seed0")


def test_a_run_that_was_stopped_has_no_result(tmp_path, monkeypatch):
    small.pretend(monkeypatch, "print('Stopped after step 2.'); sys.exit(0)")
    with pytest.raises(runner.RunsFailedError, match="Stopped after step 2. .status 0"):
        run(study_of(seeds=1), tmp_path)


WAIT = """
import signal
def end(*_):
    (workdir / "saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
(workdir / "ready").touch()
time.sleep(60)
"""


def test_an_interruption_has_the_runs_save_and_gives_their_claims_back(tmp_path, monkeypatch):
    small.pretend(monkeypatch, WAIT)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.01)

    def interrupt():
        while len(list(tmp_path.glob("runs/*/ready"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(runner.Interrupted):
        run(study_of(seeds=1), tmp_path)
    thread.join()
    assert len(list(tmp_path.glob("runs/*/saved"))) == 2
    assert list((tmp_path / "claims").iterdir()) == []


def test_runs_of_another_process_are_waited_for(tmp_path, monkeypatch):
    small.pretend(monkeypatch)
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.02)
    config = study_of(seeds=1)
    folder, (other, _) = runner.Folder(tmp_path), grid.make_runs(config)
    claim = claims.take(folder.claim(other))

    def show(states):
        if states[other.name].kind == progress.ELSEWHERE:
            claim.release()

    run(config, tmp_path, show)
    assert results.is_finished(folder.run(other))


def test_a_claim_of_a_machine_that_may_be_dead_is_explained(tmp_path, monkeypatch):
    small.pretend(monkeypatch)
    config = study_of(seeds=1)
    folder, (other, mine) = runner.Folder(tmp_path), grid.make_runs(config)
    path = folder.claim(other)
    path.parent.mkdir()
    path.write_text("process 7 on elsewhere\n")
    os.utime(path, (0, 0))
    with pytest.raises(runner.RunsFailedError, match=f"1.0-seed0: claimed by .* remove {path}"):
        run(config, tmp_path)
    assert results.is_finished(folder.run(mine))


def test_runs_share_what_is_compiled_and_keep_what_the_person_set(tmp_path):
    options = {"gpus": [], "slot": 0, "jobs": 4, "cores": 1, "cache": tmp_path}
    plain = children.environment({}, **options)
    assert plain["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)
    assert plain["OMP_NUM_THREADS"] == "1" and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in plain
    assert children.environment({"OMP_NUM_THREADS": "3"}, **options)["OMP_NUM_THREADS"] == "3"


def test_runs_share_a_gpu_and_take_turns_on_several(tmp_path):
    options = {"cores": 0, "cache": tmp_path}
    one = children.environment({}, gpus=["0"], slot=3, jobs=4, **options)
    assert one["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.225"
    assert "CUDA_VISIBLE_DEVICES" not in one and "OMP_NUM_THREADS" not in one
    two = children.environment(
        {"CUDA_VISIBLE_DEVICES": "5,7"}, gpus=["5", "7"], slot=3, jobs=4, **options
    )
    assert two["CUDA_VISIBLE_DEVICES"] == "7" and two["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.450"
    alone = children.environment({}, gpus=["0", "1"], slot=0, jobs=1, **options)
    assert "CUDA_VISIBLE_DEVICES" not in alone  # which has all of them


def test_gpus_are_found_without_starting_jax(tmp_path):
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "null"):
        (tmp_path / name).touch()
    assert children.gpus({}, tmp_path) == ["0", "2", "10"]
    assert children.gpus({"CUDA_VISIBLE_DEVICES": "1,3"}, tmp_path) == ["1", "3"]
    assert children.gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    assert children.gpus({"JAX_PLATFORMS": "cpu"}, tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not tell")
def test_each_run_has_processors_of_its_own(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 4, 6, 8})
    assert [children.processors_of(slot, 2) for slot in range(3)] == [{2, 4}, {6, 8}, {2, 4}]
    assert children.processors_of(0, 0) is None


def test_a_run_keeps_its_claim_when_the_study_is_killed(tmp_path):
    claim = claims.take(tmp_path / "claim")
    child = children.Child(
        ["python", "-c", "import time; time.sleep(60)"],
        tmp_path / "log.txt",
        env=os.environ,
        processors=None,
        descriptor=claim.descriptor,
    )
    os.close(claim.descriptor)
    with pytest.raises(claims.Taken):
        claims.take(tmp_path / "claim")
    child.kill()
    claims.take(tmp_path / "claim").release()
