"""Networks against the reference's trees and outputs, and against NumPy formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.models import byol_network, resnet
from tests.support import golden_data

ENCODER_OF_CLASS, HEAD_KEYS = golden_data.ENCODER_OF_CLASS, golden_data.HEAD_KEYS
SMALL = dict(
    num_classes=5, projector_hidden_size=16, projector_output_size=8, predictor_hidden_size=12
)
SHAPES = golden_data.load_json("param_shapes")
FORWARD = golden_data.load("forward")
CASES = golden_data.config(FORWARD)

# Most of the time here is compilation, which is a third shorter without LLVM's optimizations.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def from_config(config, **options):
    return byol_network.make_forward(
        ENCODER_OF_CLASS[config["encoder_class"]],
        resnet_v2=config["resnet_v2"],
        width_multiplier=config["width_multiplier"],
        **{key: config[key] for key in HEAD_KEYS},
        **options,
    )


def tree_shapes(forward, *, size=32, **options):
    """Shapes of parameters and state, without computing them."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    init = functools.partial(forward.init, is_training=True, **options)
    return jax.eval_shape(init, jax.random.key(0), images)


def formula_trees(forward, salt="test", counter=3):
    params, state = tree_shapes(forward)
    return (
        golden_data.formula_tree(params, salt),
        golden_data.formula_tree(state, salt, counter),
    )


def as_lists(tree):
    return {m: {n: list(leaf.shape) for n, leaf in leaves.items()} for m, leaves in tree.items()}


def random_images(*shape, seed=0):
    return np.random.RandomState(seed).uniform(size=shape).astype(np.float32)


@pytest.fixture
def make_mini(monkeypatch):
    """Builds a network of a single block, because compilation is what takes time here."""

    def make(*, bottleneck=False, blocks=1, **options):
        spec = resnet.ResNetSpec("mini", (blocks,), (8,), (2,), bottleneck, stem_channels=4)
        monkeypatch.setitem(resnet.ENCODERS, "mini", spec)
        return byol_network.make_forward("mini", stem="patch", **SMALL, **options)

    return make


# Names, shapes and sizes.


def slow_if(condition, case):
    return pytest.param(case, marks=pytest.mark.slow) if condition else case


def is_slow(entry):
    """Tracing takes seconds for deep nets; for the others, two entries have every feature."""
    deep = any(depth in entry for depth in ("101", "152", "200"))
    return deep or not entry.endswith(("v1/w1", "v2/w2"))


