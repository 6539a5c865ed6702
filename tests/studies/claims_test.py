"""One process alone does a run, and a dead one keeps nobody waiting."""

import errno
import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from byol_jax.studies import claims


def test_a_claim_keeps_others_out_until_it_is_given_back(tmp_path):
    path = tmp_path / "claims" / "run"
    claim = claims.take(path)
    with pytest.raises(claims.Taken, match=f"being run by process {os.getpid()} on ") as taken:
        claims.take(path)
    assert not taken.value.is_silent
    claim.release()
    claims.take(path).release()
    assert list(path.parent.iterdir()) == []


def _take_many(folder, begin, won):
    begin.wait()
    for number in range(20):
        try:
            claims.take(folder / str(number))
            won.put(number)
        except claims.Taken:
            pass
    time.sleep(0.5)  # claims end with the process


def test_of_several_processes_one_alone_gets_each_run(tmp_path):
    context = multiprocessing.get_context("spawn")
    begin, won = context.Event(), context.Queue()
    processes = [context.Process(target=_take_many, args=(tmp_path, begin, won)) for _ in range(4)]
    for process in processes:
        process.start()
    begin.set()
    numbers = sorted(won.get(timeout=60) for _ in range(20))
    for process in processes:
        process.join()
    assert numbers == list(range(20)) and won.empty()


def test_a_claim_lasts_as_long_as_the_run_that_inherited_it(tmp_path):
    path = tmp_path / "run"
    claim = claims.take(path)
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(claim.descriptor,),
    )
    run.stdout.readline()
    os.close(claim.descriptor)  # as if the study had been killed
    with pytest.raises(claims.Taken, match="being run by"):
        claims.take(path)
    run.communicate()
    claims.take(path).release()


def test_a_claim_of_another_machine_counts_until_it_is_silent_and_then_is_explained(tmp_path):
    path = tmp_path / "run"
    path.write_text("process 7 on elsewhere\n")
    with pytest.raises(claims.Taken, match="being run by process 7 on elsewhere"):
        claims.take(path)
    before = time.time() - 2 * claims.SILENT_SECONDS
    os.utime(path, (before, before))
    with pytest.raises(claims.Taken, match=f"20 minutes: .*remove {path} and rerun") as taken:
        claims.take(path)
    assert taken.value.is_silent and path.read_text() == "process 7 on elsewhere\n"


def test_a_claim_shows_that_its_holder_lives(tmp_path, monkeypatch):
    path = tmp_path / "run"
    claim = claims.take(path)
    os.utime(path, (0, 0))
    claim.beat()
    assert path.stat().st_mtime == 0
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0)
    claim.beat()
    assert path.stat().st_mtime > 0
    claim.release()


def test_without_locks_signs_of_life_decide(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claims.fcntl, "flock", no_locks)
    path = tmp_path / "run"
    claim = claims.take(path)
    with pytest.raises(claims.Taken, match="being run by"):
        claims.take(path)
    os.utime(path, (0, 0))
    with pytest.raises(claims.Taken, match="if that machine is dead, remove"):
        claims.take(path)
    claim.release()
