"""DirectPred and DirectCopy (Tian et al. 2021, arXiv:2102.06810; Wang et al. 2021, 2110.04947).

Linear predictors that are not trained but follow from the running correlation of the projections.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from byol_jax.objectives import contract

DECAY = 0.3  # rho: of what is remembered
EPSILON = 0.01
_LEAST = 1e-4  # eigenvalue of the predictor


class Statistics(NamedTuple):
    """Running moments of the projections of both views, the same on all devices.

    Attributes:
      correlation: [P, P] mean of the outer products.
      mean: [P].
      count: int32, steps that they are of.
    """

    correlation: jax.Array
    mean: jax.Array
    count: jax.Array


class State(NamedTuple):
    """Of an objective with such a predictor.

    Attributes:
      statistics: of the predictor.
      own: of the objective.
    """

    statistics: Statistics
    own: Any


def init(size: int) -> Statistics:
    """Before the first step, for projections of a size."""
    return Statistics(jnp.zeros((size, size)), jnp.zeros(size), jnp.zeros((), jnp.int32))


def update(
    statistics: Statistics, projections: contract.Pair, *, axis: str | None = None
) -> Statistics:
    """The moments with those of a batch; the first step sets them.

    Args:
      statistics: before the step.
      projections: [b, P] of view 1 and of view 2; no gradient flows into them.
      axis: name of the mapped axis over devices, whose rows count.
    """
    rows = jax.lax.stop_gradient(jnp.concatenate(projections))
    new = contract.product(rows.T, rows) / rows.shape[0], jnp.mean(rows, axis=0)
    old = statistics.correlation, statistics.mean
    decay = jnp.where(statistics.count == 0, 0.0, DECAY).astype(rows.dtype)
    moved = [
        decay * before + (1 - decay) * contract.mean_over_devices(after, axis)
        for before, after in zip(old, new, strict=True)
    ]
    return Statistics(*moved, statistics.count + 1)


def directpred(correlation: jax.Array, epsilon: float = EPSILON) -> jax.Array:
    """The predictor [P, P] with the correlation's directions and the roots of its eigenvalues."""
    values, vectors = jnp.linalg.eigh(correlation)
    values = jnp.maximum(values, 0)
    scaled = jnp.sqrt(values / jnp.maximum(jnp.max(values), 1e-30)) + epsilon
    return contract.product(vectors * jnp.maximum(scaled, _LEAST), vectors.T)


def directcopy(correlation: jax.Array, epsilon: float = EPSILON) -> jax.Array:
    """The predictor [P, P] that is the correlation and a little of the identity."""
    return correlation + epsilon * jnp.eye(correlation.shape[0], dtype=correlation.dtype)


# Values of ``model.predictor`` that have no parameters.
PREDICTORS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "directpred": directpred,
    "directcopy": directcopy,
}


def with_predictor(bound: contract.Bound, name: str) -> contract.Bound:
    """An objective whose predictions such a predictor makes; its statistics are in the state.

    Args:
      bound: an objective that compares predictions.
      name: a key of `PREDICTORS`.
    """
    make = PREDICTORS[name]

    def evaluate(inputs: contract.Inputs, settings: Any) -> contract.Result:
        del settings
        before, own = Statistics(*inputs.state[0]), inputs.state[1]
        statistics = update(before, inputs.projections, axis=inputs.axis)
        # As in the authors' code it is of the steps before; the first one has only itself.
        known = jnp.where(before.count == 0, statistics.correlation, before.correlation)
        weights = jax.lax.stop_gradient(make(known))
        online = tuple(contract.product(z, weights) for z in inputs.projections)
        result = bound.evaluate(inputs._replace(online=online, state=own))
        return result._replace(state=State(statistics, result.state))

    def start(settings: Any, key: jax.Array, sizes: contract.Sizes) -> contract.Own:
        del settings
        params, own = bound.init(key, sizes)
        return contract.Own(params, State(init(sizes.projection), own))

    objective = bound.objective._replace(evaluate=evaluate, init=start, compares_images=True)
    return bound._replace(objective=objective)