@pytest.mark.parametrize("entry", [slow_if(is_slow(e), e) for e in sorted(SHAPES["encoders"])])
def test_names_and_shapes_equal_the_reference(entry):
    expected = SHAPES["encoders"][entry]
    params, state = tree_shapes(from_config({**expected, **SHAPES["head_config"]}))
    assert as_lists(params) == expected["params"]
    assert as_lists(state) == expected["state"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected["num_params"]


@pytest.mark.parametrize("entry", sorted(SHAPES["encoders"]))
def test_table_has_the_blocks_and_channels_of_the_reference(entry):
    expected = SHAPES["encoders"][entry]
    encoder = ENCODER_OF_CLASS[expected["encoder_class"]]
    spec, width = resnet.ENCODERS[encoder], expected["width_multiplier"]
    last_conv = f"conv_{2 if spec.bottleneck else 1}"
    channels: dict[int, list[int]] = {}
    for module, leaves in expected["params"].items():
        if module.startswith(spec.module + "/") and module.endswith(last_conv):
            group = int(module.split("block_group_")[1][0])
            channels.setdefault(group, []).append(leaves["w"][-1])
    groups = [channels[group] for group in range(len(spec.blocks))]
    assert groups == [[c * width] * n for c, n in zip(spec.channels, spec.blocks, strict=True)]
    size = resnet.embedding_size(encoder, width_multiplier=width)
    assert size == expected["embedding_size"]


@pytest.mark.parametrize("entry", sorted(SHAPES["heads"]))
def test_heads_equal_the_reference(entry, monkeypatch):
    expected = SHAPES["heads"][entry]
    spec = resnet.ResNetSpec("any", (1,), (expected["embedding_size"],), (1,), stem_channels=1)
    monkeypatch.setitem(resnet.ENCODERS, "any", spec)
    trees = tree_shapes(byol_network.make_forward("any", **expected["head_config"]))
    heads = [{m: v for m, v in as_lists(tree).items() if "any/" not in m} for tree in trees]
    assert heads == [expected["params"], expected["state"]]


def test_micro_resnet_has_two_groups():
    params, _ = tree_shapes(byol_network.make_forward("micro_resnet", stem="patch", **SMALL))
    assert params["micro_res_net/~/initial_conv"]["w"].shape == (5, 5, 3, 32)
    last = params["micro_res_net/~/block_group_1/~/block_0/~/conv_1"]["w"]
    assert last.shape[-1] == resnet.embedding_size("micro_resnet") == 96
    assert not any("block_group_2" in module for module in params)


# Outputs and state of the reference.


# Blocks and trees of all depths are in faster tests, too.
FAST_AND_SLOW = [slow_if(CASES[c]["encoder_class"] != "TinyResNet", c) for c in sorted(CASES)]


@functools.cache
def run_case(case):
    """Formula trees; training outputs of both views, last state; evaluation outputs, state."""
    config = CASES[case]
    options = dict(bn_decay_rate=config["bn_decay_rate"], bn_eps=config["bn_eps"])
    forward = from_config(config, **options)
    params, state = formula_trees(forward, config["salt"], config["counter"])

    apply = jit(forward.apply, static_argnums=4)
    view1, view2 = (
        FORWARD[f"{case}|images_{view}"].astype(np.float32) / np.float32(255)
        for view in ("view1", "view2")
    )
    first, between = apply(params, state, None, view1, True)
    second, after = apply(params, between, None, view2, True)
    return params, state, (first, second, after), apply(params, state, None, view1, False)


@pytest.mark.parametrize("case", FAST_AND_SLOW)
def test_formula_trees_are_those_of_the_reference(case):
    params, state, _, _ = run_case(case)
    golden_data.assert_summary(FORWARD, f"{case}|params_summary", params, tolerance=1e-6)
    golden_data.assert_summary(FORWARD, f"{case}|state_summary", state, tolerance=1e-6)


@pytest.mark.parametrize("case", FAST_AND_SLOW)
def test_training_outputs_equal_the_reference(case):
    _, _, (*views, _), _ = run_case(case)
    # Statistics of four images amplify rounding in deep nets: for ResNet50 float32 itself is off
    # by 8e-5 (embedding) and 4e-4 (prediction) from float64.
    deep = "ResNet50" in CASES[case]["encoder_class"]
    encoder, heads = (3e-4, 5e-3) if deep else (5e-5, 1e-4)
    tolerance = dict(embedding=encoder, logits=encoder, projection=heads, prediction=heads)
    for view, outputs in zip(("view1", "view2"), views, strict=True):
        for name, bound in tolerance.items():
            expected = FORWARD[f"{case}|train|{name}_{view}"]
            assert golden_data.relerr(getattr(outputs, name), expected) <= bound, (view, name)


@pytest.mark.parametrize("case", FAST_AND_SLOW)
def test_running_statistics_move_twice_like_the_reference(case):
    _, before, (_, _, after), _ = run_case(case)
    golden_data.assert_summary(FORWARD, f"{case}|new_state_summary", after, tolerance=1e-5)
    for module, leaves in golden_data.tree(FORWARD, f"{case}|new_state").items():
        assert after[module]["counter"] == leaves["counter"] == before[module]["counter"] + 2
        for name in ("hidden", "average"):
            assert golden_data.relerr(after[module][name], leaves[name]) <= 1e-4, (module, name)


@pytest.mark.parametrize("case", FAST_AND_SLOW)
def test_evaluation_equals_the_reference_and_keeps_state(case):
    _, before, _, (outputs, after) = run_case(case)
    for name in ("embedding", "projection", "prediction", "logits"):
        assert golden_data.relerr(getattr(outputs, name), FORWARD[f"{case}|eval|{name}"]) <= 2e-5
    jax.tree.map(np.testing.assert_array_equal, before, after)


# Stems and paddings against NumPy.


def numpy_pads(size, kernel, stride, padding):
    if padding == "torch":
        return {1: (0, 0), 3: (1, 1), 5: (2, 2), 7: (3, 3)}[kernel]
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def numpy_windows(x, kernel, stride, padding, fill):
    """Strided windows [b, h, w, channels, kernel, kernel] of the padded input."""
    pads = [numpy_pads(size, kernel, stride, padding) for size in x.shape[1:3]]
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
    return windows[:, ::stride, ::stride]


def numpy_conv(x, w, stride, padding):
    windows = numpy_windows(x, w.shape[0], stride, padding, 0.0)
    return np.einsum("bhwcij,ijco->bhwo", windows, w, optimize=True)


def numpy_micro_resnet(params, state, images, padding, layers):
    """Evaluation mode in float64, written out for two groups of one basic block."""

    def conv(name, x, stride):
        return numpy_conv(x, np.asarray(params[root + name]["w"], np.float64), stride, padding)

    def norm(name, x):
        mean, var = (state[f"{root}{name}/~/{m}_ema"]["average"] for m in ("mean", "var"))
        leaves = params[root + name]
        return (x - mean) / np.sqrt(var + 1e-5) * leaves["scale"] + leaves["offset"]

    root = "micro_res_net/~/"
    _, stride, pool, margin = layers
    x = (images.astype(np.float64) - byol_network.IMAGENET_MEAN) / byol_network.IMAGENET_STD
    x = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    x = np.maximum(norm("initial_batchnorm", conv("initial_conv", x, stride)), 0)
    if pool:
        x = numpy_windows(x, 3, 2, padding, -np.inf).max((-2, -1))
    for group, stride in enumerate((1, 2)):
        root = f"micro_res_net/~/block_group_{group}/~/block_0/~/"
        y = np.maximum(norm("batchnorm_0", conv("conv_0", x, stride)), 0)
        y = norm("batchnorm_1", conv("conv_1", y, 1))
        x = np.maximum(y + norm("shortcut_batchnorm", conv("shortcut_conv", x, stride)), 0)
    return x.mean((1, 2))


@pytest.mark.parametrize("padding", ["same", "torch"])
@pytest.mark.parametrize(
    "stem, layers",
    [
        ("imagenet", (7, 2, True, 0)),
        ("cifar", (3, 1, False, 0)),
        ("cifar_margin", (3, 1, False, 1)),
        ("patch", (5, 4, False, 0)),
    ],
)
def test_stems_and_paddings_equal_numpy(stem, layers, padding):
    forward = byol_network.make_forward("micro_resnet", stem=stem, padding=padding, **SMALL)
    params, state = formula_trees(forward)
    assert params["micro_res_net/~/initial_conv"]["w"].shape == (layers[0], layers[0], 3, 32)
    images = random_images(2, 22, 27, 3)
    apply = jit(functools.partial(forward.apply, is_training=False, part="encoder"))
    outputs, _ = apply(params, state, None, images)
    expected = numpy_micro_resnet(params, state, images, padding, layers)
    assert golden_data.relerr(outputs.embedding, expected) <= 1e-5


def test_max_pool_ignores_the_padding():
    x = -1 - random_images(1, 6, 6, 2)
    for padding in resnet.PADDINGS.values():
        layers = resnet.Layers(padding, False, False, False, 0.9, 1e-5, None)
        assert layers.max_pool(x).max() < 0


# Initialization.


def initial_params(forward, wanted):
    """Initial leaves that `wanted(module, name)` selects: XLA then skips the others."""

    @jit
    def init():
        images = jnp.ones((2, 16, 16, 3))
        params, _ = forward.init(jax.random.key(1), images, True)
        return {m: {n: v for n, v in p.items() if wanted(m, n)} for m, p in params.items()}

    return init()


def initial_scales(forward):
    params = initial_params(forward, lambda module, name: name == "scale")
    return {module: leaves["scale"] for module, leaves in params.items() if leaves}


@pytest.mark.parametrize("bottleneck", [True, False])
@pytest.mark.parametrize("resnet_v2", [True, False])
def test_zero_init_residual_zeroes_the_last_scale_of_bottlenecks_of_version_1(
    make_mini, bottleneck, resnet_v2
):
    options = dict(bottleneck=bottleneck, resnet_v2=resnet_v2, blocks=2)
    for scale in initial_scales(make_mini(**options)).values():
        np.testing.assert_array_equal(scale, 1)
    zeroed = initial_scales(make_mini(zero_init_residual=True, **options))
    last = {module for module in zeroed if module.endswith("batchnorm_2")}
    assert len(last) == (2 if bottleneck else 0)
    for module, scale in zeroed.items():
        np.testing.assert_array_equal(scale, 0 if module in last and not resnet_v2 else 1)


def test_weights_start_as_truncated_normal_of_fan_in_and_biases_at_zero(make_mini):
    chosen = ("mini/~/block_group_0/~/block_0/~/conv_1", "predictor/linear")
    params = initial_params(make_mini(), lambda module, name: module in chosen or name == "b")
    for module in chosen:
        w = params[module]["w"]
        unit = w * np.sqrt(np.prod(w.shape[:-1]))
        assert np.abs(unit).max() <= 2.0001
        # A normal variable cut at 2 has standard deviation 0.8796.
        assert abs(unit.std() - 0.8796) < 5 / np.sqrt(unit.size)
    for module in ("projector/linear", "predictor/linear", "classifier"):
        np.testing.assert_array_equal(params[module]["b"], 0)


def test_initialization_in_evaluation_mode_gives_the_full_state(make_mini):
    _, expected = tree_shapes(make_mini())
    _, state = jax.eval_shape(
        functools.partial(make_mini().init, is_training=False),
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32),
    )
    assert as_lists(state) == as_lists(expected)


