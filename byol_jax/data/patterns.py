"""The embedded data set: ten classes of two-colored wallpaper, drawn from a seed.

Every image repeats one motif every few pixels, so that any crop still shows its class. What varies
from image to image (colors, period, phase, angle, light, noise) says nothing about the class, and
is enough that pixels alone are a poor guide to it. The colors differ in value more than the images
differ from each other: otherwise BYOL learns colors first, and motifs not at all within minutes.
Nothing is stored: the same seed always draws the same images, thousands a second.

Shapes: N images, S sub-pixels along a side (each pixel is the mean of 2x2).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from byol_jax import config as config_lib

IMAGE_SIZE = 32
_SUBPIXELS = 2  # along each side of a pixel: softens edges as a camera would
_CHUNK = 250  # images drawn at a time, to keep memory small

Array = np.ndarray


class Split(NamedTuple):
    """How a split is drawn: its number of images and the seed that it alone uses."""

    num_images: int
    seed: int


SPLITS = {
    "train": Split(5000, seed=1),
    "validation": Split(1000, seed=2),  # for tuning
    "test": Split(2000, seed=3),  # for reporting: choose nothing on it
}


def _centered(x: Array) -> Array:
    """Position within the period, from -0.5 to 0.5."""
    return x % 1 - np.float32(0.5)


def _plusses(u: Array, v: Array) -> Array:
    across, along = np.abs(_centered(u)), np.abs(_centered(v))
    return (np.minimum(across, along) < 0.14) & (np.maximum(across, along) < 0.42)


def _dashes(u: Array, v: Array) -> Array:
    shift = 0.5 * (np.floor(v) % 2)
    return (v % 1 < 0.5) & ((u / 2 + shift) % 1 < 0.5)


# Whether a point belongs to the motif; u runs right and v runs down, both in periods. The factor
# 0.7 makes what runs diagonally repeat at the period too, instead of at 0.7 of it.
_MOTIFS: dict[str, Callable[[Array, Array], Array]] = {
    "rows": lambda u, v: v % 1 < 0.5,
    "columns": lambda u, v: u % 1 < 0.5,
    "diagonals": lambda u, v: 0.7 * (u + v) % 1 < 0.5,
    "checks": lambda u, v: (0.7 * u % 1 < 0.5) ^ (0.7 * v % 1 < 0.5),
    "disks": lambda u, v: _centered(u) ** 2 + _centered(v) ** 2 < 0.3**2,
    "grid": lambda u, v: (u % 1 < 0.3) | (v % 1 < 0.3),
    "zigzag": lambda u, v: (v + 2 * np.abs(_centered(u / 2))) % 1 < 0.5,
    "plusses": _plusses,
    "triangles": lambda u, v: v % 1 > 2 * np.abs(_centered(u)),
    "dashes": _dashes,
}
CLASS_NAMES = tuple(_MOTIFS)


def _hsv_to_rgb(hsv: Array) -> Array:
    """Colors [..., 3] from hue, saturation and value, all in [0, 1]."""
    hue, saturation, value = np.moveaxis(hsv, -1, 0)[..., None]
    # Red, green and blue each follow one trapezoid around the circle of hues.
    sector = (6 * hue + np.array([5.0, 3.0, 1.0])) % 6
    return value * (1 - saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def _draw_palettes(
    rng: np.random.RandomState,
    n: int,
    saturation: tuple[float, float],
    value: tuple[float, float],
    contrast: tuple[float, float],
) -> Array:
    """Colors of motif and ground [N, 2, 3] of any two hues; the motif is the lighter one."""
    hue = rng.uniform(0, 1, (n, 2))
    purity = np.broadcast_to(rng.uniform(*saturation, (n, 1)), (n, 2))
    half = rng.uniform(*contrast, (n, 1)) / 2
    tone = rng.uniform(*value, (n, 1)) + half * np.array([1, -1])
    return _hsv_to_rgb(np.stack([hue, purity, tone], axis=-1))


def _draw_coordinates(
    rng: np.random.RandomState, n: int, period: tuple[float, float], rotation: float
) -> Array:
    """Affine maps [N, 2, 3] from a place (x, y, 1) in pixels to (u, v) in periods."""
    scale = 1 / rng.uniform(*period, n)
    angle = rng.uniform(-rotation, rotation, n) * np.pi / 180
    mirror = rng.choice([-1.0, 1.0], n)
    offset = rng.uniform(0, 8, (n, 2))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    rows = [[mirror * cos, mirror * sin, offset[:, 0]], [-sin, cos, offset[:, 1]]]
    return np.moveaxis(np.array(rows), -1, 0)


def _draw_lights(rng: np.random.RandomState, n: int, illumination: float) -> Array:
    """Gradients of brightness [N, 2] across half an image, towards x and y."""
    direction = rng.uniform(0, 2 * np.pi, n)
    strength = rng.uniform(0, illumination, n)
    return np.stack([strength * np.cos(direction), strength * np.sin(direction)], axis=-1)


def _render(labels: Array, coordinates: Array, palettes: Array, lights: Array) -> Array:
    """Noiseless images [N, 32, 32, 3], float32."""
    side = IMAGE_SIZE * _SUBPIXELS
    place = ((np.arange(side) + 0.5) / _SUBPIXELS - IMAGE_SIZE / 2).astype(np.float32)
    x, y = place[None, None, :], place[None, :, None]  # [1, 1, S] and [1, S, 1]
    a = coordinates.astype(np.float32)[..., None, None]  # [N, 2, 3, 1, 1]
    u = a[:, 0, 0] * x + a[:, 0, 1] * y + a[:, 0, 2]  # [N, S, S]
    v = a[:, 1, 0] * x + a[:, 1, 1] * y + a[:, 1, 2]
    mask = np.empty(u.shape, np.float32)
    for label, motif in enumerate(_MOTIFS.values()):
        chosen = labels == label
        mask[chosen] = motif(u[chosen], v[chosen])
    shape = (len(labels), IMAGE_SIZE, _SUBPIXELS, IMAGE_SIZE, _SUBPIXELS)
    mask = mask.reshape(shape).mean(axis=(2, 4))[..., None]  # [N, 32, 32, 1]
    colors = palettes.astype(np.float32)[:, :, None, None]  # [N, 2, 1, 1, 3]
    image = colors[:, 1] + mask * (colors[:, 0] - colors[:, 1])
    pixel = (np.arange(IMAGE_SIZE) + 0.5) / (IMAGE_SIZE / 2) - 1
    light = lights.astype(np.float32)[..., None, None]  # [N, 2, 1, 1]
    shade = 1 + light[:, 0] * pixel[None, :].astype(np.float32)
    shade = shade + light[:, 1] * pixel[:, None].astype(np.float32)
    return image * shade[..., None]


def make_patterns(
    num_images: int,
    seed: int,
    *,
    period: tuple[float, float] = (5.0, 9.0),
    rotation: float = 15.0,
    saturation: tuple[float, float] = (0.0, 0.5),
    value: tuple[float, float] = (0.4, 0.7),
    contrast: tuple[float, float] = (0.25, 0.4),
    illumination: float = 0.2,
    noise: float = 0.06,
) -> tuple[Array, Array]:
    """Draws images of wallpaper and the motif of each.

    Classes are in random order and as even as ``num_images`` allows. The same arguments give the
    same images on every machine, but for the rounding of single pixel values.

    Args:
        num_images: at least 1.
        seed: of this set alone; other seeds share no image with it.
        period: shortest and longest distance in pixels at which the motif repeats.
        rotation: largest angle in degrees, to either side.
        saturation: smallest and largest saturation (of HSV) of both colors.
        value: smallest and largest mean value (of HSV) of the two colors.
        contrast: smallest and largest difference in value of motif (lighter) and ground.
        illumination: largest relative change of brightness from the center to an edge.
        noise: standard deviation of the noise in every channel of every pixel.

    Returns:
        Images uint8 [N, 32, 32, 3] and labels int32 [N], indices into ``CLASS_NAMES``.

    Raises:
        ValueError: if ``num_images`` is smaller than 1.
    """
    if num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {num_images}")
    # RandomState rather than Generator: NumPy promises that its stream never changes.
    rng = np.random.RandomState(seed)
    labels = rng.permutation(np.arange(num_images) % len(CLASS_NAMES)).astype(np.int32)
    coordinates = _draw_coordinates(rng, num_images, period, rotation)
    palettes = _draw_palettes(rng, num_images, saturation, value, contrast)
    lights = _draw_lights(rng, num_images, illumination)
    images = np.empty((num_images, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for start in range(0, num_images, _CHUNK):
        part = slice(start, start + _CHUNK)
        image = _render(labels[part], coordinates[part], palettes[part], lights[part])
        image = image + np.float32(noise) * rng.standard_normal(image.shape).astype(np.float32)
        images[part] = np.clip(255 * image + 0.5, 0, 255)
    return images, labels


def load(split: str) -> tuple[Array, Array]:
    """Draws a split of the data set.

    Args:
        split: a key of ``SPLITS``.

    Returns:
        Images and labels as ``make_patterns`` gives them.

    Raises:
        UsageError: if there is no such split.
    """
    return make_patterns(*config_lib.lookup(SPLITS, split, key="split of patterns"))
