"""Twenty recorded steps in one process and in several: the same losses, to rounding."""

import numpy as np
import pytest

from tests.support import golden_data, topologies


def test_all_reduces_of_a_program_are_counted_with_their_bytes():
    program = """
      %a = (f32[2,3]{1,0}, f64[]) all-reduce(%x, %y), replica_groups={}
      %b = f32[10]{0} all-reduce(%z), replica_groups={}
      %c = f32[10]{0} add(%a, %b)
    """
    assert topologies.all_reduced(program) == (2, 4 * 6 + 8 + 4 * 10)


@pytest.mark.slow
def test_losses_do_not_depend_on_processes_and_devices():
    """In float64, where rounding cannot hide a missing reduction."""
    losses = {
        name: topologies.run(topologies.TOPOLOGIES[name])["losses"]
        for name in ("1x1", "1x4", "2x2")
    }
    recorded = golden_data.load("trajectory")["log|loss"]  # of the reference, in float32
    np.testing.assert_allclose(losses["1x1"], recorded, atol=1e-3, rtol=0)
    for name in ("1x4", "2x2"):
        np.testing.assert_allclose(losses[name], losses["1x1"], atol=1e-9, rtol=0, err_msg=name)
