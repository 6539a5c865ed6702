"""The training step still compiles for an H100 and for a TPU slice, which takes neither of them.

It needs what compiles for them: pip install jax-cuda13-pjrt jax-cuda13-plugin libtpu, of the
versions that fit jax.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COMPILERS = {"h100": "jax_plugins.xla_cuda13", "v5e": "libtpu"}


def _is_installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package above
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    "machine, all_reduces", [("h100-1", False), ("h100-8", True), ("v5e-4", True)]
)
def test_a_small_step_compiles_for_a_machine_that_is_not_here(machine, all_reduces):
    compiler = COMPILERS[machine.partition("-")[0]]
    if not _is_installed(compiler):
        pytest.skip(f"{compiler} is not installed")
    command = [sys.executable, "-m", "experiments.accelerators.compile_step"]
    done = subprocess.run(
        [*command, machine, "micro_resnet", "bfloat16", "8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # The gradient alone is a sum over devices of as many bytes as there are parameters.
    assert (found["all_reduces"] > 0) is all_reduces
    assert found["bytes"] > found["state_bytes"] and found["launches"] > 100
    assert 0 < found["temp_bytes"] < 1e9
