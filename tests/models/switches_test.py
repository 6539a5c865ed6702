"""What the switches of heads and norms do to the parameters, and to what comes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.models import byol_network, microbatch, norms, resnet
from tests.models.byol_network_test import SMALL, jit, random_images, tree_shapes

GROUP = norms.NormSpec("group", 2)
STANDARDIZED = norms.NormSpec("group", 2, standardizes=True)
LAYER, NONE = norms.NormSpec("layer"), norms.NormSpec("none")


@pytest.fixture
def make_mini(monkeypatch):
    """Builds a network of a single block."""

    def make(*, bottleneck=False, **options):
        spec = resnet.ResNetSpec("mini", (1,), (8,), (2,), bottleneck, stem_channels=4)
        monkeypatch.setitem(resnet.ENCODERS, "mini", spec)
        return byol_network.make_forward("mini", stem="patch", **SMALL | options)

    return make


def leaves(tree, head):
    """Names and shapes of a head's parameters, without the head's name."""
    return {
        f"{module.removeprefix(head + '/')}/{name}": leaf.shape
        for module, found in tree.items()
        if module.split("/")[0] == head
        for name, leaf in found.items()
    }


PLAIN = {
    "linear/w": (8, 16),
    "linear/b": (16,),
    "batch_norm/scale": (1, 16),
    "batch_norm/offset": (1, 16),
    "linear_1/w": (16, 8),
}
PROJECTORS = {
    "reference": ({}, PLAIN),
    "linear": ({"projector_hidden_layers": 0}, {"linear/w": (8, 8)}),
    "linear with bias": (
        {"projector_hidden_layers": 0, "head_bias": True},
        {"linear/w": (8, 8), "linear/b": (8,)},
    ),
    "as the paper": ({"head_bias": True}, PLAIN | {"linear_1/b": (8,)}),
    "two hidden layers": (
        {"projector_hidden_layers": 2},
        PLAIN
        | {
            "linear_1/w": (16, 16),
            "linear_1/b": (16,),
            "batch_norm_1/scale": (1, 16),
            "batch_norm_1/offset": (1, 16),
            "linear_2/w": (16, 8),
        },
    ),
    "group norm": (
        {"head_norm": GROUP},
        {k: v for k, v in PLAIN.items() if "norm" not in k}
        | {"group_norm/scale": (16,), "group_norm/offset": (16,)},
    ),
    "layer norm": (
        {"head_norm": LAYER},
        {k: v for k, v in PLAIN.items() if "norm" not in k}
        | {"layer_norm/scale": (16,), "layer_norm/offset": (16,)},
    ),
    "no norm": ({"head_norm": NONE}, {k: v for k, v in PLAIN.items() if "norm" not in k}),
    "sizes": (
        {"projector_hidden_size": 32, "projector_output_size": 4},
        {
            "linear/w": (8, 32),
            "linear/b": (32,),
            "batch_norm/scale": (1, 32),
            "batch_norm/offset": (1, 32),
            "linear_1/w": (32, 4),
        },
    ),
}


@pytest.mark.parametrize("case", PROJECTORS)
def test_a_switch_of_the_heads_changes_the_projector_as_it_says(case, make_mini):
    options, expected = PROJECTORS[case]
    assert leaves(tree_shapes(make_mini(**options))[0], "projector") == expected


PREDICTORS = {
    "linear": ({"predictor": "linear", "predictor_hidden_layers": 3}, {"linear/w": (8, 8)}),
    "linear by depth": ({"predictor_hidden_layers": 0}, {"linear/w": (8, 8)}),
    "none": ({"predictor": "none"}, {}),
}


@pytest.mark.parametrize("case", PREDICTORS)
def test_a_predictor_is_what_its_key_says_and_the_rest_stays(case, make_mini):
    options, expected = PREDICTORS[case]
    params = tree_shapes(make_mini(**options))[0]
    assert leaves(params, "predictor") == expected
    assert leaves(params, "projector") == PLAIN


def test_without_a_predictor_the_prediction_is_the_projection(make_mini):
    forward = make_mini(predictor="none")
    images = random_images(2, 16, 16, 3)
    params, state = jit(lambda key, x: forward.init(key, x, True))(jax.random.key(0), images)
    outputs = jit(lambda p, s, x: forward.apply(p, s, None, x, True)[0])(params, state, images)
    np.testing.assert_array_equal(outputs.prediction, outputs.projection)


@pytest.mark.parametrize("resnet_v2", [False, True])
@pytest.mark.parametrize("kind", ["group", "layer"])
def test_another_norm_of_the_encoder_has_its_name_and_no_state(kind, resnet_v2, make_mini):
    """Scales and offsets where batch norm has them, weights of the same shapes."""
    spec = norms.NormSpec(kind, 2)
    params, state = tree_shapes(make_mini(norm=spec, head_norm=spec, resnet_v2=resnet_v2))
    batch, _ = tree_shapes(make_mini(resnet_v2=resnet_v2))

    def renamed(module):
        return module.replace("batch", kind) if "norm" in module else module

    assert not state
    assert set(params) == {renamed(module) for module in batch}
    for module, found in batch.items():
        for name, leaf in found.items():
            assert params[renamed(module)][name].size == leaf.size


def test_without_norms_convolutions_have_biases(make_mini):
    params, state = tree_shapes(make_mini(norm=NONE, head_norm=NONE))
    assert not state and not any("norm" in module for module in params)
    assert params["mini/~/initial_conv"]["b"].shape == (4,)


def test_norms_in_place_of_batch_norm_have_no_weight_decay(make_mini):
    from byol_jax.training import optimizers

    for kind in ("group", "layer"):
        spec = norms.NormSpec(kind, 2)
        adapted = optimizers.is_adapted(tree_shapes(make_mini(norm=spec, head_norm=spec))[0])
        assert {name for module in adapted.values() for name, is_it in module.items() if is_it} == {
            "w"
        }


@pytest.mark.parametrize("spec", [GROUP, STANDARDIZED, LAYER, NONE])
def test_without_batch_norm_an_image_is_seen_alike_in_any_batch(spec, make_mini):
    """Also in training: no statistics of the batch are left anywhere."""
    forward = make_mini(norm=spec, head_norm=spec)
    images = random_images(4, 16, 16, 3)
    params, state = jit(lambda key, x: forward.init(key, x, True))(jax.random.key(0), images)
    run = jit(lambda x: forward.apply(params, state, None, x, True)[0])
    together, alone = run(images), run(images[2:3])
    for whole, one in zip(together[:4], alone[:4], strict=True):  # there are no maps
        np.testing.assert_allclose(one, whole[2:3], atol=2e-5)


def test_standardized_weights_forget_their_scale_and_shift(make_mini):
    forward = make_mini(norm=STANDARDIZED, head_norm=STANDARDIZED)
    images = random_images(2, 16, 16, 3)
    params, state = jit(lambda key, x: forward.init(key, x, True))(jax.random.key(0), images)
    last = ("projector/linear_1", "predictor/linear_1", "classifier")  # are not standardized
    moved = {
        module: found | ({"w": 3 * found["w"] + 1} if "w" in found and module not in last else {})
        for module, found in params.items()
    }
    run = jit(lambda p: forward.apply(p, state, None, images, True)[0].prediction)
    np.testing.assert_allclose(run(moved), run(params), rtol=1e-3, atol=1e-4)


def test_bfloat16_rounds_weights_after_they_were_standardized(make_mini):
    """A weight of mean 1000 would lose everything if it were rounded before that."""
    options = {"norm": STANDARDIZED, "head_norm": STANDARDIZED}
    exact, rounded = make_mini(**options), make_mini(dtype="bfloat16", **options)
    images = random_images(2, 16, 16, 3)
    params, state = jit(lambda key, x: exact.init(key, x, True))(jax.random.key(0), images)
    conv = "mini/~/initial_conv"
    params = params | {conv: {"w": params[conv]["w"] + 100}}
    expected, actual = (
        jit(lambda p, f=f: f.apply(p, state, None, images, True)[0].embedding)(params)
        for f in (exact, rounded)
    )
    np.testing.assert_allclose(actual, expected, atol=0.05 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("resnet_v2", [False, True])
def test_other_norms_pass_a_batch_in_parts_as_they_pass_it_whole(resnet_v2, make_mini):
    options = {"norm": GROUP, "resnet_v2": resnet_v2}
    whole = make_mini(**options)
    images = random_images(4, 16, 16, 3)
    params, state = jit(lambda key, x: whole.init(key, x, True))(jax.random.key(0), images)

    def loss(params, plan):
        outputs, _ = make_mini(plan=plan, **options).apply(params, state, None, images, True)
        return jnp.sum(jnp.square(outputs.prediction))

    plain, parts = (
        jit(jax.value_and_grad(lambda p, plan=plan: loss(p, plan)))(params)
        for plan in (microbatch.PLAIN, microbatch.Plan(parts=2))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), plain, parts)


def test_an_unknown_norm_or_predictor_is_refused_by_what_there_is(make_mini):
    with pytest.raises(ValueError, match="Unknown norm: 'instance'.*batch, group, layer, none"):
        make_mini(norm=norms.NormSpec("instance"))
    with pytest.raises(ValueError, match="Unknown predictor: 'deep'.*linear, mlp, none"):
        make_mini(predictor="deep")
