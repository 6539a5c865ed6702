"""Training a network and a head that predict every pixel: what moves, and on how many devices."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.distributed import pmap
from byol_jax.evaluation import pixel_training
from byol_jax.models import batch_norm, byol_network
from byol_jax.objectives import dense


def make_norm(axis):
    return batch_norm.BatchNorm(
        decay_rate=0.9, eps=1e-5, zero_scale=False, axis=axis, groups=None, name="batchnorm"
    )


def make_forward(axis):
    """One convolution with batch norm in place of an encoder, another one as its head."""

    def encoder(images, is_training, *, part):
        assert part == "maps"
        x = make_norm(axis)(hk.Conv2D(4, 3, name="conv")(images), is_training or hk.running_init())
        return byol_network.Outputs(None, maps=(x,))

    def head(x, is_training):
        return hk.Conv2D(3, 1, name="classifier")(make_norm(axis)(jax.nn.relu(x), is_training))

    return pixel_training.Forward(hk.transform_with_state(encoder), pixel_training.make_head(head))


def make_state(is_frozen):
    forward = make_forward(None)
    params, state = forward.encoder.init(
        jax.random.key(0), jnp.zeros((1, 5, 5, 3)), True, part="maps"
    )
    head = pixel_training.init_head(forward.head, 4, seed=1)
    network = pixel_training.Network(params, state, *head)
    trial = pixel_training.Trial(0.1, 1e-2, 10)
    return jax.device_get(pixel_training.init_state(network, trial, is_frozen=is_frozen))


def make_update(axis, is_frozen=False):
    return pixel_training.make_update(
        make_forward(axis),
        lambda logits, labels, axis: dense.cross_entropy(logits, labels, ignored=255, axis=axis),
        lambda batch: batch["image"],
        pixel_training.two_drops,
        is_frozen=is_frozen,
        axis=axis,
    )


@functools.cache
def batch():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (8, 5, 5))
    labels[0], labels[1, 2:] = 255, 255
    return {"image": rng.random((8, 5, 5, 3)).astype(np.float32), "target": labels}


@pytest.mark.slow
def test_four_devices_do_what_one_does():
    one, _, _ = jax.jit(make_update(None))(make_state(False), batch())
    many = pmap.pmap_update(make_update(pmap.AXIS))
    four, _, _ = many(pmap.replicate(make_state(False)), pmap.shard(batch()))
    for a, b in zip(*map(jax.tree.leaves, (one, four)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def make_depth_update(axis):
    return pixel_training.make_update(
        make_forward(axis),
        lambda found, depth, axis: dense.reverse_huber(found[..., 0], depth, axis=axis),
        lambda batch: batch["image"],
        pixel_training.two_drops,
        is_frozen=False,
        axis=axis,
    )


@pytest.mark.slow
def test_in_float64_four_devices_do_what_one_does_for_twenty_steps_of_depth():
    """In float32 rounding grows at the kinks of ReLU and of the loss, which is no fault."""
    rng = np.random.default_rng(1)
    depth = rng.uniform(1, 4, (8, 5, 5)) * (
        rng.random((8, 5, 5)) < np.linspace(0, 1, 8)[:, None, None]
    )
    start = make_state(False)
    with jax.enable_x64(True):
        one, example = jax.tree.map(_doubled, (start, {"image": batch()["image"], "target": depth}))
        four, steps = pmap.replicate(one), jax.jit(make_depth_update(None))
        many = pmap.pmap_update(make_depth_update(pmap.AXIS))
        for _ in range(20):
            one, _, _ = steps(one, example)
            four, _, _ = many(four, pmap.shard(example))
        for a, b in zip(*map(jax.tree.leaves, jax.device_get((one, four))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def _doubled(x):
    x = np.asarray(x)
    return x.astype(np.float64) if x.dtype == np.float32 else x


def test_a_frozen_encoder_does_not_move_and_its_statistics_neither():
    before = make_state(True)
    after, _, _ = jax.jit(make_update(None, is_frozen=True))(before, batch())
    for name in ("encoder", "encoder_state"):
        pairs = zip(*(jax.tree.leaves(getattr(s.network, name)) for s in (before, after)),
                    strict=True)  # fmt: skip
        assert all(np.array_equal(a, b) for a, b in pairs)
    moved = after.network.head["classifier"]["w"] != before.network.head["classifier"]["w"]
    assert moved.all() and after.step == 1


def test_weights_decay_and_biases_and_norms_do_not():
    ignored = batch() | {"target": np.full((8, 5, 5), 255)}
    before = make_state(False)
    after, metrics, _ = jax.jit(make_update(None))(before, ignored)
    assert metrics["loss"] == 0
    old, new = before.network.head, after.network.head
    np.testing.assert_allclose(
        new["classifier"]["w"], old["classifier"]["w"] * (1 - 0.1 * 1e-2), rtol=1e-6
    )
    for module, name in (("classifier", "b"), ("batchnorm", "scale"), ("batchnorm", "offset")):
        np.testing.assert_array_equal(new[module][name], old[module][name])


@pytest.mark.parametrize("total, drops", [(30_000, (21_000, 27_000)), (10, (7, 9))])
def test_the_rate_drops_at_70_and_90_percent(total, drops):
    steps = jnp.arange(total)
    rates = np.asarray(jax.vmap(lambda s: pixel_training.two_drops(s, total))(steps))
    assert tuple(np.flatnonzero(np.diff(rates)) + 1) == drops
    np.testing.assert_allclose(np.unique(rates), [0.01, 0.1, 1])
