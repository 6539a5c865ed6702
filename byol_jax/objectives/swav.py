"""SwAV (Caron et al. 2020, arXiv:2006.09882): swapped predictions of cluster assignments."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from byol_jax.objectives import contract
from byol_jax.objectives.byol import l2_normalize

_MODULE = f"{contract.PREFIX}prototypes"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of SwAV.

    Attributes:
      temperature: of the predicted assignments.
      epsilon: of Sinkhorn's; the smaller, the harder the assignments.
      iterations: of Sinkhorn's.
      prototypes: number of clusters K.
      frozen_steps: during which the prototypes stay as drawn.
      queue_size: embeddings of earlier steps, of each view, that are assigned together with those
        of the batch; a multiple of its size. 0: none.
      queue_start_steps: before which none is kept; it is used once it is full.
    """

    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    prototypes: int = 3000
    frozen_steps: int = 313
    queue_size: int = 0
    queue_start_steps: int = 0


class Queue(NamedTuple):
    """The newest embeddings, the same on all devices.

    Attributes:
      embeddings: [2, Q, P] rows of unit norm, of each view, the newest first.
      count: int32, how many have come.
    """

    embeddings: jax.Array
    count: jax.Array


def sinkhorn(
    scores: jax.Array,
    *,
    epsilon: float,
    iterations: int,
    axis: str | None = None,
    counts: jax.Array | None = None,
) -> jax.Array:
    """Assignments of images to prototypes, each of which gets as many (section 3.1).

    Args:
      scores: [b, K] products of embeddings and prototypes.
      epsilon: of the entropy.
      iterations: of normalizing prototypes, then images.
      axis: name of the mapped axis over devices, whose images count.
      counts: [b] whether an image takes part; None: all do.

    Returns:
      [b, K] rows that sum to 1; 0 for those that take no part.
    """

    def total(x: jax.Array) -> jax.Array:
        return x if axis is None else jax.lax.psum(x, axis)

    highest = jnp.max(scores)
    highest = highest if axis is None else jax.lax.pmax(highest, axis)
    q = jnp.exp((scores - highest) / epsilon)
    if counts is not None:
        q = jnp.where(counts[:, None], q, 0.0)
    for _ in range(iterations):
        q = q / total(jnp.sum(q, axis=0, keepdims=True))
        rows = jnp.sum(q, axis=1, keepdims=True)
        q = q / (rows if counts is None else jnp.where(counts[:, None], rows, 1.0))
    return q


def swav_loss(
    z: contract.Pair,
    prototypes: jax.Array,
    *,
    temperature: float,
    epsilon: float,
    iterations: int,
    axis: str | None = None,
    queue: Queue | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each view's assignments, predicted from the other (equation 2), halved.

    Args:
      z: [b, P] projections of view 1 and of view 2.
      prototypes: [K, P] of unit norm.
      temperature: tau of the paper.
      epsilon: of `sinkhorn`.
      iterations: of `sinkhorn`.
      axis: name of the mapped axis over devices.
      queue: embeddings that are assigned, too, if it is full.

    Returns:
      Two scalars, of this device's rows; their sum is the loss.
    """
    scores = [contract.product(l2_normalize(view), prototypes.T) for view in z]
    losses = []
    options = {"epsilon": epsilon, "iterations": iterations, "axis": axis}
    for view, (assigned, predicted) in enumerate((scores, scores[::-1])):
        assigned = jax.lax.stop_gradient(assigned)
        if queue is None:
            codes = sinkhorn(assigned, **options)
        else:
            codes = codes_beside(queue, view, assigned, prototypes, **options)
        logs = jax.nn.log_softmax(predicted / temperature)
        losses.append(-jnp.mean(jnp.sum(codes * logs, axis=1)) / 2)
    return losses[0], losses[1]


def codes_beside(
    queue: Queue, view: int, scores: jax.Array, prototypes: jax.Array, **options: Any
) -> jax.Array:
    """Assignments of a batch, beside which each device also assigns a part of the queue.

    Args:
      queue: takes part once it is full.
      view: 0 or 1, which of the two the batch is of.
      scores: [b, K] of the batch.
      prototypes: [K, P] of unit norm.
      options: of `sinkhorn`; ``axis`` is needed.

    Returns:
      [b, K] rows that sum to 1.
    """
    axis, size = options["axis"], queue.embeddings.shape[1]
    devices = 1 if axis is None else jax.lax.axis_size(axis)
    start = 0 if axis is None else jax.lax.axis_index(axis) * (size // devices)
    part = jax.lax.dynamic_slice_in_dim(queue.embeddings[view], start, size // devices)
    earlier = contract.product(part, jax.lax.stop_gradient(prototypes).T)
    counts = jnp.arange(size // devices + scores.shape[0]) >= size // devices
    counts = counts | (queue.count >= size)
    together = jnp.concatenate([earlier, scores])
    return sinkhorn(together, counts=counts, **options)[-scores.shape[0] :]


def enqueue(queue: Queue, z: contract.Pair, *, axis: str | None = None) -> Queue:
    """The queue with the embeddings of all devices in front, without as many of the oldest.

    Args:
      queue: before the step.
      z: [b, P] projections of view 1 and of view 2, of any norm.
      axis: name of the mapped axis over devices.
    """
    rows = [contract.gather(l2_normalize(jax.lax.stop_gradient(x)), axis) for x in z]
    kept = queue.embeddings[:, : queue.embeddings.shape[1] - rows[0].shape[0]]
    newest = jnp.concatenate([jnp.stack(rows).astype(kept.dtype), kept], axis=1)
    full = queue.embeddings.shape[1]
    return Queue(newest, jnp.minimum(queue.count + rows[0].shape[0], full).astype(jnp.int32))


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    prototypes = inputs.params[_MODULE]["w"]
    is_frozen = inputs.step < settings.frozen_steps
    prototypes = jnp.where(is_frozen, jax.lax.stop_gradient(prototypes), prototypes)
    queue = Queue(*inputs.state) if settings.queue_size else None
    view1, view2 = swav_loss(
        inputs.online,
        prototypes,
        temperature=settings.temperature,
        epsilon=settings.epsilon,
        iterations=settings.iterations,
        axis=inputs.axis,
        queue=queue,
    )
    terms, state = {"view1_loss": view1, "view2_loss": view2}, inputs.state
    if queue is not None:
        moved = enqueue(queue, inputs.online, axis=inputs.axis)
        has_begun = inputs.step >= settings.queue_start_steps
        state = jax.tree.map(lambda new, old: jnp.where(has_begun, new, old), moved, queue)
    return contract.Result(view1 + view2, terms, state)


def _init(settings: Settings, key: jax.Array, sizes: contract.Sizes) -> contract.Own:
    drawn = jax.random.normal(key, (settings.prototypes, sizes.projection))
    queue: Any = ()
    if settings.queue_size:
        empty = jnp.zeros((2, settings.queue_size, sizes.projection))
        queue = Queue(empty, jnp.zeros((), jnp.int32))
    return contract.Own(_constrain({_MODULE: {"w": drawn}}), queue)


def _check(settings: Settings, sizes: contract.Sizes) -> None:
    contract.check_queue("swav", settings.queue_size, sizes.batch)


def _constrain(params: contract.Params) -> contract.Params:
    """Prototypes of unit norm, outside of the gradient, as in the authors' code."""
    return {_MODULE: {"w": l2_normalize(params[_MODULE]["w"])}}


SWAV = contract.Objective(
    has_predictor=False,
    targets=("none",),
    settings=Settings,
    evaluate=_evaluate,
    init=_init,
    constrain=_constrain,
    compares_images=True,
    check=_check,
)
