"""Convolutions and max-pooling in the forms that XLA computes fast on a CPU.

XLA's own are slow there in a few shapes: 1x1 kernels, gradients of weights, gradients through
strides, maps of a few cells. Everything here equals the plain operations but for the order in which
numbers are added; `convolution` chooses. Which form pays where: experiments/speed.

Shapes: b images, H x W cells of a map, h x w of the output, k x k taps of a kernel, c channels in,
d channels out.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import lax

Pads = tuple[tuple[int, int], tuple[int, int]]

_NHWC = ("NHWC", "HWIO", "NHWC")
# Beyond it, patches do not stay in the caches and are no faster than XLA's convolution.
_PATCH_BYTES = 12 * 2**20
_MANY_CHANNELS = 256  # out of a layer, from which on patches and swapping pay
_MANY_IMAGES = 32  # from which on swapping pays


def plain(x: jax.Array, w: jax.Array, stride: int, pads: str | Sequence[tuple[int, int]]):
    """The convolution [b, h, w, d] of maps [b, H, W, c] and a kernel [k, k, c, d] by XLA."""
    return lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=_NHWC)


def is_special(x: jax.ShapeDtypeStruct, w: jax.ShapeDtypeStruct, stride: int, pads: Pads) -> bool:
    """Whether `forward` or `backward` is anything but XLA's own for these shapes."""
    if x.dtype not in (jnp.float32, jnp.float64):
        return False
    return (
        _is_product(x, w, stride, pads) or _swaps(x, w, stride) or _has_phases(x, w, stride, pads)
    )


