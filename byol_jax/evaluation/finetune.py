"""Supervised training of a whole network: an encoder and a linear classifier on top.

Shapes: D local devices, b images of a device, F embedding size, C classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from byol_jax.distributed import pmap
from byol_jax.evaluation import linear_probe
from byol_jax.metrics import accuracy
from byol_jax.objectives import byol
from byol_jax.training import optimizers

HEAD = "classifier"

_TRACE = optax.trace(0.9, nesterov=True)


class Network(NamedTuple):
    """What is trained.

    Attributes:
      encoder: parameters.
      head: parameters of the classifier, by the names of Haiku's linear layer.
      state: running batch-norm statistics.
    """

    encoder: Any
    head: Any
    state: Any


class Trial(NamedTuple):
    """One way to train; arrays, so that all trials run in one program.

    Attributes:
      learning_rate: at the first step; it decays to 0 by a cosine.
      weight_decay: times a weight is added to its gradient; none for biases and norm parameters.
      total_steps: number of updates.
      seed: of the views; the key of a step depends on seed and step alone.
    """

    learning_rate: jax.Array
    weight_decay: jax.Array
    total_steps: jax.Array
    seed: jax.Array


class TrainState(NamedTuple):
    """All that training changes, and how; without a device axis."""

    step: jax.Array  # int32: updates done
    network: Network
    momentum: Any
    trial: Trial


Apply = Callable[[Network, jax.Array], jax.Array]


def init_head(embedding_size: int, num_classes: int, *, seed: int) -> dict[str, Any]:
    """A classifier that starts as those of linear evaluation do."""
    weights = linear_probe.draw_weights(embedding_size, num_classes, seed=seed)
    return {HEAD: {"w": weights, "b": jnp.zeros(num_classes)}}


def init_state(network: Network, trial: Trial) -> TrainState:
    """The state before the first step."""
    trained = (network.encoder, network.head)
    momentum = _TRACE.init(trained)
    return TrainState(jnp.zeros((), jnp.int32), network, momentum, Trial(*map(jnp.asarray, trial)))


def make_update(
    forward: hk.TransformedWithState,
    make_view: Callable[[jax.Array, Any], jax.Array],
    *,
    axis: str | None,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array], jax.Array]]:
    """Builds one step of SGD with Nesterov momentum on the cross-entropy.

    Args:
      forward: the network, its batch norm averaged over ``axis``.
      make_view: (key, batch) -> float images [b, S, S, 3] in [0, 1].
      axis: name of the mapped axis to average over; None outside of a map.

    Returns:
      update(state, batch) -> (state, scalar metrics, logits [b, C]).
    """

    def loss_fn(trained: tuple[Any, Any], state: Any, images: jax.Array, labels: jax.Array):
        encoder, head = trained
        outputs, new_state = forward.apply(
            encoder, state, None, images, is_training=True, part="encoder"
        )
        logits = _classify(head, outputs.embedding)
        return jnp.mean(byol.cross_entropy(logits, labels)), (new_state, logits)

    def update(state: TrainState, batch: Any):
        network, trial = state.network, state.trial
        images = make_view(pmap.step_key(trial.seed, state.step), batch)
        trained = (network.encoder, network.head)
        (loss, (new_state, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            trained, network.state, images, batch["labels"]
        )
        top1 = jnp.mean(accuracy.correct(logits, batch["labels"])["top1"])
        if axis:
            grads, loss, top1 = jax.lax.pmean((grads, loss, top1), axis)
        (encoder, head), momentum = descend(grads, trained, state.momentum, trial, state.step)
        state = TrainState(state.step + 1, Network(encoder, head, new_state), momentum, trial)
        return state, {"loss": loss, "top1": top1}, logits

    return update


def bn_decay_rate(steps_per_epoch: float) -> float:
    """Of running batch-norm statistics, by the length of an epoch (arXiv v3, appendix D.3)."""
    return max(1 - 10 / steps_per_epoch, 0.9)


def descend(
    grads: Any, trained: tuple[Any, ...], momentum: Any, trial: Trial, step: jax.Array
) -> tuple[tuple[Any, ...], Any]:
    """Trees of parameters and the momentum after a step of SGD with Nesterov momentum."""
    updates, momentum = _TRACE.update(_decayed(grads, trained, trial), momentum)
    rate = trial.learning_rate * optimizers.cosine(step, trial.total_steps)
    return jax.tree.map(lambda p, u: p - rate * u, trained, updates), momentum


def _decayed(grads: Any, trained: Any, trial: Trial) -> Any:
    """Gradients plus what pulls weights to 0."""
    masks = tuple(optimizers.is_adapted(params) for params in trained)
    return jax.tree.map(
        lambda g, p, mask: g + trial.weight_decay * p if mask else g, grads, trained, masks
    )


def make_classify(forward: hk.TransformedWithState) -> Apply:
    """Builds classify(network, float images [b, S, S, 3]) -> logits [b, C], in inference mode."""

    def classify(network: Network, images: jax.Array) -> jax.Array:
        outputs, _ = forward.apply(
            network.encoder, network.state, None, images, is_training=False, part="encoder"
        )
        return _classify(network.head, outputs.embedding)

    return classify


def _classify(head: Any, embedding: jax.Array) -> jax.Array:
    return embedding @ head[HEAD]["w"] + head[HEAD]["b"]
