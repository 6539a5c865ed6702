"""One step of supervised training against a formula, and on four devices against one."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.distributed import pmap
from byol_jax.evaluation import finetune
from byol_jax.models import byol_network

IMAGES = np.random.default_rng(0).random((8, 2, 2, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2, 1, 1], np.int32)
TRIAL = finetune.Trial(0.5, 0.1, 4, 0)
BATCH = {"images": IMAGES, "labels": LABELS}


def forward():
    """A linear 'encoder' that, like batch norm, remembers something of its batch."""

    def apply(images, is_training, part):
        assert part == "encoder"
        del is_training
        count = hk.get_state("count", (), init=jnp.zeros)
        hk.set_state("count", count + 1)
        return byol_network.Outputs(hk.Linear(4, name="linear")(images.reshape(len(images), -1)))

    return hk.transform_with_state(apply)


def network():
    key = jax.random.key(1)
    encoder, state = forward().init(key, jnp.zeros((1, 2, 2, 3)), is_training=True, part="encoder")
    return finetune.Network(encoder, finetune.init_head(4, 3, seed=2), state)


def trained(steps, *, devices=1):
    axis = pmap.AXIS if devices > 1 else None
    update = finetune.make_update(forward(), lambda key, batch: batch["images"], axis=axis)
    run = pmap.pmap_update(update, num_devices=devices)
    start = jax.device_get(finetune.init_state(network(), TRIAL))
    state = pmap.replicate(start, num_devices=devices)
    for _ in range(steps):
        state, scalars, _ = run(state, pmap.shard(BATCH, num_devices=devices))
    return jax.device_get(state), jax.device_get(scalars)


def slow_steps(steps):
    """The same in NumPy and float64: decay into the gradient of weights, Nesterov, cosine."""
    start = jax.device_get(network())
    w1, b1 = (np.float64(start.encoder["linear"][name]) for name in "wb")
    w2, b2 = (np.float64(start.head["classifier"][name]) for name in "wb")
    values, speeds = [w1, b1, w2, b2], [0, 0, 0, 0]
    x, y = IMAGES.reshape(8, -1).astype(np.float64), np.eye(3)[LABELS]
    for step in range(steps):
        w1, b1, w2, b2 = values
        embedding = x @ w1 + b1
        scores = np.exp(embedding @ w2 + b2)
        error = (scores / scores.sum(1, keepdims=True) - y) / len(x)
        back = error @ w2.T
        grads = [x.T @ back, back.sum(0), embedding.T @ error, error.sum(0)]
        rate = TRIAL.learning_rate * (1 + np.cos(np.pi * step / TRIAL.total_steps)) / 2
        for i in range(4):
            grad = grads[i] + (TRIAL.weight_decay * values[i] if i in (0, 2) else 0)
            speeds[i] = 0.9 * speeds[i] + grad
            values[i] = values[i] - rate * (grad + 0.9 * speeds[i])
    return values


def weights_of(state):
    layers = state.network.encoder["linear"], state.network.head["classifier"]
    return [layer[name] for layer in layers for name in "wb"]


def test_steps_agree_with_the_formula():
    state, _ = trained(3)
    for ours, expected in zip(weights_of(state), slow_steps(3), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert state.step == 3 and state.network.state["~"]["count"] == 3


def test_four_devices_agree_with_one():
    (one, scalars), (four, others) = trained(2), trained(2, devices=4)
    for ours, theirs in zip(weights_of(four), weights_of(one), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for name in ("loss", "top1"):
        np.testing.assert_allclose(scalars[name], others[name], rtol=1e-6)


def test_the_classifier_is_applied_in_inference_mode():
    start = network()
    logits = finetune.make_classify(forward())(start, IMAGES)
    embedding = IMAGES.reshape(8, -1) @ start.encoder["linear"]["w"] + start.encoder["linear"]["b"]
    expected = embedding @ start.head["classifier"]["w"] + start.head["classifier"]["b"]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
