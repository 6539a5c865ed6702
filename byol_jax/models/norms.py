"""Norms that take the place of batch norm, and weight standardization.

None of them looks at more than one image, so that nothing is shared between the images of a batch
(Richemond et al. 2020, arXiv:2010.10241). Shapes: b images, C channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.models import convolution
from byol_jax.models.batch_norm import precise

KINDS = ("batch", "group", "layer", "none")
_WS_EPSILON = 1e-10


class NormSpec(NamedTuple):
    """Which norm the layers of a network have.

    Attributes:
      kind: one of `KINDS`.
      groups: of a group norm.
      standardizes: whether the weights of the layers before a norm are standardized.
    """

    kind: str = "batch"
    groups: int = 16
    standardizes: bool = False


BATCH_NORM = NormSpec()


def make(
    spec: NormSpec, name: str, *, eps: float, zero_scale: bool = False
) -> Callable[[jax.Array, bool], jax.Array]:
    """A norm that is no batch norm; its name says its kind in place of "batch"."""
    if spec.kind == "none":
        return no_norm
    name = name.replace("batch", spec.kind)
    if spec.kind == "layer":
        return LayerNorm(eps=eps, zero_scale=zero_scale, name=name)
    return GroupNorm(groups=spec.groups, eps=eps, zero_scale=zero_scale, name=name)


class GroupNorm(hk.Module):
    """Normalizes groups of neighboring channels over the pixels of an image (arXiv:1803.08494).

    Args:
      groups: how many; divides C.
      eps: added to the variance.
      zero_scale: start the scale at 0 instead of 1.
    """

    def __init__(self, *, groups: int, eps: float, zero_scale: bool = False, name: str):
        super().__init__(name=name)
        self._groups, self._eps = groups, eps
        self._scale_init = jnp.zeros if zero_scale else jnp.ones

    def __call__(self, x: jax.Array, is_training: bool = True) -> jax.Array:
        """Normalizes [b, ..., C], in float32 or better; gives the type of x back."""
        del is_training
        channels = x.shape[-1]
        if channels % self._groups:
            raise ValueError(f"{channels} channels do not divide into {self._groups} groups.")
        grouped = x.astype(precise(x.dtype)).reshape(*x.shape[:-1], self._groups, -1)
        axes = (*range(1, x.ndim - 1), x.ndim)  # pixels, and the channels of a group
        normalized = _standardize(grouped, axes, self._eps).reshape(x.shape)
        return _scale_and_shift(normalized, self._scale_init).astype(x.dtype)


class LayerNorm(hk.Module):
    """Normalizes the channels of every pixel, or of every vector (arXiv:1607.06450).

    Args:
      eps: added to the variance.
      zero_scale: start the scale at 0 instead of 1.
    """

    def __init__(self, *, eps: float, zero_scale: bool = False, name: str):
        super().__init__(name=name)
        self._eps = eps
        self._scale_init = jnp.zeros if zero_scale else jnp.ones

    def __call__(self, x: jax.Array, is_training: bool = True) -> jax.Array:
        """Normalizes [b, ..., C], in float32 or better; gives the type of x back."""
        del is_training
        normalized = _standardize(x.astype(precise(x.dtype)), -1, self._eps)
        return _scale_and_shift(normalized, self._scale_init).astype(x.dtype)


def no_norm(x: jax.Array, is_training: bool = True) -> jax.Array:
    """Gives its input back."""
    del is_training
    return x


def standardize_weights(w: jax.Array) -> jax.Array:
    """Weights [..., out] with mean 0 and variance 1 over all inputs of each output.

    Qiao et al. 2019, arXiv:1903.10520, with the epsilon of BiT (arXiv:1912.11370).
    """
    return _standardize(w.astype(precise(w.dtype)), tuple(range(w.ndim - 1)), _WS_EPSILON)


def _standardizing(get: Callable[..., jax.Array], value: jax.Array, context: Any) -> jax.Array:
    """A getter of Haiku's: parameters stay as they are, and are read with this done to them."""
    return get(standardize_weights(value) if context.name == "w" else value)


class StandardizedConv(convolution.Conv2D):
    """A convolution with `standardize_weights`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        with hk.custom_getter(_standardizing):
            return super().__call__(x)


class StandardizedLinear(hk.Linear):
    """A linear layer with `standardize_weights`."""

    def __call__(self, inputs: jax.Array) -> jax.Array:
        with hk.custom_getter(_standardizing):
            return super().__call__(inputs)


def _standardize(x: jax.Array, axes: int | tuple[int, ...], eps: float) -> jax.Array:
    mean = jnp.mean(x, axes, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axes, keepdims=True)  # biased
    return (x - mean) * jax.lax.rsqrt(variance + jnp.asarray(eps, x.dtype))


def _scale_and_shift(x: jax.Array, scale_init: Callable[..., jax.Array]) -> jax.Array:
    shape = x.shape[-1:]
    scale = hk.get_parameter("scale", shape, x.dtype, scale_init)
    return x * scale + hk.get_parameter("offset", shape, x.dtype, jnp.zeros)
