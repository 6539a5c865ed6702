"""Batch norm in three steps that can be taken one by one: measure, remember, normalize.

Parameters, states, their names and the arithmetic are those of `hk.BatchNorm`. Taking the steps
apart lets a batch that is worked through in parts be normalized with the moments of the whole.
"""

from collections.abc import Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp


class Moments(NamedTuple):
    """Of every channel, [1, ..., C]: means over images and pixels."""

    mean: jax.Array
    mean_of_squares: jax.Array


class BatchNorm(hk.Module):
    """Batch norm in float32 or better, whatever the type of its input; gives that type back.

    Args:
      decay_rate: of the running statistics.
      eps: added to the variance.
      zero_scale: start the scale at 0 instead of 1.
      axis: name of a mapped axis over which moments are averaged; None: local ones.
      groups: positions on the axis, each in one of several groups of equal size, which then average
        among themselves; None: all together.
      has_scale: multiply by a parameter after normalizing.
      has_offset: add one.
    """

    def __init__(
        self,
        *,
        decay_rate: float,
        eps: float,
        zero_scale: bool,
        axis: str | None,
        groups: Sequence[Sequence[int]] | None,
        name: str,
        has_scale: bool = True,
        has_offset: bool = True,
    ):
        super().__init__(name=name)
        self._eps = eps
        self._has_scale, self._has_offset = has_scale, has_offset
        self._scale_init = jnp.zeros if zero_scale else jnp.ones
        self._axis, self._groups = axis, groups
        self._mean = hk.ExponentialMovingAverage(decay_rate, name="mean_ema")
        self._var = hk.ExponentialMovingAverage(decay_rate, name="var_ema")

    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        """Normalizes [b, ..., C] with its own moments, or else with the running ones."""
        if not is_training:
            dtype = precise(x.dtype)
            mean, var = self._mean.average.astype(dtype), self._var.average.astype(dtype)
            return self._scaled(x, mean, var)
        moments = self.synchronize(self.measure(x))
        self.remember(moments)
        return self.normalize(x, moments)

    def measure(self, x: jax.Array) -> Moments:
        """The moments of x alone."""
        x, axes = x.astype(precise(x.dtype)), tuple(range(x.ndim - 1))
        # Not the variance: means of squares of equally many images can be averaged over devices
        # and parts, variances cannot.
        return Moments(
            jnp.mean(x, axes, keepdims=True), jnp.mean(jnp.square(x), axes, keepdims=True)
        )

    def synchronize(self, moments: Moments) -> Moments:
        """Moments averaged over devices, if there is an axis."""
        if not self._axis:
            return moments
        return Moments(
            *(jax.lax.pmean(m, self._axis, axis_index_groups=self._groups) for m in moments)
        )

    def remember(self, moments: Moments) -> None:
        """Moves the running statistics."""
        self._mean(moments.mean)
        self._var(_variance(moments))

    def normalize(self, x: jax.Array, moments: Moments) -> jax.Array:
        """x with these moments taken out, then scaled and shifted."""
        return self._scaled(x, moments.mean, _variance(moments))

    def _scaled(self, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        inverse = jax.lax.rsqrt(var + jnp.asarray(self._eps, var.dtype))
        if self._has_scale:
            scale = hk.get_parameter("scale", mean.shape, mean.dtype, self._scale_init)
            inverse = scale * inverse
        normalized = (x.astype(mean.dtype) - mean) * inverse
        if self._has_offset:
            offset = hk.get_parameter("offset", mean.shape, mean.dtype, jnp.zeros)
            normalized = normalized + offset
        return normalized.astype(x.dtype)


def _variance(moments: Moments) -> jax.Array:
    return moments.mean_of_squares - jnp.square(moments.mean)


def precise(dtype: jnp.dtype) -> jnp.dtype:
    """The type in which norms compute for inputs of a type: float32 or better."""
    return jnp.promote_types(dtype, jnp.float32)
