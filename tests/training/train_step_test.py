"""Loss, gradients and whole training steps against the reference's recorded ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax.augment import image_ops, two_views
from byol_jax.distributed import global_mesh, multihost, pmap
from byol_jax.models import byol_network, inference
from byol_jax.objectives import table
from byol_jax.training import optimizers, step_loss, train_step
from tests.support import golden_data

LOSS = golden_data.load("loss_grads")
LOSS_CASES = golden_data.config(LOSS)
RUN = golden_data.load("trajectory")
RUN_CONFIG = golden_data.config(RUN)
# Deeper networks take a minute to compile with their gradients.
FAST_AND_SLOW = [
    pytest.param(case, marks=[] if case == "tiny_v1" else pytest.mark.slow) for case in LOSS_CASES
]
BEFORE_NORM = ("projector/linear", "predictor/linear")  # their biases have no effect


def formula_state(config, forward, optimizer=None):
    """The state that golden files start from; the target without the heads that nothing reads."""
    images = jnp.zeros((1, config["image_size"], config["image_size"], 3))
    init = functools.partial(forward.init, is_training=True)
    params, state = jax.eval_shape(init, jax.random.key(0), images)
    kept = [{m: v for m, v in tree.items() if golden_data.is_kept(m)} for tree in (params, state)]
    online_params = golden_data.formula_tree(params, config["online_salt"])
    return train_step.TrainState(
        step=np.int32(0),
        online_params=online_params,
        target_params=golden_data.formula_tree(kept[0], config["target_salt"]),
        online_state=golden_data.formula_tree(
            state, config["online_salt"], config["online_counter"]
        ),
        target_state=golden_data.formula_tree(
            kept[1], config["target_salt"], config["target_counter"]
        ),
        opt_state=optimizer.init(online_params) if optimizer else (),
    )


def cast(state, dtype):
    return jax.tree.map(
        lambda x: x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x,
        jax.device_get(state),
    )


# Loss and gradients of one step.


@functools.cache
def loss_and_grads(case):
    """Deep networks in float64: rounding that turns one ReLU moves their gradients by 1e-3."""
    config = LOSS_CASES[case]
    dtype = np.float32 if case.startswith("tiny") else np.float64
    forward = golden_data.make_forward(config)
    with jax.enable_x64(dtype is np.float64):
        views = [golden_data.images(LOSS[f"{case}|images_view{i}"], dtype) for i in (1, 2)]
        loss = step_loss.make_loss(forward, table.OBJECTIVES["byol"])
        state = cast(formula_state(config, forward), dtype)
        return jax.device_get(
            jax.jit(jax.value_and_grad(loss, has_aux=True))(
                state.online_params, state, tuple(views), LOSS[f"{case}|labels"]
            )
        )


@pytest.mark.parametrize("case", FAST_AND_SLOW)
def test_losses_equal_the_reference(case):
    (loss, (scalars, *_)), _ = loss_and_grads(case)
    for ours, theirs in [("repr_loss", "repr_loss"), ("online_loss", "classif_loss")]:
        np.testing.assert_allclose(scalars[ours], LOSS[f"{case}|{theirs}"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(loss, LOSS[f"{case}|loss"], atol=1e-5, rtol=0)
    assert scalars["online_top1"] == LOSS[f"{case}|top1_accuracy"]
    assert scalars["online_top5"] == LOSS[f"{case}|top5_accuracy"]


@pytest.mark.parametrize("case", FAST_AND_SLOW)
def test_batch_norm_states_after_a_step_equal_the_reference(case):
    (_, (_, online_state, target_state, *_)), _ = loss_and_grads(case)
    golden_data.assert_summary(LOSS, f"{case}|online_state_summary", online_state, tolerance=1e-5)
    golden_data.assert_summary(
        LOSS,
        f"{case}|target_state_summary",
        target_state,
        tolerance=1e-5,
        only=golden_data.is_kept,
    )


@pytest.mark.parametrize("case", FAST_AND_SLOW)
def test_gradients_equal_the_reference(case):
    _, grads = loss_and_grads(case)
    for module, leaves in golden_data.tree(LOSS, f"{case}|grad").items():
        for name, expected in leaves.items():
            if module in BEFORE_NORM and name == "b":
                assert np.abs(grads[module][name]).max() < 1e-5
            else:
                assert golden_data.relerr(grads[module][name], expected) < 2e-4, (module, name)


@pytest.mark.slow
@pytest.mark.parametrize("case", FAST_AND_SLOW)
def test_gradient_norms_equal_the_reference(case):
    _, grads = loss_and_grads(case)
    keys = [str(key).split("|") for key in LOSS[f"{case}|grad_summary|names"]]
    assert len(keys) == len(jax.tree.leaves(grads))
    norms, first8 = (LOSS[f"{case}|grad_summary|{name}"] for name in ("norm", "first8"))
    for (module, name), norm, first in zip(keys, norms, first8, strict=True):
        if module in BEFORE_NORM and name == "b":
            continue
        actual = np.asarray(grads[module][name])
        np.testing.assert_allclose(np.linalg.norm(actual), norm, rtol=1e-4)
        first = first[~np.isnan(first)]
        np.testing.assert_allclose(actual.ravel()[: len(first)], first, atol=1e-4 * norm, rtol=0)
    global_norm = optax.tree.norm(grads)
    np.testing.assert_allclose(global_norm, LOSS[f"{case}|grad_global_norm"], rtol=1e-4)


# Twenty steps of training.


@functools.cache
def golden_run(num_devices, *, dtype=np.float32, synchronized=True, is_global=False):
    """Our update as the reference's run had it, and the state it starts from.

    It runs as with one process, or with global arrays, as with several.
    """
    config = RUN_CONFIG
    learning_rate = optimizers.learning_rate_schedule(
        config["base_learning_rate"],
        batch_size=config["batch_size"],
        total_steps=config["max_steps"],
        warmup_steps=config["warmup_steps"],
    )
    optimizer = optimizers.lars(
        learning_rate,
        weight_decay=config["weight_decay"],
        momentum=config["momentum"],
        trust_coefficient=config["eta"],
    )
    forward = golden_data.make_forward(config, axis=pmap.AXIS if synchronized else None)
    update = train_step.make_update(
        step_loss.make_loss(forward, table.OBJECTIVES["byol"]),
        optimizer,
        lambda key, batch: (batch["view1"], batch["view2"]),
        seed=0,
        learning_rate=learning_rate,
        target_ema=optimizers.cosine_target_ema_schedule(
            config["base_target_ema"], total_steps=config["max_steps"]
        ),
        axis=pmap.AXIS,
    )
    state = cast(formula_state(config, golden_data.make_forward(config), optimizer), dtype)
    if is_global:
        return global_mesh.GlobalUpdate(update, pmap.AXIS), state
    return pmap.pmap_update(update, num_devices=num_devices), state


def golden_batch(step, num_devices, dtype=np.float32):
    batch = {
        "view1": golden_data.images(RUN["images_view1"][step], dtype),
        "view2": golden_data.images(RUN["images_view2"][step], dtype),
        "labels": RUN["labels"][step].astype(np.int32),
    }
    return pmap.shard(batch, num_devices=num_devices)


@functools.cache
def train(num_devices, *, dtype=np.float32, is_global=False, **options):
    """All steps: the final state, and the scalars of every step as arrays."""
    update, state = golden_run(num_devices, dtype=dtype, is_global=is_global, **options)
    if is_global:
        state = global_mesh.replicate(state, pmap.AXIS)
    else:
        state = pmap.replicate(state, num_devices=num_devices)
    rows = []
    for step in range(RUN_CONFIG["num_steps"]):
        state, scalars, _ = update(state, golden_batch(step, num_devices, dtype))
        rows.append(jax.device_get(scalars))
    multihost.assert_replicated(state)
    return jax.device_get(state), {key: np.array([row[key] for row in rows]) for key in rows[0]}


LOGS = {
    "loss": "loss",
    "repr_loss": "repr_loss",
    "classif_loss": "online_loss",
    "learning_rate": "learning_rate",
    "tau": "tau",
}


def assert_logs_close(actual, prefix, *, atol):
    for theirs, ours in LOGS.items():
        if f"{prefix}|{theirs}" in RUN:
            np.testing.assert_allclose(
                actual[ours], RUN[f"{prefix}|{theirs}"], atol=atol, rtol=0, err_msg=ours
            )


def assert_state_close(state, prefix, *, params_atol, state_atol):
    for name, atol in [
        ("online_params", params_atol),
        ("target_params", params_atol),
        ("online_state", state_atol),
        ("target_state", state_atol),
    ]:
        expected = golden_data.tree(RUN, f"{prefix}|{name}")
        if name.startswith("target"):
            expected = {m: leaves for m, leaves in expected.items() if golden_data.is_kept(m)}
        if expected:
            golden_data.assert_trees_close(getattr(state, name), expected, atol=atol)


def stored_state(step):
    """The reference's state after some steps; ours has other containers around the momentum."""
    _, start = golden_run(1)
    if step == 0:
        return start
    trees = {
        name: golden_data.tree(RUN, f"step{step}|{name}")
        for name in ("online_params", "target_params", "online_state", "target_state")
    }
    for name in ("target_params", "target_state"):
        trees[name] = {m: v for m, v in trees[name].items() if golden_data.is_kept(m)}
    momentum = golden_data.tree(RUN, f"step{step}|momentum")
    opt_state = optax.tree_utils.tree_set(start.opt_state, trace=momentum, count=np.int32(step))
    return train_step.TrainState(step=np.int32(step), opt_state=opt_state, **trees)


