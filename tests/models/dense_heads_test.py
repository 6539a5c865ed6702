"""Dilated encoders, heads and upsampling against values of two independent computations."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.models import byol_network, dense_heads, dilation, encoder_spec, norms, resnet
from tests.support import golden_data

GOLDEN = golden_data.load("dense")
CONFIG = golden_data.config(GOLDEN)
NAME = "tiny_bottleneck"
SPEC = resnet.ResNetSpec(
    NAME,
    tuple(CONFIG["blocks"]),
    tuple(CONFIG["channels"]),
    bottleneck=True,
    stem_channels=CONFIG["stem"],
)
LAYERS = resnet.Layers(resnet.PADDINGS["same"], True, False, False, 0.9, 1e-5, None)
STEM = resnet.STEMS["imagenet"]
OF_NORM = ("norm", "norm_groups", "weight_standardization")  # of a card, as in a `NormSpec`
NORMS = {
    "batch": norms.BATCH_NORM,
    "group": norms.NormSpec("group", 2),
    "standardized": norms.NormSpec("group", 2, standardizes=True),
    "layer": norms.NormSpec("layer"),
    "none": norms.NormSpec("none"),
}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(resnet.ENCODERS, NAME, SPEC)


def of_upsampling():
    return sorted({key.split("|")[1] for key in GOLDEN if key.startswith("upsample|")})


@pytest.mark.parametrize("case", of_upsampling())
def test_upsampling_with_aligned_corners_equals_the_golden_values(case):
    x = GOLDEN[f"upsample|{case}|in"]
    size = tuple(map(int, GOLDEN[f"upsample|{case}|size"]))
    expected = GOLDEN[f"upsample|{case}|corners"]
    np.testing.assert_allclose(dense_heads.resize_corners(x, size), expected, atol=2e-5)


def test_output_stride_16_dilates_all_blocks_of_the_last_group():
    spec = dilation.dilated(SPEC, STEM, 16)
    assert list(spec.strides) == CONFIG["strides"]
    assert list(spec.dilations) == CONFIG["dilations"]
    assert dilation.dilated(SPEC, STEM, 8).dilations == (1, 1, 2, 4)
    assert dilation.dilated(SPEC, STEM, 32) == SPEC


def test_a_stride_that_no_dilation_gives_is_refused():
    with pytest.raises(ValueError, match="16 is none of 8, 4, 2, 1"):
        dilation.dilated(SPEC, resnet.STEMS["cifar"], 16)


@functools.cache
def network():
    """Encoder and head as functions of (params, state), and their formula values."""
    encoder = byol_network.make_forward(NAME, num_classes=0, output_stride=16)

    def head(x, is_training):
        make = dense_heads.FcnHead
        channels = CONFIG["head_channels"]
        return make(
            CONFIG["classes"], layers=LAYERS, channels=channels, dilation=CONFIG["head_dilation"]
        )(x, is_training or hk.running_init())

    head = hk.transform_with_state(head)
    key, blank = jax.random.key(0), jnp.zeros((1, 33, 33, 3))
    init = functools.partial(encoder.init, is_training=True, part="maps")
    trees = [jax.eval_shape(init, key, blank)]
    blank = jnp.zeros((1, 3, 3, SPEC.channels[-1]))
    trees.append(jax.eval_shape(functools.partial(head.init, is_training=True), key, blank))
    values = [[formula(tree) for tree in pair] for pair in trees]

    @functools.partial(jax.jit, static_argnums=1)
    def run(images, is_training):
        outputs, _ = encoder.apply(*values[0], None, images, is_training, part="maps")
        logits, _ = head.apply(*values[1], None, outputs.maps[-1], is_training)
        return outputs.maps, logits

    return run


def formula(shapes):
    return golden_data.formula_tree(shapes, CONFIG["salt"])


def without_sides(side):
    return golden_data.images(GOLDEN[f"resnet|{side}|images"])


@pytest.mark.parametrize("side", ["odd", "even"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_dilated_encoder_and_its_head_equal_the_golden_values(side, mode):
    maps, logits = network()(without_sides(side), mode == "train")
    found = {"conv4": maps[2], "conv5": maps[3], "fcn_logits": logits}
    tolerance = 1e-4 if mode == "train" else 1e-5
    for name, value in found.items():
        expected = GOLDEN.get(f"resnet|{side}|{mode}|{name}")
        if expected is not None:
            assert golden_data.relerr(value, expected) < tolerance, name


@pytest.mark.parametrize("side", ["odd", "even"])
def test_upsampled_logits_equal_the_golden_values(side):
    images = without_sides(side)
    _, logits = network()(images, False)
    found = dense_heads.resize_corners(logits, images.shape[1:3])[:, ::3, ::3]
    assert golden_data.relerr(found, GOLDEN[f"resnet|{side}|eval|fcn_upsampled_corners"]) < 1e-5


@pytest.mark.parametrize("side", ["odd", "even"])
def test_what_others_get_wrong_about_dilation_differs(side):
    maps, _ = network()(without_sides(side), False)
    for control in ("first_block_undilated", "not_dilated"):
        other = GOLDEN[f"resnet|{side}|control_{control}|conv5"]
        assert golden_data.relerr(maps[3], other) > 0.1, control


@pytest.mark.parametrize("norm", NORMS)
def test_dilation_changes_no_parameter(norm):
    options = dict(zip(OF_NORM, NORMS[norm], strict=True))
    card = encoder_spec.EncoderSpec(NAME, **options)
    trees = [
        jax.eval_shape(
            functools.partial(
                encoder_spec.make_forward(card, output_stride=stride).init,
                is_training=True,
                part="encoder",
            ),
            jax.random.key(0),
            jnp.zeros((1, 33, 33, 3)),
        )
        for stride in (32, 16, 8)
    ]
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize("norm", NORMS)
def test_a_convolution_is_dilated_before_every_norm(norm):
    layers = LAYERS._replace(norm_spec=NORMS[norm])
    forward = hk.transform(lambda x: layers.conv(1, 3, name="conv", dilation=2)(x))
    x = np.zeros((1, 7, 7, 1), np.float32)
    x[0, 3, 3] = 1
    params = forward.init(jax.random.key(0), x)
    rows, columns = np.nonzero(np.asarray(jax.jit(forward.apply)(params, None, x))[0, :, :, 0])
    assert set(rows) == set(columns) == {1, 3, 5} and len(rows) == 9


@pytest.mark.parametrize("side, place", [(65, 32), (64, 40)])
def test_cells_are_centered_on_multiples_of_the_stride_on_odd_sides_only(side, place):
    """So that align_corners=True, and crops of 16 n + 1, put a cell where it looks."""
    forward = byol_network.make_forward("tiny_resnet", num_classes=0, output_stride=16)
    key = jax.random.key(0)
    image = jax.random.uniform(key, (1, side, side, 3))  # no two pixels that tie for a maximum
    init = functools.partial(forward.init, is_training=True, part="maps")
    params, state = jax.tree.map(lambda x: jnp.ones(x.shape), jax.eval_shape(init, key, image))

    @jax.jit
    @jax.grad
    def seen_by_the_cell(image):
        return forward.apply(params, state, None, image, False, part="maps")[0].maps[2][0, 2, 2, 0]

    seen = np.abs(seen_by_the_cell(image))[0].sum((1, 2))
    assert seen @ np.arange(side) / seen.sum() == pytest.approx(place, abs=1)


def test_the_fast_up_convolution_equals_unpooling_and_a_5x5_convolution():
    found = dense_heads.unpool_conv(GOLDEN["up|in"], GOLDEN["up|w_5x5_main"])
    np.testing.assert_allclose(found, GOLDEN["up|exact|main_conv"], atol=1e-5)


def test_an_up_projection_equals_the_golden_values():
    x, channels = GOLDEN["up|in"], GOLDEN["up|w_3x3"].shape[-1]

    def block(x):
        make = dense_heads.UpProjection(channels, layers=LAYERS, name="up")
        return make(x, hk.running_init())

    forward = hk.transform_with_state(block)
    params, state = jax.tree.map(np.asarray, jax.jit(forward.init)(jax.random.key(0), x))
    params["up"] = {f"w_{branch}": GOLDEN[f"up|w_5x5_{branch}"] for branch in ("main", "side")}
    params["up/conv"]["w"] = GOLDEN["up|w_3x3"]
    for name in ("main", "out", "side"):
        norm = f"up/batchnorm_{name}"
        values = {key: GOLDEN[f"up|bn_{name}|{key}"].reshape(1, 1, 1, -1) for key in
                  ("scale", "offset", "mean", "var")}  # fmt: skip
        params[norm] = {key: values[key] for key in ("scale", "offset")}
        for key in ("mean", "var"):
            state[f"{norm}/~/{key}_ema"]["average"] = values[key]
    found, _ = jax.jit(forward.apply)(params, state, None, x)
    np.testing.assert_allclose(found, GOLDEN["up|exact|out"], atol=1e-5)


def test_four_up_projections_of_a_map_give_16_times_its_sides():
    def head(x):
        return dense_heads.DepthHead((8, 4, 4, 2), layers=LAYERS)(x, True)

    forward = hk.transform_with_state(head)
    blank = jax.ShapeDtypeStruct((1, 8, 10, 16), jnp.float32)

    def run(key, x):
        return forward.apply(*forward.init(key, x), None, x)[0]

    assert jax.eval_shape(run, jax.random.key(0), blank).shape == (1, 128, 160)