def forward(x: jax.Array, w: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """The convolution [b, h, w, d] of maps [b, H, W, c] and a kernel [k, k, c, d]."""
    if _is_product(x, w, stride, pads):
        return _product(x, w, stride, pads)
    return plain(x, w, stride, pads)


def backward(
    x: jax.Array, w: jax.Array, dy: jax.Array, stride: int, pads: Pads
) -> tuple[jax.Array, jax.Array]:
    """Gradients of `forward` with respect to x and w, given that of its output."""
    if _is_product(x, w, stride, pads):
        return jax.vjp(lambda x, w: _product(x, w, stride, pads), x, w)[1](dy)
    if _has_phases(x, w, stride, pads):
        dx = _input_gradient_in_phases(w, dy, x.shape, stride, pads)
    else:
        (dx,) = jax.vjp(lambda x: plain(x, w, stride, pads), x)[1](dy)
    if _swaps(x, w, stride):
        dw = _weight_gradient_swapped(x, dy, w.shape, stride, pads)
    else:
        (dw,) = jax.vjp(lambda w: plain(x, w, stride, pads), w)[1](dy)
    return dx, dw


# Matrix products: of cells for 1x1 kernels, of patches where these are few.


def _is_product(x: jax.Array, w: jax.Array, stride: int, pads: Pads) -> bool:
    if _is_pointwise(w.shape, pads):
        return True
    (top, bottom), (left, right) = _reached(x.shape, w.shape, stride, pads)
    taps = (bottom - top) * (right - left)
    height, width = output_size(x.shape, w.shape, stride, pads)
    if taps == 1 or height * width == 1:
        return True
    if not isinstance(x.shape[0], int):  # of an export for any number of images
        return False
    patches = x.shape[0] * height * width * taps * x.shape[3] * x.dtype.itemsize
    return w.shape[3] >= _MANY_CHANNELS and patches <= _PATCH_BYTES


def _is_pointwise(kernel: Sequence[int], pads: Pads) -> bool:
    return tuple(kernel[:2]) == (1, 1) and pads == ((0, 0), (0, 0))


def _product(x: jax.Array, w: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Patches [b h w, taps c] times kernel [taps c, d], without taps that meet padding alone."""
    (top, bottom), (left, right) = _reached(x.shape, w.shape, stride, pads)
    patches = [
        window
        for (i, j), window in windows(x, w.shape, stride, pads, 0)
        if top <= i < bottom and left <= j < right
    ]
    joined = patches[0] if len(patches) == 1 else jnp.concatenate(patches, -1)
    kernel = w[top:bottom, left:right].reshape(-1, w.shape[3])
    y = joined.reshape(-1, joined.shape[-1]) @ kernel
    return y.reshape(*joined.shape[:3], -1)


def _reached(
    size: Sequence[int], kernel: Sequence[int], stride: int, pads: Pads
) -> tuple[tuple[int, int], tuple[int, int]]:
    """From and to which row and column of the kernel any output sees more than padding."""
    found = []
    for axis, out in enumerate(output_size(size, kernel, stride, pads)):
        low = pads[axis][0]
        taps = [
            tap
            for tap in range(kernel[axis])
            if any(0 <= o * stride + tap - low < size[axis + 1] for o in range(out))
        ]
        found.append((taps[0], taps[-1] + 1))
    return tuple(found)


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: int, pads: Pads
) -> tuple[int, int]:
    """Rows and columns of what comes out of a convolution of maps [b, H, W, c]."""
    return tuple(
        (size[axis + 1] + sum(pads[axis]) - kernel[axis]) // stride + 1 for axis in range(2)
    )


def windows(
    x: jax.Array, kernel: Sequence[int], stride: int, pads: Pads, fill: float
) -> Iterator[tuple[tuple[int, int], jax.Array]]:
    """What each tap of a kernel sees: its place, and [b, h, w, c]."""
    height, width = output_size(x.shape, kernel, stride, pads)
    rows, columns = ((height - 1) * stride + 1, (width - 1) * stride + 1)
    borders = ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0))
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), borders)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            yield (i, j), padded[:, i : i + rows : stride, j : j + columns : stride]


# Gradient of the weights with input channels in the place of a map's columns.


def _swaps(x: jax.Array, w: jax.Array, stride: int) -> bool:
    if w.shape[:2] != (3, 3) or w.shape[2] < _MANY_CHANNELS // 2 or w.shape[3] < _MANY_CHANNELS:
        return False
    is_known = isinstance(x.shape[0], int)
    return is_known and x.shape[0] >= _MANY_IMAGES and (stride == 2 or x.shape[1] <= 16)


def _weight_gradient_swapped(
    x: jax.Array, dy: jax.Array, kernel: Sequence[int], stride: int, pads: Pads
) -> jax.Array:
    """For each column of the kernel, a convolution over rows; its channels are images and columns.

    XLA's own has input channels in the place of images, and so only images as channels, too few to
    fill a vector.
    """
    _, height, _, channels = x.shape
    b, rows, columns, out = dy.shape
    top = pads[0][0]
    bottom = (rows - 1) * stride + kernel[0] - height - top
    # Fused into what follows, the transposition would run once for each column.
    turned = lax.optimization_barrier(x.transpose(1, 3, 0, 2))  # [H, c, b, W]
    images = dy.transpose(1, 0, 2, 3).reshape(rows, 1, b * columns, out)
    parts = []
    for j in range(kernel[1]):
        start, end = j - pads[1][0], j - pads[1][0] + (columns - 1) * stride + 1
        edge = ((0, 0, 0),) * 3 + ((-start, end - x.shape[2], 0),)
        seen = lax.pad(turned, jnp.zeros((), x.dtype), edge)[..., ::stride]
        seen = seen.reshape(1, height, channels, b * columns)
        parts.append(
            lax.conv_general_dilated(
                seen,
                images,
                (1, 1),
                ((top, bottom), (0, 0)),
                rhs_dilation=(stride, 1),
                dimension_numbers=_NHWC,
            )  # [1, k, c, d]
        )
    return jnp.concatenate(parts, 0).transpose(1, 0, 2, 3)


# Gradient of the input through a stride of 2.


def _has_phases(x: jax.Array, w: jax.Array, stride: int, pads: Pads) -> bool:
    if stride != 2 or w.shape[:2] != (3, 3) or not 64 <= w.shape[2] <= 128:
        return False
    height, width = output_size(x.shape, w.shape, stride, pads)
    return x.shape[1:3] == (2 * height, 2 * width) and min(x.shape[1:3]) >= 24


def _input_gradient_in_phases(
    w: jax.Array, dy: jax.Array, size: Sequence[int], stride: int, pads: Pads
) -> jax.Array:
    """Even and odd rows and columns apart, each a dense convolution of dy with its own taps.

    XLA's own puts zeros between the cells of dy and computes with them.
    """
    rows = []
    for row in range(stride):
        row_taps, row_pads = _phase(row, w.shape[0], stride, pads[0][0], dy.shape[1])
        parts = []
        for column in range(stride):
            taps, column_pads = _phase(column, w.shape[1], stride, pads[1][0], dy.shape[2])
            kernel = w[row_taps][:, taps].swapaxes(2, 3)
            parts.append(plain(dy, kernel, 1, (row_pads, column_pads)))
        rows.append(jnp.stack(parts, 3))  # [b, h, w, 2, c]
    return jnp.stack(rows, 2).reshape(size)


def _phase(
    place: int, kernel: int, stride: int, low: int, out: int
) -> tuple[slice, tuple[int, int]]:
    """Taps that reach cells `place`, `place` + stride, ..., backwards; padding of dy for them."""
    taps = [tap for tap in reversed(range(kernel)) if (place + low - tap) % stride == 0]
    first, last = ((place + low - tap) // stride for tap in (taps[0], taps[-1]))
    stop = taps[-1] - stride
    chosen = slice(taps[0], stop if stop >= 0 else None, -stride)
    return chosen, (-first, last)


# Max-pooling.


def max_pool_backward(
    x: jax.Array, y: jax.Array, dy: jax.Array, kernel: int, stride: int, pads: Pads
) -> jax.Array:
    """Gradient of max-pooling from x to y; of equal cells the first in a window gets all of it.

    XLA's own finds the cell of each window anew, cell by cell.
    """
    size = (kernel, kernel)
    _, height, width, _ = y.shape
    padded = [x.shape[axis + 1] + sum(pads[axis]) for axis in range(2)]
    taken = jnp.zeros(y.shape, bool)
    dx = jnp.zeros((x.shape[0], *padded, x.shape[3]), x.dtype)
    for (i, j), seen in windows(x, size, stride, pads, -jnp.inf):
        wins = (seen == y) & ~taken
        taken |= wins
        rows = (i, padded[0] - i - (height - 1) * stride - 1, stride - 1)
        columns = (j, padded[1] - j - (width - 1) * stride - 1, stride - 1)
        edge = ((0, 0, 0), rows, columns, (0, 0, 0))
        dx += lax.pad(jnp.where(wins, dy, 0), jnp.zeros((), x.dtype), edge)
    (top, _), (left, _) = pads
    return dx[:, top : top + x.shape[1], left : left + x.shape[2]]