STORED = sorted(
    {int(key.split("|")[0][4:]) for key in RUN if key.startswith("step") and "momentum" in key}
)
SINGLE_STEPS = [step for step in STORED if step - 1 in (0, *STORED)]


@pytest.mark.parametrize("step", SINGLE_STEPS)
def test_one_step_from_a_stored_state_equals_the_reference(step):
    update, _ = golden_run(1)
    state = pmap.replicate(stored_state(step - 1), num_devices=1)
    state, scalars, _ = update(state, golden_batch(step - 1, 1))
    assert_state_close(state, f"step{step}", params_atol=1e-6, state_atol=2e-5)
    for theirs, ours in LOGS.items():
        np.testing.assert_allclose(scalars[ours], RUN[f"log|{theirs}"][step - 1], atol=2e-5, rtol=0)
    momentum = optax.tree_utils.tree_get(state.opt_state, "trace")
    for module, leaves in golden_data.tree(RUN, f"step{step}|momentum").items():
        for name, expected in leaves.items():
            if module in BEFORE_NORM and name == "b":
                np.testing.assert_allclose(momentum[module][name], expected, atol=1e-5, rtol=0)
            else:
                assert golden_data.relerr(momentum[module][name], expected) < 2e-4, (module, name)


def test_twenty_steps_on_one_device_equal_the_reference():
    state, logs = train(1)
    assert_logs_close(logs, "log", atol=1e-3)
    assert_state_close(state, f"step{RUN_CONFIG['num_steps']}", params_atol=5e-5, state_atol=1e-3)


