"""Convolution and max-pooling of the encoders, by whatever computes them best on a device.

On a CPU some shapes have other forms (`cpu_conv`); programs for accelerators, also those that are
lowered on a CPU, hold nothing but XLA's operations.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from byol_jax.models import cpu_conv

Pads = str | Sequence[tuple[int, int]]


class Conv2D(hk.Module):
    """A convolution with the parameters of `hk.Conv2D`.

    Args:
      channels: of the output.
      kernel: its rows and columns.
      stride: of the windows.
      dilation: between the taps of the kernel.
      pads: "SAME", "VALID", or before and after rows and columns.
      with_bias: whether to add one.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        pads: Pads = "SAME",
        with_bias: bool = True,
        name: str,
    ):
        super().__init__(name=name)
        self._channels, self._kernel = channels, kernel
        self._options = {"stride": stride, "dilation": dilation, "pads": pads}
        self._with_bias = with_bias

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [b, h, w, channels] of maps [b, H, W, c]."""
        shape = (self._kernel, self._kernel, x.shape[-1], self._channels)
        init = hk.initializers.TruncatedNormal(1 / np.sqrt(np.prod(shape[:-1])))
        y = conv2d(x, hk.get_parameter("w", shape, x.dtype, init), **self._options)
        if not self._with_bias:
            return y
        return y + hk.get_parameter("b", (self._channels,), x.dtype, jnp.zeros)


def conv2d(
    x: jax.Array, w: jax.Array, *, stride: int = 1, dilation: int = 1, pads: Pads = "SAME"
) -> jax.Array:
    """Convolves maps [b, H, W, c] with a kernel [k, k, c, d].

    Args:
      x: maps.
      w: kernel.
      stride: of the windows.
      dilation: between the taps of the kernel.
      pads: "SAME", "VALID", or before and after rows and columns.

    Returns:
      Maps [b, h, w, d].
    """
    if dilation == 1 and _is_on_cpu(x):
        explicit = _explicit(pads, x.shape, w.shape, stride)
        if cpu_conv.is_special(x, w, stride, explicit):
            return _cpu_conv2d(x, w, stride, explicit)
    return lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def max_pool(x: jax.Array, *, kernel: int, stride: int, pads: Pads = "SAME") -> jax.Array:
    """Largest of each window of maps [b, H, W, c]; padding never wins, as it is minus infinity."""
    if _is_on_cpu(x):
        explicit = _explicit(pads, x.shape, (kernel, kernel), stride)
        return _cpu_max_pool(x, kernel, stride, explicit)
    return _plain_max_pool(x, kernel, stride, pads)


def _plain_max_pool(x: jax.Array, kernel: int, stride: int, pads: Pads) -> jax.Array:
    if not isinstance(pads, str):
        pads = [(0, 0), *pads, (0, 0)]
    window, strides = (1, kernel, kernel, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)


def _is_on_cpu(x: jax.Array) -> bool:
    """Whether this machine computes on its CPU, and the maps have a known size."""
    return jax.default_backend() == "cpu" and all(isinstance(n, int) for n in x.shape[1:])


def _explicit(pads: Pads, size: Sequence[int], kernel: Sequence[int], stride: int) -> cpu_conv.Pads:
    if isinstance(pads, str):
        pads = lax.padtype_to_pads(size[1:3], kernel[:2], (stride, stride), pads)
    return tuple(tuple(int(n) for n in pair) for pair in pads)


def _by_platform(cpu: Callable[..., Any], other: Callable[..., Any], *arrays: jax.Array) -> Any:
    """One of two functions, by the platform that a program is lowered for, perhaps not this one."""
    return lax.platform_dependent(*arrays, cpu=cpu, default=other)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _cpu_conv2d(x: jax.Array, w: jax.Array, stride: int, pads: cpu_conv.Pads) -> jax.Array:
    options = {"stride": stride, "pads": pads}
    cpu, other = (functools.partial(f, **options) for f in (cpu_conv.forward, cpu_conv.plain))
    return _by_platform(cpu, other, x, w)


def _conv2d_forward(x: jax.Array, w: jax.Array, stride: int, pads: cpu_conv.Pads) -> Any:
    return _cpu_conv2d(x, w, stride, pads), (x, w)


def _conv2d_backward(stride: int, pads: cpu_conv.Pads, kept: Any, dy: jax.Array) -> Any:
    def other(x: jax.Array, w: jax.Array, dy: jax.Array) -> Any:
        return jax.vjp(lambda x, w: cpu_conv.plain(x, w, stride, pads), x, w)[1](dy)

    cpu = functools.partial(cpu_conv.backward, stride=stride, pads=pads)
    return _by_platform(cpu, other, *kept, dy)


_cpu_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _cpu_max_pool(x: jax.Array, kernel: int, stride: int, pads: cpu_conv.Pads) -> jax.Array:
    return _plain_max_pool(x, kernel, stride, pads)


def _max_pool_forward(x: jax.Array, kernel: int, stride: int, pads: cpu_conv.Pads) -> Any:
    y = _plain_max_pool(x, kernel, stride, pads)
    return y, (x, y)


def _max_pool_backward(
    kernel: int, stride: int, pads: cpu_conv.Pads, kept: Any, dy: jax.Array
) -> Any:
    def other(x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
        del y
        return jax.vjp(lambda x: _plain_max_pool(x, kernel, stride, pads), x)[1](dy)[0]

    cpu = functools.partial(cpu_conv.max_pool_backward, kernel=kernel, stride=stride, pads=pads)
    return (_by_platform(cpu, other, *kept, dy),)


_cpu_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
