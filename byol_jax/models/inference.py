"""A frozen encoder as a function of images."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np


def make_encode(
    forward: hk.TransformedWithState, *, image_size: int
) -> Callable[[Any, Any, np.ndarray], jax.Array]:
    """Builds encode(params, state, uint8 images [b, H, W, 3]) -> embedding [b, F], compiled."""

    @jax.jit
    def encode(params: Any, state: Any, images: jax.Array) -> jax.Array:
        images = resize(images, image_size)
        outputs, _ = forward.apply(params, state, None, images, is_training=False, part="encoder")
        return outputs.embedding

    return encode


def make_maps(
    forward: hk.TransformedWithState,
) -> Callable[[Any, Any, np.ndarray], tuple[jax.Array, ...]]:
    """Builds maps(params, state, images [b, H, W, 3]) -> [b, h, w, c] of each group, compiled.

    Images are uint8, or float in [0, 1], and keep their size.
    """

    @jax.jit
    def maps(params: Any, state: Any, images: jax.Array) -> tuple[jax.Array, ...]:
        images = to_unit_range(images)
        outputs, _ = forward.apply(params, state, None, images, is_training=False, part="maps")
        return outputs.maps

    return maps


def make_calibrate(
    forward: hk.TransformedWithState, *, image_size: int
) -> Callable[[Any, Any, np.ndarray], Any]:
    """Builds calibrate(params, state, images) -> state after one pass in training mode.

    The new state holds running batch-norm statistics of the images.
    """

    @jax.jit
    def calibrate(params: Any, state: Any, images: jax.Array) -> Any:
        images = resize(images, image_size)
        _, new = forward.apply(params, state, None, images, is_training=True, part="encoder")
        return new

    return calibrate


def resize(images: jax.Array, size: int) -> jax.Array:
    """Images [b, H, W, 3] to float32 [b, size, size, 3] in [0, 1], bicubic if sizes differ.

    Args:
      images: uint8, or float in [0, 1].
      size: in pixels.

    Raises:
      ValueError: images of another type or shape, which would give numbers without a meaning.
    """
    images = to_unit_range(images)
    if images.shape[1:3] == (size, size):
        return images
    shape = (images.shape[0], size, size, 3)
    return jnp.clip(jax.image.resize(images, shape, "cubic", antialias=False), 0, 1)


def to_unit_range(images: jax.Array) -> jax.Array:
    """Images [b, H, W, 3] as float32 in [0, 1].

    Args:
      images: uint8, or float in [0, 1].

    Raises:
      ValueError: images of another type or shape, which would give numbers without a meaning.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Images must be [b, H, W, 3], not {list(images.shape)}.")
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images.astype(jnp.float32)
    raise ValueError(f"Images must be uint8, or float in [0, 1], not {images.dtype}.")
