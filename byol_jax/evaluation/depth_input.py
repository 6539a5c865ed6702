"""What depth estimation sees of an image: which part, at which size, and how it is changed.

Shapes: b images, S x S' pixels of the input, H x W of an image, h x w of what is predicted.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.augment import image_ops
from byol_jax.data import pixel_sets, pixel_views

# Of the paper's appendix D.6; flips are made on the host, with the depth.
VIEW = image_ops.View(
    flip_probability=0.0,
    jitter_probability=1.0,
    brightness=0.1255,
    contrast=0.0,
    saturation=0.5,
    hue=0.2,
    grayscale_probability=0.3,
    blur_probability=0.0,
    solarize_probability=0.0,
)


def make_example(
    size: tuple[int, int],
    output: tuple[int, int],
    example: pixel_sets.Example,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """The middle of an image and its depth, flipped or not, and numbers that color it.

    Args:
      size: S and S'.
      output: h and w.
      example: the image.
      rng: of its place in the order of all epochs.
    """
    part = center_part(example.target.shape, size)
    image = shrink(pixel_views.center(example.pixels, part), size)
    truth = pixel_views.resize_nearest(pixel_views.center(example.target, part), output)
    uniforms = rng.random(6).astype(np.float32)
    if uniforms[0] < 0.5:
        image, truth = image[:, ::-1], truth[:, ::-1]
    return {"image": image, "target": truth, "uniforms": uniforms[1:]}


def make_images(batch: Mapping[str, jax.Array]) -> jax.Array:
    """Images [b, S, S', 3] in [0, 1] whose colors are changed by each one's own numbers."""
    u = batch["uniforms"].T
    signed, ones = 2 * u - 1, jnp.ones_like(u[0])
    order = jnp.minimum((len(image_ops.ORDERS) * u[3]).astype(jnp.int32), len(image_ops.ORDERS) - 1)
    draws = image_ops.Draws(
        flip=ones < 0,
        jitter=ones > 0,
        brightness=VIEW.brightness * signed[0],
        contrast=ones,
        saturation=1 + VIEW.saturation * signed[1],
        hue=VIEW.hue * signed[2],
        order=jnp.asarray(image_ops.ORDERS)[order],
        grayscale=u[4] < VIEW.grayscale_probability,
        blur=ones < 0,
        sigma=ones,
        solarize=ones < 0,
    )
    return image_ops.apply(batch["image"].astype(jnp.float32) / 255, draws, VIEW)


CUT = 0.95  # of an image's side that the input shows: 304 of 320, 228 of 240 pixels


def center_part(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, in an image's own pixels, of the part in its middle that is the input."""
    scale = max(wanted / (CUT * side) for wanted, side in zip(size, shape, strict=True))
    return tuple(min(side, max(1, round(n / scale))) for n, side in zip(size, shape, strict=True))


def whole_part(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """All of an image, whatever its proportions are (Laina et al. 2016, their code)."""
    del size
    return shape


PARTS = {"crop": center_part, "whole": whole_part}


def shrink(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] as the input [S, S', 3]."""
    return np.rint(pixel_views.resize_area(pixels.astype(np.float32), size)).astype(np.uint8)
