"""Convolutions and max-pooling in their forms for a CPU, against XLA's own."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from byol_jax.models import convolution, cpu_conv

RNG = np.random.default_rng(0)
TORCH = ((1, 1), (1, 1))
# x, kernel and stride, padding: each form, and edges of it.
CASES = {
    "1x1": ((2, 5, 4, 3), (1, 1, 3, 6), 1, "SAME"),
    "1x1 with stride": ((2, 5, 4, 3), (1, 1, 3, 6), 2, "SAME"),
    "1x1 with padding": ((2, 5, 4, 3), (1, 1, 3, 6), 2, ((1, 0), (2, 1))),
    "few patches": ((2, 3, 4, 3), (3, 3, 3, 256), 1, "SAME"),
    "few patches, stride": ((2, 4, 5, 3), (3, 3, 3, 256), 2, TORCH),
    "few patches, VALID": ((2, 4, 5, 3), (3, 3, 3, 256), 1, "VALID"),
    "one cell": ((2, 1, 1, 3), (3, 3, 3, 4), 1, "SAME"),
    "one cell of two by two": ((2, 2, 2, 3), (3, 3, 3, 4), 2, "SAME"),
    "one cell, padding of torch": ((2, 2, 2, 3), (3, 3, 3, 4), 2, TORCH),
    "swapped": ((2, 4, 5, 3), (3, 3, 3, 4), 1, "SAME"),
    "swapped, stride": ((2, 6, 5, 3), (3, 3, 3, 4), 2, "SAME"),
    "swapped, stride, torch": ((2, 6, 5, 3), (3, 3, 3, 4), 2, TORCH),
    "swapped, VALID": ((2, 6, 7, 3), (3, 3, 3, 4), 2, "VALID"),
    "phases": ((2, 24, 26, 64), (3, 3, 64, 2), 2, "SAME"),
    "phases, torch": ((2, 24, 26, 64), (3, 3, 64, 2), 2, TORCH),
    "odd side": ((2, 25, 24, 64), (3, 3, 64, 2), 2, "SAME"),
    "plain": ((2, 9, 9, 5), (3, 3, 5, 4), 1, "SAME"),
}


@pytest.fixture(autouse=True)
def swaps_small_ones(monkeypatch, request):
    """Lets the tests of swapping do with few channels and images."""
    if "swapped" in request.node.name:
        monkeypatch.setattr(cpu_conv, "_PATCH_BYTES", 0)
        monkeypatch.setattr(cpu_conv, "_MANY_CHANNELS", 4)
        monkeypatch.setattr(cpu_conv, "_MANY_IMAGES", 2)


def draw(*shape):
    """Normal numbers, float64 inside of `jax.enable_x64`."""
    return jnp.asarray(RNG.standard_normal(shape))


def xla_conv2d(x, w, stride, pads, dilation=1):
    """By lax alone."""
    return lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def xla_max_pool(x, stride, pads):
    """By lax alone."""
    pads = pads if isinstance(pads, str) else [(0, 0), *pads, (0, 0)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), pads)


def with_gradients(function, *args):
    """What it gives, and gradients of a sum of it with weights."""

    @jax.jit
    def run(*args):
        y, pull = jax.vjp(function, *args)
        weights = jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return y, *pull(weights)

    return run(*args)


@pytest.mark.parametrize("case", CASES)
def test_a_form_equals_the_convolution_and_its_gradients(case):
    size, kernel, stride, pads = CASES[case]
    if "swapped" in case:
        x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (size, kernel))
        assert cpu_conv._swaps(x, w, stride)
    with jax.enable_x64(True):
        x, w = draw(*size), draw(*kernel)
        found = with_gradients(
            lambda x, w: convolution.conv2d(x, w, stride=stride, pads=pads), x, w
        )
        wanted = with_gradients(lambda x, w: xla_conv2d(x, w, stride, pads), x, w)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


def test_each_form_is_chosen_by_one_of_the_cases_above():
    chosen = {}
    for name, (size, kernel, stride, pads) in CASES.items():
        pads = convolution._explicit(pads, size, kernel, stride)
        x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (size, kernel))
        chosen[name] = (
            cpu_conv._is_product(x, w, stride, pads),
            cpu_conv._swaps(x, w, stride),
            cpu_conv._has_phases(x, w, stride, pads),
        )
    assert chosen["1x1"][0] and chosen["one cell"][0] and chosen["few patches, stride"][0]
    assert chosen["phases"] == chosen["phases, torch"] == (False, False, True)
    assert not any(chosen["odd side"] + chosen["plain"])
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 8, 8, 256), (3, 3, 256, 256)))
    assert not cpu_conv._is_product(x, w, 1, TORCH) and cpu_conv._swaps(x, w, 1)


@pytest.mark.parametrize("pads", ["SAME", TORCH], ids=["same", "torch"])
@pytest.mark.parametrize("size", [(2, 8, 9, 3), (1, 1, 2, 3)], ids=str)
def test_max_pooling_gives_the_gradient_to_the_first_of_equal_cells(size, pads):
    with jax.enable_x64(True):
        x = jax.nn.relu(jnp.round(draw(*size)))  # many are equal
        found = with_gradients(lambda x: convolution.max_pool(x, kernel=3, stride=2, pads=pads), x)
        wanted = with_gradients(lambda x: xla_max_pool(x, 2, pads), x)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_dilation_and_half_precision_are_left_to_xla():
    x, w = draw(1, 4, 4, 3).astype(jnp.float32), draw(1, 1, 3, 4).astype(jnp.float32)
    for options, dtype in (({"dilation": 2}, x.dtype), ({}, jnp.bfloat16)):
        traced = jax.make_jaxpr(lambda x, w, o=options: convolution.conv2d(x, w, **o))
        names = [eqn.primitive.name for eqn in traced(x.astype(dtype), w.astype(dtype)).eqns]
        assert names == ["conv_general_dilated"]


def lowered_for(platform, function, *shapes):
    """The optimized-away choices aside, the program text of one platform."""
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.export.export(jax.jit(function), platforms=[platform])(*args).mlir_module()


def count(text):
    """Operations of a program that matter here."""
    names = ("convolution", "dot_general", "select_and_scatter", "reduce_window", "transpose")
    return {name: text.count(f"stablehlo.{name}") for name in names}


@pytest.mark.parametrize("case", ["1x1", "few patches", "swapped, stride", "phases"])
def test_a_program_that_is_lowered_here_for_an_accelerator_is_the_plain_one(case):
    size, kernel, stride, pads = CASES[case]

    def gradients(conv):
        return lambda x, w: jax.vjp(lambda x, w: conv(x, w), x, w)[1](conv(x, w))

    ours = gradients(lambda x, w: convolution.conv2d(x, w, stride=stride, pads=pads))
    plain = gradients(lambda x, w: xla_conv2d(x, w, stride, pads))
    shapes = (size, kernel)
    for platform in ("tpu", "cuda"):
        assert count(lowered_for(platform, ours, *shapes)) == count(
            lowered_for(platform, plain, *shapes)
        )
    assert count(lowered_for("cpu", ours, *shapes)) != count(lowered_for("cpu", plain, *shapes))


def test_where_an_accelerator_computes_the_program_holds_no_trace_of_it(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    for name, (size, kernel, stride, pads) in CASES.items():
        x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (size, kernel))
        ours = jax.make_jaxpr(
            lambda x, w, s=stride, p=pads: convolution.conv2d(x, w, stride=s, pads=p)
        )
        plain = jax.make_jaxpr(lambda x, w, s=stride, p=pads: xla_conv2d(x, w, s, p))
        assert str(ours(x, w)) == str(plain(x, w)), name
    ours = jax.make_jaxpr(lambda x: convolution.max_pool(x, kernel=3, stride=2))
    plain = jax.make_jaxpr(lambda x: xla_max_pool(x, 2, "SAME"))
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    assert str(ours(x)) == str(plain(x))
