"""Group norm, layer norm and weight standardization against other projects' values."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.models import norms
from tests.support import golden_data

GOLDEN = golden_data.load("objectives")
GRADIENTS = {"gn_ws": ("kernel", "x", "scale", "offset"), "layer_norm": ("x", "scale", "offset")}


def inputs(case):
    prefix = f"inputs|{case}|"
    return {k.removeprefix(prefix): v for k, v in GOLDEN.items() if k.startswith(prefix)}


def run(make, x, scale, offset):
    """What a norm makes of x with these parameters."""
    forward = hk.without_apply_rng(hk.transform(lambda x: make(name="norm")(x)))
    return forward.apply({"norm": {"scale": scale, "offset": offset}}, x)


def group_norm(groups, eps=1e-5):
    return lambda name: norms.GroupNorm(groups=groups, eps=eps, name=name)


def layer_norm(eps):
    return lambda name: norms.LayerNorm(eps=eps, name=name)


def standardized_conv(kernel, x):
    conv = functools.partial(norms.StandardizedConv, kernel.shape[-1], 3, with_bias=False)
    forward = hk.without_apply_rng(hk.transform(lambda x: conv(name="conv")(x)))
    return forward.apply({"conv": {"w": kernel}}, x)


def assert_close(actual, expected, tolerance=2e-5):
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def test_standardized_weights_and_their_convolution_equal_the_golden_values():
    given = inputs("gn_ws")
    expected = GOLDEN["gn_ws|main|kernel|eps1e-10_in_var"]
    assert_close(norms.standardize_weights(given["kernel"]), expected)
    assert_close(standardized_conv(given["kernel"], given["x"]), GOLDEN["gn_ws|main|conv_out"])


@pytest.mark.parametrize("groups", [16, 8])
def test_group_norm_equals_the_golden_values(groups):
    given = inputs("gn_ws")
    actual = run(group_norm(groups), GOLDEN["gn_ws|main|conv_out"], given["scale"], given["offset"])
    assert_close(actual, GOLDEN[f"gn_ws|main|group_norm_out|g{groups}"])


@pytest.mark.parametrize("eps", ["1e-5", "1e-6"])
def test_layer_norm_equals_the_golden_values(eps):
    given = inputs("layer_norm")
    actual = run(layer_norm(float(eps)), given["x"], given["scale"], given["offset"])
    assert_close(actual, GOLDEN[f"layer_norm|main|out|eps{eps}"])


def group_norm_loss(given):
    y = standardized_conv(given["kernel"], given["x"])
    return jnp.sum(given["coef"] * run(group_norm(16), y, given["scale"], given["offset"]))


def layer_norm_loss(given):
    out = run(layer_norm(1e-5), given["x"], given["scale"], given["offset"])
    return jnp.sum(given["coef"] * out)


@pytest.mark.parametrize(
    ("case", "loss"), [("gn_ws", group_norm_loss), ("layer_norm", layer_norm_loss)]
)
def test_gradients_equal_the_golden_values(case, loss):
    value, grads = jax.value_and_grad(loss)(inputs(case))
    expected = GOLDEN[f"{case}|main|loss"]
    assert abs(value - expected) <= 1e-5 * max(1, abs(expected))
    for name in GRADIENTS[case]:
        assert_close(grads[name], GOLDEN[f"{case}|main|grad|{name}"])


@pytest.mark.parametrize("make", [group_norm(4), layer_norm(1e-5)])
def test_an_image_is_normalized_alike_whatever_else_is_in_the_batch(make):
    x = np.random.RandomState(0).standard_normal((4, 3, 3, 8)).astype(np.float32)
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    together = run(make, x, ones, zeros)
    np.testing.assert_allclose(run(make, x[2:3], ones, zeros), together[2:3], atol=1e-6)


def test_group_norm_of_one_group_is_the_standardization_of_an_image():
    x = np.random.RandomState(0).standard_normal((2, 3, 3, 8)).astype(np.float32)
    actual = run(group_norm(1), x, np.ones(8, np.float32), np.zeros(8, np.float32))
    axes = (1, 2, 3)
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="8 channels do not divide into 3 groups"):
        run(group_norm(3), np.ones((2, 8)), np.ones(8), np.ones(8))