# Parts, gradients, devices.


def test_parts_need_only_their_own_parameters(make_mini):
    forward = make_mini()
    params, state = formula_trees(forward)
    images = random_images(4, 16, 16, 3)
    apply = jit(forward.apply, static_argnums=4, static_argnames="part")
    everything, _ = apply(params, state, None, images, False)
    modules = {"target": ("mini/", "projector/"), "encoder": ("mini/",)}
    for part, prefixes in modules.items():
        needed = [
            {module: leaves for module, leaves in tree.items() if module.startswith(prefixes)}
            for tree in (params, state)
        ]
        assert as_lists(needed[0]) == as_lists(tree_shapes(forward, part=part)[0])
        outputs, new_state = apply(*needed, None, images, False, part=part)
        assert new_state.keys() == needed[1].keys()
        assert golden_data.relerr(outputs.embedding, everything.embedding) <= 1e-6
        assert (outputs.projection is None) == (part == "encoder")
        if part == "target":
            assert golden_data.relerr(outputs.projection, everything.projection) <= 1e-5
        assert outputs.prediction is None and outputs.logits is None


def test_classifier_sends_no_gradient_to_the_encoder(make_mini):
    forward = make_mini()
    params, state = formula_trees(forward)

    @jit
    @jax.grad
    def gradient(params):
        outputs, _ = forward.apply(params, state, None, random_images(4, 16, 16, 3), False)
        return jnp.sum(outputs.logits**2)

    for module, leaves in gradient(params).items():
        for leaf in leaves.values():
            assert np.any(leaf) == (module == "classifier"), module


