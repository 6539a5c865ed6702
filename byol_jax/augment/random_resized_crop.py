"""Cuts random windows out of batches of images and resizes them, on the device.

Shapes: b images, H rows, W columns, 3 channels.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.augment import resize_kernels


def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    size: int,
    *,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
    method: str = "cubic",
) -> jax.Array:
    """Cuts a random window out of each of images [b, H, W, 3], uint8 or float, and resizes it.

    Returns float32 [b, size, size, 3] in [0, 1]; see draw_windows and resize_windows.
    """
    windows = draw_windows(
        key, images.shape[0], images.shape[1:3], area_range=area_range, aspect_range=aspect_range
    )
    return resize_windows(images, windows, size, method=method)


def draw_windows(
    key: jax.Array,
    n: int,
    image_size: tuple[int, int],
    *,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Draws n windows [n, 4] int32 (top, left, height, width) in images of (height, width).

    The fraction of the area and the logarithm of width / height are uniform on their ranges, the
    corner is uniform where the window fits.
    """
    u = jax.random.uniform(key, (4, n), jnp.float32)
    low, high = (math.log(aspect) for aspect in aspect_range)
    area = area_range[0] + (area_range[1] - area_range[0]) * u[0]
    sides = window_sides(area, low + (high - low) * u[1], image_size)
    room = jnp.array(image_size, jnp.int32) - sides
    corner = jnp.minimum((u[2:].T * (room + 1)).astype(jnp.int32), room)
    return jnp.concatenate([corner, sides], 1)


def window_sides(area: jax.Array, log_aspect: jax.Array, image_size: tuple[int, int]) -> jax.Array:
    """Sides [n, 2] int32 (height, width) for fractions of the area [n] and log(width / height) [n].

    A side longer than the image is cut, not drawn again, as in the reference.
    """
    pixels, aspect = area * (image_size[0] * image_size[1]), jnp.exp(log_aspect)
    sides = jnp.round(jnp.sqrt(jnp.stack([pixels / aspect, pixels * aspect], 1)))
    return jnp.clip(sides, 1, jnp.array(image_size)).astype(jnp.int32)


def resize_windows(
    images: jax.Array, windows: jax.Array, size: int, *, method: str = "cubic"
) -> jax.Array:
    """Resizes windows [b, 4] (top, left, height, width) of images [b, H, W, 3], uint8 or float.

    As the reference resizes a cropped image: method ``cubic`` (Keys, a = -1/2) or ``linear``, no
    smoothing before shrinking, pixel centers at halves, pixels outside the window do not count.

    Returns:
      float32 [b, size, size, 3], clipped to [0, 1]; uint8 images are divided by 255.

    Raises:
      ValueError: no such method.
    """
    height, width = images.shape[1:3]
    down = _resize_matrix(windows[:, 0], windows[:, 2], height, size, method)
    across = _resize_matrix(windows[:, 1], windows[:, 3], width, size, method)
    scale = 255 if images.dtype == jnp.uint8 else 1
    colors = (color.astype(jnp.float32) / scale for color in jnp.moveaxis(images, -1, 0))
    colors = (jnp.einsum("bih,bhw->biw", down, c, precision="highest") for c in colors)
    colors = (jnp.einsum("biw,bjw->bij", c, across, precision="highest") for c in colors)
    return jnp.clip(jnp.stack(list(colors), -1), 0, 1)


def _resize_matrix(
    start: jax.Array, length: jax.Array, old_size: int, new_size: int, method: str
) -> jax.Array:
    """Matrices [b, new_size, old_size] that resize length [b] pixels that begin at start [b]."""
    scale = length.astype(jnp.float32)[:, None] / new_size
    center = (np.arange(new_size, dtype=np.float32) + 0.5) * scale - 0.5  # counted from start
    pixel = np.arange(old_size) - start[:, None]
    if method not in KERNELS:
        raise ValueError(f"resize method {method!r} is not one of {', '.join(KERNELS)}")
    weights = KERNELS[method](jnp.abs(pixel[:, None, :] - center[:, :, None]))
    inside = (pixel >= 0) & (pixel < length[:, None])
    weights = jnp.where(inside[:, None, :], weights, 0)
    return weights / weights.sum(-1, keepdims=True)


def _linear(distance: jax.Array) -> jax.Array:
    return jnp.maximum(1 - distance, 0)


KERNELS = {
    "cubic": functools.partial(resize_kernels.cubic, where=jnp.where),
    "linear": _linear,
}
