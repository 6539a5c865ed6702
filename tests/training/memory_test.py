"""How much memory a large file of DeepMind's takes, of which only a part is wanted."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from byol_jax.models import encoder_spec
from tests.checkpoints.deepmind_test import mapping, plain, whole_file
from tests.support import golden_data, systems

ROOT = pathlib.Path(__file__).parents[2]
# The peak (VmHWM) is set back to what is in use, so that what importing took does not count.
MEASURE = """
import gc, pathlib, re, sys
from byol_jax.checkpoints import encoders
def read(key):
    text = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(key + r":\\s*(\\d+)", text)[1])
encoders.load_encoder(sys.argv[1])
gc.collect()
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = read("VmRSS")
encoder = encoders.load_encoder(sys.argv[2])
print(read("VmHWM") - before)
"""


def write_large_file(path, card):
    """As the reference writes it: two networks and a momentum; gives the size of one encoder."""
    rng = np.random.default_rng(0)

    def pickled(shapes):
        arrays = {
            module: {name: rng.random(x.shape, np.float32) for name, x in leaves.items()}
            for module, leaves in shapes.items()
        }
        return mapping(
            **{
                module: mapping(**{name: plain(array) for name, array in leaves.items()})
                for module, leaves in arrays.items()
            }
        ), sum(array.nbytes for leaves in arrays.values() for array in leaves.values())

    (params, size), (state, more) = map(pickled, encoder_spec.shapes(card))
    trees = dict(online_params=params, target_params=params, online_state=state, target_state=state)
    momentum = b"(" + mapping(mu=params) + b"t"
    path.write_bytes(whole_file(**trees, opt_state=momentum))
    return size + more


@pytest.mark.slow
@systems.NEEDS_PROC
def test_an_encoder_takes_less_than_twice_its_size_of_a_file_of_four_times(tmp_path):
    path = tmp_path / "resnet50.pkl"
    size = write_large_file(path, encoder_spec.EncoderSpec("resnet50"))
    assert size > 90e6 and path.stat().st_size > 3.5 * size
    command = [sys.executable, "-c", MEASURE, golden_data.FOLDER / "deepmind_tiny.pkl", path]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}  # one device, one copy
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    grown = int(result.stdout)
    assert size <= grown < 1.8 * size, (grown, size)