@pytest.mark.slow
def test_twenty_steps_on_four_devices_equal_the_reference():
    state, logs = train(4)
    assert_logs_close(logs, "dev4|log", atol=1e-3)
    assert_state_close(
        state, f"dev4|step{RUN_CONFIG['num_steps']}", params_atol=5e-5, state_atol=1e-3
    )


@pytest.mark.slow
def test_four_devices_equal_one_to_rounding_in_float64():
    with jax.enable_x64(True):
        one, logs1 = train(1, dtype=np.float64)
        four, logs4 = train(4, dtype=np.float64)
    assert one.online_params["projector/linear"]["w"].dtype == np.float64
    for name in ("online_params", "target_params", "online_state", "target_state"):
        golden_data.assert_trees_close(getattr(one, name), getattr(four, name), atol=1e-9)
    for name in logs1:
        np.testing.assert_allclose(logs1[name], logs4[name], atol=1e-9, rtol=0, err_msg=name)


@pytest.mark.slow
def test_the_program_of_several_processes_equals_pmap_to_rounding_in_float64():
    with jax.enable_x64(True):
        mapped, logs = train(4, dtype=np.float64)
        whole, logs_of_whole = train(4, dtype=np.float64, is_global=True)
    assert_logs_close(logs_of_whole, "dev4|log", atol=1e-3)
    for name in train_step.TrainState._fields:
        for a, b in zip(
            *(jax.tree.leaves(getattr(state, name)) for state in (mapped, whole)), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-9, rtol=0, err_msg=name)
    for name in logs:
        np.testing.assert_allclose(logs[name], logs_of_whole[name], atol=1e-9, rtol=0, err_msg=name)


