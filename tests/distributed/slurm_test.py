"""Which GPUs a task of SLURM takes, in environments as SLURM makes them."""

import os
import subprocess
import sys

import pytest

from byol_jax.distributed import cluster

# GPUs that a task sees, GPUs of its node, tasks of the nodes, number of node and of task; what it
# takes of those that it sees, as it numbers them.
CASES = {
    "all of eight are seen": ("0,1,2,3,4,5,6,7", "8", "8(x4)", 2, 5, [5]),
    "all of eight, for two tasks": ("0,1,2,3,4,5,6,7", "8", "2(x4)", 0, 1, [4, 5, 6, 7]),
    "all of eight, for one task": ("0,1,2,3,4,5,6,7", "8", "1(x4)", 3, 0, list(range(8))),
    "each sees its own": ("0", "8", "8(x4)", 1, 5, [0]),
    "each sees its own two": ("0,1", "8", "4", 0, 3, [0, 1]),
    "its own, and the node is unknown": ("0", "", "8", 0, 5, [0]),
    "nodes of different sizes": ("0,1", "2", "4(x2),2", 2, 1, [1]),
}


def environment(seen, on_node, tasks, node, task):
    return {
        "SLURM_JOB_ID": "4242",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(task),
        "SLURM_LOCALID": str(task),
        "SLURM_NODEID": str(node),
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_GPUS_ON_NODE": on_node,
        "CUDA_VISIBLE_DEVICES": seen,
    }


def join(monkeypatch, variables):
    """What `cluster.initialize` asks JAX for; nothing is started."""
    asked = {}

    def start(*_, **options):
        asked.update(options)
        raise ValueError("coordinator_address should be defined.")

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cluster.jax.distributed, "initialize", start)
    cluster.initialize()
    return asked["local_device_ids"]


@pytest.mark.parametrize("case", CASES)
def test_tasks_of_a_node_divide_the_gpus_that_they_see(case, monkeypatch):
    *variables, expected = CASES[case]
    assert join(monkeypatch, environment(*variables)) == expected


@pytest.mark.parametrize(
    "changes",
    [{"CUDA_VISIBLE_DEVICES": ""}, {"JAX_LOCAL_DEVICE_IDS": "3"}],
    ids=["no GPU is named", "the user has chosen"],
)
def test_otherwise_the_choice_is_left_to_jax(changes, monkeypatch):
    variables = environment("0,1,2,3,4,5,6,7", "8", "8", 0, 5)
    assert join(monkeypatch, variables | changes) is None


@pytest.mark.parametrize("seen, on_node, tasks", [("0,1,2,3", "4", "3"), ("0", "1", "2")])
def test_gpus_that_do_not_divide_by_the_tasks_are_refused(seen, on_node, tasks, monkeypatch):
    with pytest.raises(cluster.UsageError, match=f"{tasks} tasks: set --ntasks-per-node="):
        join(monkeypatch, environment(seen, on_node, tasks, 0, 1))


START = """
import jax
from byol_jax.distributed import cluster
cluster.initialize()
assert jax.process_count() == 2
print(jax.process_index(), jax.config.read("jax_cuda_visible_devices"), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seen, expected", [("0", ["0", "0"]), ("0,1", ["0", "1"])])
def test_two_tasks_of_a_node_start_with_a_gpu_each(seen, expected):
    """Both find each other, and each restricts itself to an ordinal that it has."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START],
            env=os.environ
            | environment(seen, "2", "2", 0, task)
            | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.getcwd()},
            stdout=subprocess.PIPE,
            text=True,
        )
        for task in (0, 1)
    ]
    printed = [process.communicate(timeout=120)[0].split() for process in processes]
    assert printed == [[str(task), expected[task]] for task in (0, 1)]