def test_axis_synchronizes_batch_norm(make_mini):
    params, state = formula_trees(make_mini())
    images = random_images(8, 16, 16, 3)

    def embed(axis, images):
        return make_mini(axis=axis).apply(params, state, None, images, True, part="encoder")

    def over_four(axis):
        apply = jax.vmap(functools.partial(embed, axis), axis_name="devices")
        outputs, new_state = jit(apply)(images.reshape(4, 2, 16, 16, 3))
        return outputs.embedding.reshape(8, -1), new_state

    expected, expected_state = jit(functools.partial(embed, None))(images)
    embedding, new_state = over_four("devices")
    assert golden_data.relerr(embedding, expected.embedding) <= 1e-5
    for module, leaves in new_state.items():
        for name, leaf in leaves.items():
            assert golden_data.relerr(leaf[0], expected_state[module][name]) <= 1e-4
            np.testing.assert_array_equal(leaf[0], leaf[3])
    assert golden_data.relerr(over_four(None)[0], expected.embedding) > 1e-2


# Mistakes.


@pytest.mark.parametrize(
    "options, near, valid",
    [
        (dict(encoder="resnet5"), "resnet50", resnet.ENCODERS),
        (dict(encoder="tiny_resnet", stem="cifer"), "cifar", resnet.STEMS),
        (dict(encoder="tiny_resnet", padding="torhc"), "torch", resnet.PADDINGS),
    ],
)
def test_unknown_names_list_the_valid_ones(options, near, valid):
    with pytest.raises(ValueError, match=f"Did you mean '{near}'") as error:
        byol_network.make_forward(options.pop("encoder"), num_classes=2, **options)
    assert all(name in str(error.value) for name in valid)


def test_embedding_size_of_an_unknown_encoder():
    with pytest.raises(ValueError, match="resnet152"):
        resnet.embedding_size("resnet15")


def test_unknown_part_lists_the_valid_ones(make_mini):
    with pytest.raises(ValueError, match="online, target, encoder"):
        tree_shapes(make_mini(), part="predictor")


def test_integer_images_are_refused(make_mini):
    params, state = formula_trees(make_mini())
    with pytest.raises(TypeError, match="uint8"):
        make_mini().apply(params, state, None, np.zeros((1, 16, 16, 3), np.uint8), False)