@pytest.mark.slow
def test_without_synchronized_batch_norm_four_devices_differ():
    """The tests above would notice a missing reduction."""
    with pytest.raises(AssertionError):
        _, logs = train(4, synchronized=False)
        assert_logs_close(logs, "dev4|log", atol=1e-3)


# Views and initial states.


def test_views_of_a_step_depend_on_seed_and_step_alone():
    make_views = two_views.make_views(
        image_ops.BYOL_VIEW1,
        image_ops.BYOL_VIEW2,
        image_size=8,
        area_range=(0.3, 1.0),
        method="linear",
    )
    images = np.random.RandomState(0).randint(0, 256, (4, 12, 12, 3)).astype(np.uint8)

    @jax.jit
    def views(seed, step):
        return make_views(pmap.step_key(seed, step), {"images": images})

    first, again, other_step, other_seed = views(1, 5), views(1, 5), views(1, 6), views(2, 5)
    np.testing.assert_array_equal(first, again)
    for other in (other_step, other_seed):
        assert np.abs(np.asarray(first) - np.asarray(other)).mean() > 0.01
    assert np.abs(np.asarray(first[0]) - np.asarray(first[1])).mean() > 0.01


def _small_views(key, batch):
    """Views that compile in no time, and need as much memory as real ones."""
    drawn = jax.random.uniform(key, (2, 64))[:, batch["place"]]
    pixels = batch["images"].astype(jnp.float32) / 255
    return tuple(jnp.sort(pixels * each[:, None, None, None], axis=1) for each in drawn)


def _views_of_micro_batches(parts, make_views):
    """An update of 64 images that gives the mean of each view of each image as its projection."""

    def loss(online_params, state, views, labels, weights, key):
        del labels, weights, key
        seen = jnp.stack([view.mean(axis=(1, 2, 3)) for view in views], axis=1)
        return online_params["m"]["w"], ({}, state.online_state, state.target_state, (), seen)

    update = train_step.make_update(
        loss,
        optax.sgd(1.0),
        make_views,
        seed=3,
        learning_rate=lambda step: 1.0,
        target_ema=lambda step: 1.0,
        axis=None,
        parts=parts,
    )
    params, nothing = {"m": {"w": jnp.zeros(())}}, jnp.zeros(())
    state = train_step.TrainState(
        jnp.int32(0), params, params, nothing, nothing, optax.sgd(1.0).init(params)
    )
    images = np.random.default_rng(0).integers(0, 256, (64, 40, 40, 3)).astype(np.uint8)
    place = np.arange(64, dtype=np.int32)
    batch = {"images": images, "labels": np.zeros(64, np.int32), "place": place}
    return jax.jit(update).lower(state, batch).compile(), (state, batch)


