"""How what is compared is normalized before it is (paper, appendix F.6 and table 20).

Shapes: b images of one device, P projection.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

_EPSILON = 1e-5  # added to variances
Normalize = Callable[[jax.Array, str | None], jax.Array]


def l2_normalize(x: jax.Array, *, epsilon: float = 1e-12) -> jax.Array:
    """Scales the last axis to unit length; rows shorter than sqrt(epsilon) shrink towards 0."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), epsilon))


def _l2(x: jax.Array, axis: str | None) -> jax.Array:
    del axis
    return l2_normalize(x)


def _layer_norm(x: jax.Array, axis: str | None) -> jax.Array:
    """Mean 0 and variance 1 / P over the numbers of each row: almost of unit length."""
    del axis
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(x.shape[-1] * (variance + _EPSILON))


def _batch_norm(x: jax.Array, axis: str | None) -> jax.Array:
    """Mean 0 and variance 1 / P of each number over the images of all devices."""
    x = x - _mean(x, axis)
    return x * jax.lax.rsqrt(x.shape[-1] * (_mean(jnp.square(x), axis) + _EPSILON))


def _mean(x: jax.Array, axis: str | None) -> jax.Array:
    """Over the images of all devices, [1, P]; gradients flow back to each."""
    mean = jnp.mean(x, axis=0, keepdims=True)
    return jax.lax.pmean(mean, axis) if axis else mean


def _none(x: jax.Array, axis: str | None) -> jax.Array:
    del axis
    return x


NORMALIZATIONS: Mapping[str, Normalize] = {
    "l2": _l2,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "none": _none,
}


def distance(
    x: jax.Array, y: jax.Array, *, normalization: str = "l2", axis: str | None = None
) -> jax.Array:
    """Squared distances [b] of the rows of x and y [b, P] once each is normalized by itself.

    Layer norm and batch norm are divided by sqrt(P), so that the scale of the loss is that of l2.

    Args:
      x: what is predicted.
      y: what it is compared with.
      normalization: a key of `NORMALIZATIONS`.
      axis: name of the mapped axis over devices, for batch norm; None outside of a map.
    """
    normalize = NORMALIZATIONS[normalization]
    return jnp.sum(jnp.square(normalize(x, axis) - normalize(y, axis)), axis=-1)
