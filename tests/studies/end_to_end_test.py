"""A small study with two axes as a person runs it, killed and started again."""

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from byol_jax.workdir import metrics_log

STUDY = """
from byol_jax.studies import study

def get_config():
    return study.make_config(
        "small",
        question="Does it go on?",
        base="configs/byol.py:patterns",
        settings={
            "total_steps": 3, "batch_size": 8, "optimizer.warmup_steps": 1, "log_every_steps": 1,
            "probe.max_images": 40, "gallery.max_images": 0, "data.image_size": 16,
            "model.projector_hidden_size": 8, "model.predictor_hidden_size": 8,
        },
        axes=(
            study.axis_of_key("tau", "objective.base_target_ema", (1.0, 0.5)),
            study.Axis("flip", {"flip": {}, "none": {"augment.view1.flip_probability": 0.0}}),
        ),
        seeds=1,
        findings=(study.Finding("it moves", "0.5, flip", "1.0, flip"),),
    )
"""


def start(folder, *flags):
    """The command in a process of its own."""
    words = [f"--config={folder / 'study.py'}", f"--workdir={folder / 'w'}", *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "byol_jax.main_loop", *words],
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def holder(run):
    """The process that holds the lock of a run."""
    text = (run / "lock").read_text() if (run / "lock").exists() else ""
    found = re.match(r"process (\d+)", text)
    return int(found[1]) if found else None


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_with_the_same_command_and_does_nothing_twice(tmp_path):
    (tmp_path / "study.py").write_text(STUDY)
    shown = start(tmp_path, "--config.dry_run")
    assert "4 runs; nothing was started." in shown.communicate()[1]
    assert not (tmp_path / "w").exists()
    runs = [
        tmp_path / "w" / "runs" / f"{tau}_{flip}-seed0"
        for tau in ("1.0", "0.5")
        for flip in ("flip", "none")
    ]
    first = start(tmp_path, "--config.jobs=2")
    orphan, killed = (wait_for(lambda run=run: holder(run)) for run in runs[:2])
    first.kill()
    os.kill(killed, signal.SIGKILL)
    first.communicate()
    os.kill(orphan, signal.SIGSTOP)  # it goes on by itself, but not to its end before it is seen
    second = start(tmp_path, "--config.jobs=2")
    release = threading.Timer(200, os.kill, (orphan, signal.SIGCONT))
    release.start()
    seen = []
    for line in second.stderr:
        seen.append(line)
        if "elsewhere" in line:
            break
    os.kill(orphan, signal.SIGCONT)
    release.cancel()
    text = "".join(seen) + second.communicate(timeout=400)[1]
    assert second.returncode == 0, text
    assert "1.0_flip-seed0 elsewhere: being run by process" in text
    for run in runs:
        steps = [row["step"] for row in metrics_log.rows(run, having="train/loss")]
        assert steps == [1, 2, 3], run
    rows = list(csv.DictReader((tmp_path / "w" / "results.csv").open()))
    assert [(row["tau"], row["flip"]) for row in rows] == [
        ("untrained network", ""),
        *(("1.0", "flip"), ("1.0", "none"), ("0.5", "flip"), ("0.5", "none")),
    ]
    assert all(row["probe/linear_top1 seed 0"] for row in rows)
    assert "it moves: undecided" in (tmp_path / "w" / "results.md").read_text()
    assert (tmp_path / "w" / "plot.png").stat().st_size > 1000
    third = start(tmp_path)
    text = third.communicate(timeout=100)[1]
    assert third.returncode == 0 and "running" not in text
