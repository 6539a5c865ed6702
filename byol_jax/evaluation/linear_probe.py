"""Linear classifiers on a frozen encoder's output, for several learning rates in one program.

The rates share every batch of features, so that a sweep costs about as much as one run. Shapes:
R learning rates, N images, b of a batch, F embedding size, C classes.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.objectives import byol
from byol_jax.training import optimizers

CHUNK_BYTES = 64 << 20  # of features that are handed to the device at once

_TRACE = optax.trace(0.9, nesterov=True)


class Heads(NamedTuple):
    """A linear classifier for each learning rate.

    Attributes:
      weights: [R, F, C].
      biases: [R, C].
    """

    weights: jax.Array
    biases: jax.Array


class Regularization(NamedTuple):
    """Of logits, in training (paper, appendix C.1 and table 7); 0: none.

    Attributes:
      clip: alpha; logits become alpha tanh(logits / alpha), which is never larger than alpha.
      penalty: beta; times the mean square of these, in addition to their cross-entropy.
    """

    clip: float = 0.0
    penalty: float = 0.0


UNREGULARIZED = Regularization()


class State(NamedTuple):
    """All that training changes, and how; arrays, so that seeds and rates share a program."""

    step: jax.Array  # int32: updates done
    total_steps: jax.Array
    learning_rates: jax.Array  # [R], at the first step; they decay to 0 by a cosine
    heads: Heads
    momentum: optax.TraceState


def init(
    learning_rates: Sequence[float],
    *,
    total_steps: int,
    embedding_size: int,
    num_classes: int,
    seed: int,
) -> State:
    """Heads that all start alike, with `draw_weights` and no bias."""
    copies = len(learning_rates)
    drawn = draw_weights(embedding_size, num_classes, seed=seed)
    heads = Heads(jnp.stack([drawn] * copies), jnp.zeros((copies, num_classes)))
    steps = jnp.asarray(total_steps, jnp.int32)
    rates = jnp.asarray(learning_rates, jnp.float32)
    return State(jnp.zeros((), jnp.int32), steps, rates, heads, _TRACE.init(heads))


def draw_weights(embedding_size: int, num_classes: int, *, seed: int) -> jax.Array:
    """Weights [F, C] of an untrained classifier, of std 1 / sqrt(F), as Haiku's."""
    shape = (embedding_size, num_classes)
    drawn = jax.random.truncated_normal(jax.random.key(seed), -2, 2, shape)
    return drawn / np.sqrt(embedding_size)


def update(
    state: State,
    features: jax.Array,
    labels: jax.Array,
    *,
    axis: str | None = None,
    regularization: Regularization = UNREGULARIZED,
) -> State:
    """One step of SGD with Nesterov momentum of all heads (paper, appendix C.1).

    Args:
      state: to start from.
      features: [b, F], taken as they are.
      labels: [b] in [0, C).
      axis: name of the mapped axis to average gradients over; None outside of a map.
      regularization: of the logits.
    """
    clip, penalty = regularization

    def loss(heads: Heads) -> jax.Array:
        logits = jax.vmap(_logits, (0, None))(heads, features)  # [R, b, C]
        if clip:
            logits = clip * jnp.tanh(logits / clip)
        losses = jax.vmap(byol.cross_entropy, (0, None))(logits, labels)  # [R, b]
        if penalty:
            losses += penalty * jnp.mean(jnp.square(logits), axis=-1)
        return jnp.sum(jnp.mean(losses, axis=1))  # no head sees another's

    grads = jax.grad(loss)(state.heads)
    if axis:
        grads = jax.lax.pmean(grads, axis)
    updates, momentum = _TRACE.update(grads, state.momentum)
    rates = state.learning_rates * optimizers.cosine(state.step, state.total_steps)
    heads = Heads(
        state.heads.weights - rates[:, None, None] * updates.weights,
        state.heads.biases - rates[:, None] * updates.biases,
    )
    return state._replace(step=state.step + 1, heads=heads, momentum=momentum)


def _logits(head: Heads, features: jax.Array) -> jax.Array:
    return features @ head.weights + head.biases


def logits(heads: Heads, features: np.ndarray, *, which: int, chunk: int = 8192) -> np.ndarray:
    """What one of the heads makes of features [N, F]: [N, C]."""
    head = Heads(np.asarray(heads.weights[which]), np.asarray(heads.biases[which]))
    starts = range(0, len(features), chunk)
    return np.concatenate([_logits(head, features[start : start + chunk]) for start in starts])


def train(
    state: State,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    regularization: Regularization = UNREGULARIZED,
    on_steps: Callable[[int], None] = lambda steps: None,
) -> Heads:
    """Trains on features that are there already, shuffled anew in every epoch.

    Args:
      state: what `init` gives.
      features: [N, F].
      labels: [N].
      batch_size: b, at most N; batches cross the borders of epochs, so that none is smaller.
      seed: of the order.
      regularization: of the logits.
      on_steps: told of every few steps that are done, for a progress bar.
    """
    total_steps = int(state.total_steps)
    length = max(1, CHUNK_BYTES // (batch_size * features[0].nbytes))
    indices = _batches(len(features), batch_size, seed)
    for start in range(0, total_steps, length):
        steps = min(length, total_steps - start)
        chosen = np.stack([next(indices) for _ in range(steps)])
        state = _update_often(
            state, features[chosen], labels[chosen], regularization=regularization
        )
        on_steps(steps)
    return jax.device_get(state.heads)


@functools.partial(jax.jit, donate_argnums=0, static_argnames="regularization")
def _update_often(
    state: State, features: jax.Array, labels: jax.Array, *, regularization: Regularization
) -> State:
    """One step a batch of features [steps, b, F] and labels [steps, b]."""

    def step(state: State, batch: tuple[jax.Array, jax.Array]) -> tuple[State, None]:
        return update(state, *batch, regularization=regularization), None

    return jax.lax.scan(step, state, (features, labels))[0]


def _batches(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless indices [b] of one permutation after the other."""
    rng = np.random.default_rng(seed)
    left = np.empty(0, np.int64)
    while True:
        while len(left) < batch_size:
            left = np.concatenate([left, rng.permutation(count)])
        batch, left = left[:batch_size], left[batch_size:]
        yield batch
