"""SwAV (Caron et al. 2020, arXiv:2006.09882): swapped predictions of cluster assignments."""

import dataclasses

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
    """

    temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    prototypes: int = 3000
    frozen_steps: int = 313


def sinkhorn(
    scores: jax.Array, *, epsilon: float, iterations: int, axis: str | None = None
) -> jax.Array:
    """Assignments of images to prototypes, each of which gets as many (section 3.1).

    Args:
      scores: [b, K] products of embeddings and prototypes.
      epsilon: of the entropy.
      iterations: of normalizing prototypes, then images.
      axis: name of the mapped axis over devices, whose images count.

    Returns:
      [b, K] rows that sum to 1.
    """

    def total(x: jax.Array) -> jax.Array:
        return x if axis is None else jax.lax.psum(x, axis)

    highest = jnp.max(scores)
    highest = highest if axis is None else jax.lax.pmax(highest, axis)
    q = jnp.exp((scores - highest) / epsilon)
    for _ in range(iterations):
        q = q / total(jnp.sum(q, axis=0, keepdims=True))
        q = q / jnp.sum(q, axis=1, keepdims=True)
    return q


def swav_loss(
    z: contract.Pair,
    prototypes: jax.Array,
    *,
    temperature: float,
    epsilon: float,
    iterations: int,
    axis: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each view's assignments, predicted from the other (equation 2), halved.

    Args:
      z: [b, P] projections of view 1 and of view 2.
      prototypes: [K, P] of unit norm.
      temperature: tau of the paper.
      epsilon: of `sinkhorn`.
      iterations: of `sinkhorn`.
      axis: name of the mapped axis over devices.

    Returns:
      Two scalars, of this device's rows; their sum is the loss.
    """
    scores = [contract.product(l2_normalize(view), prototypes.T) for view in z]
    losses = []
    for assigned, predicted in (scores, scores[::-1]):
        codes = sinkhorn(
            jax.lax.stop_gradient(assigned), epsilon=epsilon, iterations=iterations, axis=axis
        )
        logs = jax.nn.log_softmax(predicted / temperature)
        losses.append(-jnp.mean(jnp.sum(codes * logs, axis=1)) / 2)
    return losses[0], losses[1]


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    prototypes = inputs.params[_MODULE]["w"]
    is_frozen = inputs.step < settings.frozen_steps
    prototypes = jnp.where(is_frozen, jax.lax.stop_gradient(prototypes), prototypes)
    view1, view2 = swav_loss(
        inputs.online,
        prototypes,
        temperature=settings.temperature,
        epsilon=settings.epsilon,
        iterations=settings.iterations,
        axis=inputs.axis,
    )
    return contract.Result(view1 + view2, {"view1_loss": view1, "view2_loss": view2})


def _init(settings: Settings, key: jax.Array, sizes: contract.Sizes) -> contract.Own:
    drawn = jax.random.normal(key, (settings.prototypes, sizes.projection))
    return contract.Own(_constrain({_MODULE: {"w": drawn}}), ())


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
)
