"""Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from byol_jax.objectives import contract


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of Barlow Twins.

    Attributes:
      redundancy_weight: lambda, of what is off the diagonal.
      scale: of the whole loss. The authors' first code had 0.024 here; their present one divides
        the learning rate of biases by it instead, as LARS cancels it in all other tensors.
    """

    redundancy_weight: float = 0.0051
    scale: float = 0.024


class Terms(NamedTuple):
    """What the loss is made of, unscaled."""

    invariance: jax.Array
    redundancy: jax.Array


def standardize(z: jax.Array, *, axis: str | None, epsilon: float = 1e-5) -> jax.Array:
    """Columns of [b, P] with mean 0 and variance 1 over the whole batch."""
    z = z - contract.mean_over_devices(jnp.mean(z, axis=0), axis)
    variance = contract.mean_over_devices(jnp.mean(jnp.square(z), axis=0), axis)
    return z * jax.lax.rsqrt(variance + epsilon)


def correlation(z: contract.Pair, *, axis: str | None = None) -> jax.Array:
    """Correlations [P, P] of the features of view 1 with those of view 2 over the whole batch."""
    z1, z2 = (standardize(view, axis=axis) for view in z)
    return contract.mean_over_devices(contract.product(z1.T, z2) / z1.shape[0], axis)


def barlow_twins_terms(z: contract.Pair, *, axis: str | None = None) -> Terms:
    """The two sums of equation 1: how far the correlations are from the identity.

    Args:
      z: [b, P] projections of view 1 and of view 2.
      axis: name of the mapped axis over devices.

    Returns:
      Of the whole batch, the same on all devices.
    """
    found = correlation(z, axis=axis)
    diagonal = jnp.diagonal(found)
    redundancy = jnp.sum(jnp.square(found)) - jnp.sum(jnp.square(diagonal))
    return Terms(jnp.sum(jnp.square(diagonal - 1)), redundancy)


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    terms = barlow_twins_terms(inputs.online, axis=inputs.axis)
    loss = terms.invariance + settings.redundancy_weight * terms.redundancy
    named = {f"{name}_loss": value for name, value in terms._asdict().items()}
    return contract.Result(settings.scale * loss, named)


BARLOW_TWINS = contract.Objective(
    has_predictor=False,
    targets=("none",),
    settings=Settings,
    evaluate=_evaluate,
    compares_images=True,
)
