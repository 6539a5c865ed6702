"""VICReg (Bardes et al. 2021, arXiv:2105.04906)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from byol_jax.objectives import contract


@dataclasses.dataclass(frozen=True)
class Settings:
    """Weights of the terms (equation 6)."""

    invariance_weight: float = 25.0
    variance_weight: float = 25.0
    covariance_weight: float = 1.0


class Terms(NamedTuple):
    """What the loss is made of, unweighted."""

    invariance: jax.Array
    variance: jax.Array
    covariance: jax.Array


def vicreg_terms(z: contract.Pair, *, axis: str | None = None) -> Terms:
    """Equations 1, 3 and 5, with the factors of the authors' code.

    These differ from the paper's: the code averages the squared distance over features, too, and
    halves the variance term.

    Args:
      z: [b, P] projections of view 1 and of view 2.
      axis: name of the mapped axis over devices.

    Returns:
      The invariance of this device's rows; the others of the whole batch.
    """
    invariance = jnp.mean(jnp.square(z[0] - z[1]))
    covariances = [_covariance(view, axis=axis) for view in z]
    variance = sum(jnp.mean(jax.nn.relu(1 - jnp.sqrt(jnp.diagonal(c) + 1e-4))) for c in covariances)
    off_diagonal = sum(
        jnp.sum(jnp.square(c)) - jnp.sum(jnp.square(jnp.diagonal(c))) for c in covariances
    )
    return Terms(invariance, variance / 2, off_diagonal / z[0].shape[-1])


def _covariance(z: jax.Array, *, axis: str | None) -> jax.Array:
    """Unbiased covariances [P, P] of the features over the whole batch."""
    count = z.shape[0] * (1 if axis is None else jax.lax.axis_size(axis))
    z = z - contract.mean_over_devices(jnp.mean(z, axis=0), axis)
    mean = contract.mean_over_devices(contract.product(z.T, z) / z.shape[0], axis)
    return mean * (count / (count - 1))


def _evaluate(inputs: contract.Inputs, settings: Settings) -> contract.Result:
    terms = vicreg_terms(inputs.online, axis=inputs.axis)
    loss = (
        settings.invariance_weight * terms.invariance
        + settings.variance_weight * terms.variance
        + settings.covariance_weight * terms.covariance
    )
    return contract.Result(loss, {f"{name}_loss": value for name, value in terms._asdict().items()})


VICREG = contract.Objective(
    has_predictor=False,
    targets=("none",),
    settings=Settings,
    evaluate=_evaluate,
    compares_images=True,
)
