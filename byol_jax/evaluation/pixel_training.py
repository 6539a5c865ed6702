"""Supervised training of an encoder and a head that predicts something for every pixel.

Shapes: b images of a device of S x S' pixels, h x w cells of the encoder's last map.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from byol_jax.training import optimizers

MOMENTUM = 0.9
_TRACE = optax.trace(MOMENTUM)


class Network(NamedTuple):
    """Parameters and running batch-norm statistics.

    Attributes:
      encoder: parameters.
      encoder_state: its statistics.
      head: parameters.
      head_state: its statistics.
    """

    encoder: Any
    encoder_state: Any
    head: Any
    head_state: Any


class Trial(NamedTuple):
    """One way to train; arrays, so that all trials run in one program.

    Attributes:
      learning_rate: at the first step.
      weight_decay: times a weight is added to its gradient; none for biases and norm parameters.
      total_steps: number of updates.
    """

    learning_rate: jax.Array
    weight_decay: jax.Array
    total_steps: jax.Array


class TrainState(NamedTuple):
    """All that training changes, and how; without a device axis."""

    step: jax.Array  # int32: updates done
    network: Network
    momentum: Any
    trial: Trial


class Forward(NamedTuple):
    """A network as functions.

    Attributes:
      encoder: of `encoders.make_forward`.
      head: (map [b, h, w, c], is_training) -> what is predicted.
    """

    encoder: hk.TransformedWithState
    head: hk.TransformedWithState

    def __call__(
        self,
        network: Network,
        images: jax.Array,
        *,
        trains_encoder: bool,
        trains_head: bool,
    ) -> tuple[Any, tuple[Any, Any]]:
        """What is predicted for images [b, S, S', 3] in [0, 1], and the new statistics."""
        outputs, encoder_state = self.encoder.apply(
            network.encoder, network.encoder_state, None, images, trains_encoder, part="maps"
        )
        predicted, head_state = self.head.apply(
            network.head, network.head_state, None, outputs.maps[-1], trains_head
        )
        return predicted, (encoder_state, head_state)


def make_head(build: Callable[[jax.Array, bool], jax.Array]) -> hk.TransformedWithState:
    """A head as functions; Haiku creates running statistics in training mode only."""
    return hk.transform_with_state(
        lambda x, is_training: build(x, is_training or hk.running_init())
    )


def init_head(head: hk.TransformedWithState, channels: int, *, seed: int) -> tuple[Any, Any]:
    """Parameters and statistics of a head on maps of so many channels."""
    init = jax.jit(lambda key: head.init(key, jnp.zeros((1, 3, 3, channels)), True))
    return jax.device_get(init(jax.random.key(seed)))


def init_state(network: Network, trial: Trial, *, is_frozen: bool) -> TrainState:
    """The state before the first step."""
    momentum = _TRACE.init(_trained(network, is_frozen))
    return TrainState(jnp.zeros((), jnp.int32), network, momentum, Trial(*map(jnp.asarray, trial)))


def _trained(network: Network, is_frozen: bool) -> tuple[Any, ...]:
    return (network.head,) if is_frozen else (network.head, network.encoder)


def make_update(
    forward: Forward,
    loss: Callable[..., jax.Array],
    make_images: Callable[[Any], jax.Array],
    schedule: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    is_frozen: bool,
    axis: str | None,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array], None]]:
    """Builds one step of SGD with momentum.

    Args:
      forward: the network, its batch norm averaged over ``axis``.
      loss: (predicted, targets, axis) -> scalar whose mean over devices is the batch's loss.
      make_images: batch -> float images [b, S, S', 3] in [0, 1].
      schedule: (step, total_steps) -> factor of the learning rate.
      is_frozen: the encoder stays as it is, its batch norm in inference mode.
      axis: name of the mapped axis; None outside of a map.

    Returns:
      update(state, batch) -> (state, scalar metrics, None); the batch has "target".
    """

    def loss_fn(trained: tuple[Any, ...], network: Network, batch: Any):
        encoder = network.encoder if is_frozen else trained[1]
        network = network._replace(head=trained[0], encoder=encoder)
        predicted, states = forward(
            network, make_images(batch), trains_encoder=not is_frozen, trains_head=True
        )
        return loss(predicted, batch["target"], axis), states

    def update(state: TrainState, batch: Any):
        network, trial = state.network, state.trial
        trained = _trained(network, is_frozen)
        (value, states), grads = jax.value_and_grad(loss_fn, has_aux=True)(trained, network, batch)
        if axis:
            grads, value = jax.lax.pmean((grads, value), axis)
        updates, momentum = _TRACE.update(_decayed(grads, trained, trial), state.momentum)
        rate = trial.learning_rate * schedule(state.step, trial.total_steps)
        head, *rest = jax.tree.map(lambda p, u: p - rate * u, trained, updates)
        network = Network(rest[0] if rest else network.encoder, states[0], head, states[1])
        return TrainState(state.step + 1, network, momentum, trial), {"loss": value}, None

    return update


def _decayed(grads: Any, trained: Any, trial: Trial) -> Any:
    """Gradients plus what pulls weights to 0."""
    masks = tuple(optimizers.is_adapted(params) for params in trained)
    return jax.tree.map(
        lambda g, p, mask: g + trial.weight_decay * p if mask else g, grads, trained, masks
    )


def two_drops(step: jax.Array, total_steps: jax.Array) -> jax.Array:
    """1, 0.1 from 70 % of the steps on, 0.01 from 90 % on (paper, appendix D.4)."""
    done = 10 * step  # whole numbers, so that no step is taken for another
    return jnp.where(done < 7 * total_steps, 1.0, jnp.where(done < 9 * total_steps, 0.1, 0.01))
