"""Linear heads: against a formula in NumPy, one by one, and on several devices."""

import jax
import numpy as np

from byol_jax.distributed import pmap
from byol_jax.evaluation import linear_probe

N, F, C, B, STEPS, SEED = 50, 6, 3, 16, 12, 4
RATES = (0.4, 0.1, 0.02)


def problem():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((N, F)).astype(np.float32)
    return features, rng.integers(0, C, N).astype(np.int32)


def trained(rates=RATES, **options):
    state = linear_probe.init(rates, total_steps=STEPS, embedding_size=F, num_classes=C, seed=SEED)
    return linear_probe.train(state, *problem(), batch_size=B, seed=SEED, **options)


def batches():
    """Indices as they should be drawn: one permutation after the other, cut into batches."""
    rng = np.random.default_rng(SEED)
    stream = np.concatenate([rng.permutation(N) for _ in range(-(-STEPS * B // N))])
    return stream[: STEPS * B].reshape(STEPS, B)


def slow_sgd(rate):
    """Softmax regression by SGD with Nesterov momentum, in float64."""
    state = linear_probe.init([rate], total_steps=STEPS, embedding_size=F, num_classes=C, seed=SEED)
    weights = np.asarray(state.heads.weights[0], np.float64)
    biases = np.zeros(C)
    speed = [np.zeros_like(weights), np.zeros_like(biases)]
    features, labels = problem()
    for step, chosen in enumerate(batches()):
        x, y = features[chosen].astype(np.float64), np.eye(C)[labels[chosen]]
        scores = np.exp(x @ weights + biases)
        error = (scores / scores.sum(1, keepdims=True) - y) / B
        now = rate * (1 + np.cos(np.pi * step / STEPS)) / 2
        for i, gradient in enumerate((x.T @ error, error.sum(0))):
            speed[i] = 0.9 * speed[i] + gradient
            change = now * (gradient + 0.9 * speed[i])
            if i:
                biases = biases - change
            else:
                weights = weights - change
    return weights, biases


def test_every_rate_of_a_sweep_agrees_with_the_formula():
    heads = trained()
    for which, rate in enumerate(RATES):
        weights, biases = slow_sgd(rate)
        np.testing.assert_allclose(heads.weights[which], weights, atol=2e-6)
        np.testing.assert_allclose(heads.biases[which], biases, atol=2e-6)


def test_a_sweep_agrees_with_separate_runs():
    together = trained()
    for which, rate in enumerate(RATES):
        alone = trained([rate])
        np.testing.assert_allclose(together.weights[which], alone.weights[0], atol=1e-6)


def test_how_much_is_handed_over_at_once_changes_nothing(monkeypatch):
    whole = trained()
    monkeypatch.setattr(linear_probe, "CHUNK_BYTES", 5 * B * F * 4)  # 5, 5 and 2 steps
    done = []
    parts = trained(on_steps=done.append)
    assert done == [5, 5, 2]
    np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-6)


def test_four_devices_agree_with_one():
    features, labels = problem()
    batch = {"features": features[:16], "labels": labels[:16]}
    state = linear_probe.init(RATES, total_steps=STEPS, embedding_size=F, num_classes=C, seed=SEED)
    one = linear_probe.update(state, batch["features"], batch["labels"])
    update = pmap.pmap_update(
        lambda s, b: (linear_probe.update(s, b["features"], b["labels"], axis=pmap.AXIS), {}, None)
    )
    four, _, _ = update(pmap.replicate(jax.device_get(state)), pmap.shard(batch))
    np.testing.assert_allclose(four.heads.weights, one.heads.weights, atol=1e-6)


def test_logits_of_a_head_in_chunks():
    heads, (features, _) = trained(), problem()
    expected = features @ heads.weights[1] + heads.biases[1]
    np.testing.assert_allclose(
        linear_probe.logits(heads, features, which=1, chunk=7), expected, 1e-6
    )


def test_regularized_logits_give_the_gradient_of_the_papers_loss():
    """Cross-entropy of alpha tanh(x / alpha), and beta times the mean of its squares."""
    rng = np.random.RandomState(0)
    features, labels = rng.standard_normal((6, 5)).astype(np.float32), np.arange(6) % 3
    rule = linear_probe.Regularization(clip=0.5, penalty=0.3)
    state = linear_probe.init([0.1], total_steps=10, embedding_size=5, num_classes=3, seed=0)

    def loss(weights):
        logits = features @ weights
        clipped = 0.5 * np.tanh(logits / 0.5)
        log_softmax = clipped - np.log(np.exp(clipped).sum(1, keepdims=True))
        return -log_softmax[np.arange(6), labels].mean() + 0.3 * (clipped**2).mean()

    weights = np.asarray(state.heads.weights[0], np.float64)
    numeric = np.zeros_like(weights)
    for place in np.ndindex(*weights.shape):
        step = np.zeros_like(weights)
        step[place] = 1e-5
        numeric[place] = (loss(weights + step) - loss(weights - step)) / 2e-5
    moved = linear_probe.update(state, features, labels, regularization=rule)
    # Nesterov's first step: 1 + 0.9 gradients.
    change = np.asarray(moved.heads.weights[0]) - weights
    np.testing.assert_allclose(change, -0.1 * 1.9 * numeric, atol=1e-6)