@functools.cache
def _views_of_parts(parts, make_views=_small_views):
    compiled, arguments = _views_of_micro_batches(parts, make_views)
    _, _, seen = compiled(*arguments)
    return np.asarray(seen), compiled.memory_analysis().temp_size_in_bytes


def test_micro_batches_bound_the_memory_of_augmentations():
    assert _views_of_parts(8)[1] < _views_of_parts(1)[1] / 4


BYOL_VIEWS = two_views.make_views(
    image_ops.BYOL_VIEW1,
    image_ops.BYOL_VIEW2,
    image_size=16,
    area_range=(0.3, 1.0),
    method="linear",
    batch_size=64,
)


@pytest.mark.parametrize(
    "make_views",
    [_small_views, pytest.param(BYOL_VIEWS, marks=pytest.mark.slow)],
    ids=["small", "byol"],
)
def test_what_happens_to_an_image_does_not_depend_on_its_micro_batch(make_views):
    whole, parts = _views_of_parts(1, make_views)[0], _views_of_parts(8, make_views)[0]
    np.testing.assert_allclose(parts, whole, atol=1e-6, rtol=0)  # what is drawn is the same


def test_views_that_the_host_has_cut_are_not_cut_again():
    plain = image_ops.BYOL_VIEW1._replace(
        **{name: 0.0 for name in image_ops.View._fields if name.endswith("_probability")}
    )
    flipped = plain._replace(flip_probability=1.0)
    make_views = two_views.make_views(
        plain, flipped, image_size=8, area_range=(0.3, 0.5), method="linear"
    )
    random = np.random.RandomState(0)
    cut = [random.randint(0, 256, (3, 8, 8, 3)).astype(np.uint8) for _ in range(2)]
    views = jax.jit(make_views)(jax.random.key(0), {"view1": cut[0], "view2": cut[1]})
    for view, expected in zip(views, (cut[0], cut[1][:, :, ::-1]), strict=True):
        np.testing.assert_allclose(view, golden_data.images(expected), atol=1e-6, rtol=0)


def test_without_labels_the_network_has_no_classifier_and_no_logits():
    config = RUN_CONFIG | {"num_classes": 0}
    forward = golden_data.make_forward(config)
    images = jnp.zeros((2, config["image_size"], config["image_size"], 3))
    init = functools.partial(forward.init, is_training=True)
    params, state = jax.eval_shape(init, jax.random.key(0), images)
    whole, _ = jax.eval_shape(
        functools.partial(golden_data.make_forward(RUN_CONFIG).init, is_training=True),
        jax.random.key(0),
        images,
    )
    assert params.keys() == whole.keys() - {"classifier"}
    apply = functools.partial(forward.apply, is_training=True)
    outputs, _ = jax.eval_shape(apply, params, state, None, images)
    assert outputs.logits is None and outputs.prediction.shape == outputs.projection.shape


@pytest.mark.slow
def test_target_starts_from_another_key_and_without_predictor_and_classifier():
    forward = golden_data.make_forward(RUN_CONFIG)
    optimizer = optax.sgd(0.1)
    state = train_step.init_state(forward, optimizer, seed=0, image_size=RUN_CONFIG["image_size"])
    roots = {module.split("/")[0] for module in state.target_params}
    assert roots == {"tiny_res_net", "projector"}
    online = state.online_params["projector/linear"]["w"]
    assert np.abs(online - state.target_params["projector/linear"]["w"]).max() > 0.01


# Images without labels.


class _Linear:
    """A forward function of one matrix, so that losses can be written down."""

    def apply(self, params, state, _, view, *, is_training, part="all"):
        del is_training, part
        return byol_network.Outputs(view, view, view, view @ params["classifier"]["w"]), state


