"""Interruptions and damage of all kinds, to one process and to several.

What is compared with an uninterrupted run is compared bit for bit.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from byol_jax.checkpoints import manager
from byol_jax.host import signals
from byol_jax.training import build, method_settings
from tests.support import run_process, systems

pytestmark = pytest.mark.slow


def final_state(workdir):
    template = build.build(run_process.small_config()).state
    restored = manager.restore_newest(workdir, template, warn=pytest.fail)
    assert restored.step == 60
    return restored.state


def assert_same_run(workdir, other):
    jax.tree.map(np.testing.assert_array_equal, final_state(workdir), final_state(other))
    assert run_process.metrics(workdir) == run_process.metrics(other)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Workdirs of runs that were left alone, by their number of processes."""
    made = {}

    def run(processes):
        if processes not in made:
            workdir = tmp_path_factory.mktemp(f"uninterrupted{processes}") / "run"
            run_process.finish(workdir, (processes, 1))
            made[processes] = workdir
        return made[processes]

    return run


@pytest.fixture
def copy(uninterrupted, tmp_path):
    """A finished run of one process, to be damaged."""
    shutil.copytree(uninterrupted(1), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_twenty_random_moments_a_run_ends_bit_identical(
    processes, uninterrupted, tmp_path
):
    """Within steps and saves, and some while a process still starts."""
    rng = np.random.default_rng(processes)
    workdir = tmp_path / "run"
    for number, step in enumerate(np.sort(rng.choice(np.arange(1, 58), 20, replace=False))):
        life = run_process.RunProcess(workdir, (processes, 1))
        if number % 5 == 4:
            time.sleep(rng.uniform(0, 2))
        else:
            life.wait_for_step(step)
            time.sleep(rng.uniform(0, 0.02))
        life.kill()
    assert "Resuming from" in run_process.finish(workdir, (processes, 1))
    assert_same_run(workdir, uninterrupted(processes))


def test_killed_twice_a_run_with_a_queue_ends_bit_identical(tmp_path):
    """What an objective keeps between steps is in every checkpoint."""
    keys = {"objective.name": "moco_v2", "objective.moco_v2.queue_size": 32, "total_steps": 24}
    keys |= {"model.predictor_hidden_size": None}  # it has none
    run_process.finish(tmp_path / "straight", **keys)
    for step in (5, 14):
        life = run_process.RunProcess(tmp_path / "run", **keys)
        life.wait_for_step(step)
        life.kill()
    assert "Resuming from" in run_process.finish(tmp_path / "run", **keys)
    config = run_process.small_config(**keys)
    config = method_settings.published(config, run_process.options_with(keys)).config
    template = build.build(config).state
    states = [
        manager.restore_newest(tmp_path / name, template, warn=pytest.fail).state
        for name in ("straight", "run")
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)
    keys_of_queue, pointer = states[0].objective_state
    assert keys_of_queue.shape == (8, 32) and pointer == 24 * 8 % 32
    assert run_process.metrics(tmp_path / "run") == run_process.metrics(tmp_path / "straight")


def test_two_processes_told_to_stop_at_different_times_stop_after_the_same_step(
    uninterrupted, tmp_path
):
    life = run_process.RunProcess(tmp_path / "run", (2, 1))
    life.wait_for_step(7)
    life.signal(signal.SIGTERM, 1)
    time.sleep(0.01)
    if life.processes[0].is_alive():
        life.signal(signal.SIGTERM, 0)
    assert life.finish() == [0, 0], life.text()
    stopped = run_process.steps(tmp_path / "run")[-1]
    assert (
        f"Stopped after step {stopped} and saved. Rerun the same command to resume" in life.text()
    )
    assert run_process.metrics(tmp_path / "run")[-1]["step"] == stopped < 60
    run_process.finish(tmp_path / "run", (2, 1))
    assert_same_run(tmp_path / "run", uninterrupted(2))


def test_a_run_killed_before_its_first_checkpoint_begins_again_and_says_so(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    life = run_process.RunProcess(workdir, checkpoint_every_steps=30)
    life.wait_for_step(5)
    life.kill()
    before = (workdir / "metrics.jsonl").read_bytes()
    assert f"is now in {workdir / 'earlier-1'}" in run_process.finish(
        workdir, checkpoint_every_steps=30
    )
    assert (workdir / "earlier-1" / "metrics.jsonl").read_bytes() == before
    assert_same_run(workdir, uninterrupted(1))


def test_told_to_stop_before_the_first_step_nothing_is_said_to_be_saved(uninterrupted, tmp_path):
    life = run_process.RunProcess(tmp_path / "run")
    life.wait_for_text("Compiling the training step")
    life.signal(signal.SIGTERM)
    assert life.finish() == [128 + signal.SIGTERM], life.text()
    assert "Stopped before a step" in life.text()
    assert "saved" not in life.text() and run_process.steps(tmp_path / "run") == []
    run_process.finish(tmp_path / "run")
    assert_same_run(tmp_path / "run", uninterrupted(1))


def test_told_to_stop_before_a_new_step_the_old_checkpoint_is_named(copy):
    shutil.rmtree(copy / "checkpoints" / "60")
    life = run_process.RunProcess(copy)
    life.wait_for_text("Compiling the training step")
    life.signal(signal.SIGTERM)
    assert life.finish() == [0], life.text()
    assert "Stopped before a new step; the checkpoint of step 57 is there." in life.text()


@systems.NEEDS_PROC
@pytest.mark.parametrize("processes", [1, 2])
def test_a_workdir_that_is_renamed_meanwhile_ends_the_run_with_all_in_one_place(
    processes, uninterrupted, tmp_path
):
    old, new = tmp_path / "run", tmp_path / "kept"
    life = run_process.RunProcess(old, (processes, 1), checkpoint_every_steps=30)
    life.wait_for_step(5)
    old.rename(new)
    assert life.finish() == [1] * processes, life.text()
    (step,) = run_process.steps(new)
    assert f"The workdir {old} was renamed to {new}" in life.text() and not old.exists()
    assert f"Last checkpoint: {new / 'checkpoints' / str(step)}" in life.text()
    assert f"Rerun the command with --workdir={new} to resume" in life.text()
    assert run_process.metrics(new)[-1]["step"] == step < 30
    run_process.finish(new, (processes, 1))
    assert_same_run(new, uninterrupted(processes))


def test_a_workdir_that_is_removed_meanwhile_ends_the_run(tmp_path):
    life = run_process.RunProcess(tmp_path / "run", checkpoint_every_steps=30)
    life.wait_for_step(5)
    shutil.rmtree(tmp_path / "run")
    assert life.finish() == [1], life.text()
    assert f"The workdir {tmp_path / 'run'} was removed" in life.text()
    assert not (tmp_path / "run").exists()


def slow_saves():
    """Makes Orbax take its time between the first checkpoint's last file and its final name."""
    from orbax.checkpoint._src.path import atomicity

    finalize = atomicity.AtomicRenameTemporaryPath.finalize
    calls = []

    async def slow(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            print("SAVING", file=sys.stderr, flush=True)
            time.sleep(1)
        result = finalize(self, *arguments, **options)
        return await result if hasattr(result, "__await__") else result

    atomicity.AtomicRenameTemporaryPath.finalize = slow


def test_a_signal_during_a_save_lets_it_end(uninterrupted, tmp_path):
    life = run_process.RunProcess(tmp_path / "run", before=slow_saves)
    life.wait_for_text("SAVING")
    life.signal(signal.SIGTERM)
    assert life.finish() == [0], life.text()
    assert run_process.steps(tmp_path / "run")[0] == 3
    run_process.finish(tmp_path / "run")
    assert_same_run(tmp_path / "run", uninterrupted(1))


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    life = run_process.RunProcess(tmp_path / "run", before=slow_saves)
    life.wait_for_text("SAVING")
    life.signal(signal.SIGINT)
    life.wait_for_text("Again to stop at once")
    time.sleep(signals.SAME_SECONDS)
    life.signal(signal.SIGINT)
    assert life.finish(seconds=1) == [130], life.text()
    assert signals.AT_ONCE in life.text()


@pytest.mark.parametrize("killed", [0, 1])
def test_if_one_of_two_processes_is_killed_the_other_stops(killed, tmp_path):
    life = run_process.RunProcess(tmp_path / "run", (2, 1), total_steps=100_000)
    life.wait_for_step(4)
    life.signal(signal.SIGKILL, killed)
    statuses = life.finish(seconds=120)
    assert statuses[killed] == run_process.KILLED and statuses[1 - killed] not in (0, None)
    assert f"Process {killed} on" in life.text(1 - killed), life.text(1 - killed)


def test_any_topology_goes_on_from_a_checkpoint_of_any_other(uninterrupted, tmp_path):
    """Losses are those of one device, to rounding; each example is seen once, by whoever."""
    for topology, steps in (((2, 2), 20), ((1, 4), 40), ((1, 1), 60)):
        life = run_process.RunProcess(tmp_path / "run", topology)
        if steps < 60:
            life.wait_for_step(steps)
            life.signal(signal.SIGTERM)
        assert life.finish() == [0] * topology[0], life.text()
    expected, found = (
        [row["train/loss"] for row in run_process.metrics(workdir) if "train/loss" in row]
        for workdir in (uninterrupted(1), tmp_path / "run")
    )
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def numbers(folder):
    """The files with numbers of the state; in so small a run, lists of names may be larger."""
    return [p for p in (folder / "state").rglob("d/*") if p.is_file()]


def largest(folder):
    return max(numbers(folder), key=lambda p: p.stat().st_size)


def flip_bytes(folder):
    """One byte of each file of numbers, since those of a single one may not be in use."""
    for path in numbers(folder):
        flip_byte(path)


DAMAGE = {
    "truncated": lambda folder: largest(folder).write_bytes(largest(folder).read_bytes()[:50]),
    "a file deleted": lambda folder: largest(folder).unlink(),
    "a byte flipped": flip_bytes,
    "empty": lambda folder: shutil.rmtree(folder / "state"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(kind, copy):
    template = build.build(run_process.small_config()).state
    DAMAGE[kind](copy / "checkpoints" / "60")
    warnings = []
    restored = manager.restore_newest(copy, template, warn=warnings.append)
    assert restored.step == 57 and restored.iterator["images"] == 57 * 8
    (warning,) = warnings
    assert "skipped the damaged checkpoint" in warning and "checkpoints/60 " in warning
    assert (copy / "checkpoints" / "60.damaged").exists()


def test_a_flipped_byte_anywhere_is_found_or_does_no_harm(copy):
    template = build.build(run_process.small_config()).state
    whole = manager.restore_newest(copy, template, warn=pytest.fail)
    folder = copy / "checkpoints" / "60"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        before = path.read_bytes()
        flip_byte(path)
        restored = manager.restore_newest(copy, template, warn=lambda _: None)
        if restored.step == 60:
            jax.tree.map(np.testing.assert_array_equal, restored.state, whole.state)
            assert restored.iterator == whole.iterator
        else:
            folder.with_name("60.damaged").rename(folder)
        path.write_bytes(before)


def test_a_run_goes_on_from_the_one_before_a_damaged_checkpoint(copy, uninterrupted):
    DAMAGE["a byte flipped"](copy / "checkpoints" / "60")
    assert "skipped the damaged checkpoint" in run_process.finish(copy)
    assert_same_run(copy, uninterrupted(1))


def test_without_any_sound_checkpoint_nothing_is_started_again(copy):
    for step in run_process.steps(copy):
        DAMAGE["a byte flipped"](copy / "checkpoints" / str(step))
    before = (copy / "metrics.jsonl").read_bytes()
    life = run_process.RunProcess(copy)
    assert life.finish() == [2] and "None of the checkpoints" in life.text(), life.text()
    assert (copy / "metrics.jsonl").read_bytes() == before
    assert run_process.steps(copy) == [54, 57, 60]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes more rights")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path, *, room):
    """Writes a file until so many bytes are left on its disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, max(path.stat().st_size - room, 0))


@pytest.mark.parametrize("room", [0, 100_000])
def test_a_full_disk_is_named_and_what_was_saved_stays(room, small_disk, copy, uninterrupted):
    """Full at the start, or in the middle of a save."""
    shutil.rmtree(copy / "checkpoints" / "60")
    shutil.move(copy, small_disk / "run")
    copy.symlink_to(small_disk / "run")
    good = {p: p.read_bytes() for p in (copy / "checkpoints").rglob("*") if p.is_file()}
    fill(small_disk / "stuffing", room=room)
    life = run_process.RunProcess(copy)
    assert life.finish() == [1], life.text()
    last = life.text().splitlines()[-1]
    assert last.startswith("Error: Cannot write") and "No space left" in last, life.text()
    assert "Traceback" not in life.text(), life.text()
    assert {p: p.read_bytes() for p in good} == good
    (small_disk / "stuffing").unlink()
    run_process.finish(copy)
    assert_same_run(copy, uninterrupted(1))


def test_a_full_disk_under_what_only_shows_a_run_stops_nothing(small_disk, tmp_path):
    """TensorBoard's files, the pictures and the log: each without room from the start."""
    run, link = tmp_path / "run", small_disk / "run"  # whose log is beside it
    run.mkdir()
    link.symlink_to(run)
    for name in ("tensorboard", "gallery"):
        (small_disk / name).mkdir()
        (run / name).symlink_to(small_disk / name)
    fill(small_disk / "stuffing", room=0)
    life = run_process.RunProcess(link, total_steps=6, gallery__max_images=20)
    assert life.finish() == [0] and life.text() == ""
    assert run_process.steps(run)[-1] == 6 and run_process.metrics(run)[-1]["step"] == 6
    assert not list((run / "gallery").iterdir())


def test_a_second_run_in_one_workdir_is_refused(tmp_path, uninterrupted):
    first = run_process.RunProcess(tmp_path / "run")
    first.wait_for_step(2)
    first.signal(signal.SIGSTOP)
    shutil.move(tmp_path / "run-0.log", tmp_path / "first.log")
    second = run_process.RunProcess(tmp_path / "run")
    assert second.finish() == [2], second.text()
    assert "Another run is using the workdir" in second.text()
    assert str(first.processes[0].pid) in second.text()
    first.signal(signal.SIGCONT)
    assert first.finish() == [0]
    assert_same_run(tmp_path / "run", uninterrupted(1))


def spoil_loss():
    """Makes the loss, and so the gradients, no numbers."""
    from byol_jax.objectives import table as objectives

    byol = objectives.OBJECTIVES["byol"]

    def evaluate(inputs, settings):
        result = byol.evaluate(inputs, settings)
        return result._replace(loss=result.loss * float("nan"))

    objectives.OBJECTIVES["byol"] = byol._replace(evaluate=evaluate)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_number_that_is_none_stops_all_with_advice(processes, copy):
    shutil.rmtree(copy / "checkpoints" / "60")
    life = run_process.RunProcess(copy, (processes, 1), before=spoil_loss)
    assert life.finish() == [1] * processes, life.text()
    assert "step 58 is nan" in life.text() and "Traceback" not in life.text()
    assert f"Last good checkpoint: {copy / 'checkpoints' / '57'}" in life.text()
    assert run_process.steps(copy) == [54, 57]
