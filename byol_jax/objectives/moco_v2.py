"""MoCo v2 (Chen et al. 2020, arXiv:2003.04297): contrast with a queue of earlier keys."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from byol_jax.objectives import contract
from byol_jax.objectives.byol import l2_normalize


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of MoCo v2.

    Attributes:
      temperature: of the similarities.
      queue_size: K, a multiple of the batch size.
    """

    temperature: float = 0.2
    queue_size: int = 65536


class Queue(NamedTuple):
    """The newest keys, the same on all devices.

    Attributes:
      keys: [P, K], columns of unit norm.
      pointer: int32, the column that is overwritten next.
    """

    keys: jax.Array
    pointer: jax.Array


def moco_v2_loss(
    queries: jax.Array, keys: jax.Array, queue: jax.Array, *, temperature: float
) -> jax.Array:
    """Cross-entropy of each query's own key among it and the queue (equation 1 of MoCo).

    Args:
      queries: [b, P] online projections of one view.
      keys: [b, P] target projections of the other; no gradient flows into them.
      queue: [P, K] keys of unit norm of earlier steps.
      temperature: tau of the paper.

    Returns:
      A scalar, of this device's rows.
    """
    queries, keys = l2_normalize(queries), l2_normalize(jax.lax.stop_gradient(keys))
    positives = jnp.sum(queries * keys, axis=-1, keepdims=True)  # [b, 1]
    negatives = contract.product(queries, jax.lax.stop_gradient(queue))  # [b, K]
    scores = jnp.concatenate([positives, negatives], axis=1) / temperature
    return jnp.mean(jax.nn.logsumexp(scores, axis=1) - scores[:, 0])


def enqueue(queue: Queue, keys: jax.Array, *, axis: str | None = None) -> Queue:
    """The queue in which the keys of all devices, in their order, have replaced the oldest.

    Args:
      queue: before the step.
      keys: [b, P] of this device, of any norm.
      axis: name of the mapped axis over devices.
    """
    rows = contract.gather(l2_normalize(jax.lax.stop_gradient(keys)), axis)  # [B, P]
    place = (jnp.zeros((), queue.pointer.dtype), queue.pointer)
    newest = jax.lax.dynamic_update_slice(queue.keys, rows.T.astype(queue.keys.dtype), place)
    return Queue(newest, (queue.pointer + rows.shape[0]) % queue.keys.shape[1])


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    (queries, _), (_, keys) = inputs.online, inputs.target
    queue = Queue(*inputs.state)
    loss = moco_v2_loss(queries, keys, queue.keys, temperature=settings.temperature)
    return contract.Result(loss, {}, enqueue(queue, keys, axis=inputs.axis))


def _init(settings: Settings, key: jax.Array, sizes: contract.Sizes) -> contract.Own:
    keys = jax.random.normal(key, (settings.queue_size, sizes.projection))
    return contract.Own({}, Queue(l2_normalize(keys).T, jnp.zeros((), jnp.int32)))


def _check(settings: Settings, sizes: contract.Sizes) -> None:
    contract.check_queue("moco_v2", settings.queue_size, sizes.batch)


MOCO_V2 = contract.Objective(
    has_predictor=False,
    targets=("ema", "copy", "frozen"),
    settings=Settings,
    evaluate=_evaluate,
    init=_init,
    compares_images=True,
    check=_check,
)