def _partly_labeled_update(labels, *, num_devices, parts):
    """Gradient of one step's loss with respect to the classifier, and its metrics."""
    rng = np.random.default_rng(0)
    views = rng.normal(size=(2, 16, 6)).astype(np.float32)
    weights = rng.normal(size=(6, 7)).astype(np.float32)
    params = {"classifier": {"w": weights}}
    update = train_step.make_update(
        step_loss.make_loss(_Linear(), table.OBJECTIVES["byol"]),
        optax.sgd(1.0),
        lambda key, batch: (batch["view1"], batch["view2"]),
        seed=0,
        learning_rate=lambda step: 1.0,
        target_ema=lambda step: 1.0,
        axis=pmap.AXIS,
        parts=parts,
    )
    state = train_step.TrainState(
        np.int32(0), params, params, np.float32(0), np.float32(0), optax.sgd(1.0).init(params)
    )
    batch = {"view1": views[0], "view2": views[1], "labels": np.asarray(labels, np.int32)}
    after, scalars, _ = pmap.pmap_update(update, num_devices=num_devices)(
        pmap.replicate(state, num_devices=num_devices),
        pmap.shard(batch, num_devices=num_devices),
    )
    moved = weights - np.asarray(after.online_params["classifier"]["w"])
    return views[0], weights, moved, jax.device_get(scalars)


PARTLY_LABELED = [3, -1, -1, -1, 0, -1, 6, 6, -1, -1, -1, -1, -1, -1, -1, 2]


@pytest.mark.parametrize(("num_devices", "parts"), [(1, 1), (4, 1), (2, 4)])
def test_the_classifier_learns_from_labeled_images_of_the_whole_batch(num_devices, parts):
    images, weights, gradient, scalars = _partly_labeled_update(
        PARTLY_LABELED, num_devices=num_devices, parts=parts
    )
    kept = np.flatnonzero(np.array(PARTLY_LABELED) >= 0)
    labels = np.array(PARTLY_LABELED)[kept]
    logits = (images[kept] @ weights).astype(np.float64)
    fractions = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = -np.log(fractions[np.arange(len(kept)), labels]).mean()
    expected = images[kept].T @ (fractions - np.eye(7)[labels]) / len(kept)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    np.testing.assert_allclose(scalars["online_loss"], loss, rtol=1e-5)
    rank = (-logits).argsort(axis=1).argsort(axis=1)[np.arange(len(kept)), labels]
    for k in (1, 5):
        np.testing.assert_allclose(scalars[f"online_top{k}"], (rank < k).mean(), rtol=1e-6)
    assert scalars["labeled_share"] == len(kept) / len(PARTLY_LABELED)


def test_a_batch_without_labels_moves_the_classifier_nowhere():
    _, _, gradient, scalars = _partly_labeled_update([-1] * 16, num_devices=2, parts=2)
    assert not gradient.any() and scalars["online_loss"] == scalars["labeled_share"] == 0


@pytest.mark.parametrize("size", [7, 49, 64, 1000])
def test_if_all_have_labels_each_weighs_exactly_one(size):
    weights, fraction = jax.jit(lambda x: train_step.label_weights(x, axis=None))(
        np.zeros(size, int)
    )
    assert (np.asarray(weights) == 1).all() and fraction == 1


def test_images_are_resized_as_the_reference_does_without_smoothing():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3)).astype(np.uint8)
    shape, scaled = (2, 4, 4, 3), golden_data.images(pixels)
    plain, smoothed = (
        np.clip(jax.image.resize(scaled, shape, "cubic", antialias=antialias), 0, 1)
        for antialias in (False, True)
    )
    np.testing.assert_allclose(inference.resize(pixels, 4), plain, atol=1e-6)
    assert np.abs(plain - smoothed).max() > 0.1
    np.testing.assert_array_equal(inference.resize(pixels, 9), scaled)
