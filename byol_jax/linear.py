"""Linear classifiers on a frozen encoder's output, for several learning rates in one program.

The rates share every batch of features, so that a sweep costs about as much as one run. Shapes:
R learning rates, N images, b of a batch, F embedding size, C classes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax import objectives

CHUNK_BYTES = 64 << 20  # of features that are handed to the device at once


class Heads(NamedTuple):
    """A linear classifier for each learning rate.

    Attributes:
      weights: [R, F, C].
      biases: [R, C].
    """

    weights: jax.Array
    biases: jax.Array


class State(NamedTuple):
    """All that training changes."""

    step: jax.Array  # int32: updates done
    heads: Heads
    momentum: optax.TraceState


class Recipe(NamedTuple):
    """How heads are trained (paper, appendix D.1).

    Attributes:
      learning_rates: [R], at the first step; they decay to 0 by a cosine.
      total_steps: number of updates.
      momentum: of Nesterov's kind.
    """

    learning_rates: Sequence[float]
    total_steps: int
    momentum: float = 0.9

    @property
    def _trace(self) -> optax.GradientTransformation:
        return optax.trace(self.momentum, nesterov=True)

    def init(self, *, embedding_size: int, num_classes: int, seed: int) -> State:
        """Heads that all start alike: weights of deviation 1 / sqrt(F), as Haiku's."""
        shape = (embedding_size, num_classes)
        key = jax.random.key(seed)
        drawn = jax.random.truncated_normal(key, -2, 2, shape) / np.sqrt(embedding_size)
        copies = len(self.learning_rates)
        heads = Heads(jnp.stack([drawn] * copies), jnp.zeros((copies, num_classes)))
        return State(jnp.zeros((), jnp.int32), heads, self._trace.init(heads))

    def update(
        self, state: State, features: jax.Array, labels: jax.Array, *, axis: str | None = None
    ) -> State:
        """One step of all heads on features [b, F] and labels [b].

        Args:
          state: to start from.
          features: taken as they are.
          labels: in [0, C).
          axis: name of the mapped axis to average gradients over; None outside of a map.
        """

        def loss(heads: Heads) -> jax.Array:
            logits = jax.vmap(_logits, (0, None))(heads, features)  # [R, b, C]
            losses = jax.vmap(objectives.cross_entropy, (0, None))(logits, labels)  # [R, b]
            return jnp.sum(jnp.mean(losses, axis=1))  # no head sees another's

        grads = jax.grad(loss)(state.heads)
        if axis:
            grads = jax.lax.pmean(grads, axis)
        updates, momentum = self._trace.update(grads, state.momentum)
        decay = optax.cosine_decay_schedule(1.0, self.total_steps)(state.step)
        rates = decay * jnp.asarray(self.learning_rates, features.dtype)
        heads = Heads(
            state.heads.weights - rates[:, None, None] * updates.weights,
            state.heads.biases - rates[:, None] * updates.biases,
        )
        return State(state.step + 1, heads, momentum)


def _logits(head: Heads, features: jax.Array) -> jax.Array:
    return features @ head.weights + head.biases


def logits(heads: Heads, features: np.ndarray, *, which: int, chunk: int = 8192) -> np.ndarray:
    """What one of the heads makes of features [N, F]: [N, C]."""
    head = Heads(np.asarray(heads.weights[which]), np.asarray(heads.biases[which]))
    starts = range(0, len(features), chunk)
    return np.concatenate([_logits(head, features[start : start + chunk]) for start in starts])


def train(
    recipe: Recipe,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    batch_size: int,
    seed: int,
    on_steps: Callable[[int], None] = lambda steps: None,
) -> Heads:
    """Trains on features that are there already, shuffled anew in every epoch.

    Args:
      recipe: learning rates and number of steps.
      features: [N, F].
      labels: [N].
      num_classes: C.
      batch_size: b, at most N; batches cross the borders of epochs, so that none is smaller.
      seed: of the first weights and the order.
      on_steps: told of every few steps that are done, for a progress bar.
    """
    embedding_size = features.shape[1]
    state = recipe.init(embedding_size=embedding_size, num_classes=num_classes, seed=seed)

    def run(state: State, batches: tuple[jax.Array, jax.Array]) -> State:
        def body(state: State, batch: tuple[jax.Array, jax.Array]) -> tuple[State, None]:
            return recipe.update(state, *batch), None

        return jax.lax.scan(body, state, batches)[0]

    run = jax.jit(run, donate_argnums=0)
    length = max(1, CHUNK_BYTES // (batch_size * embedding_size * features.itemsize))
    indices = _batches(len(features), batch_size, seed)
    for start in range(0, recipe.total_steps, length):
        steps = min(length, recipe.total_steps - start)
        chosen = np.stack([next(indices) for _ in range(steps)])
        state = run(state, (features[chosen], labels[chosen]))
        on_steps(steps)
    return jax.device_get(state.heads)


def _batches(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless indices [b] of one permutation after the other."""
    rng = np.random.default_rng(seed)
    left = np.empty(0, np.int64)
    while True:
        while len(left) < batch_size:
            left = np.concatenate([left, rng.permutation(count)])
        batch, left = left[:batch_size], left[batch_size:]
        yield batch
