"""Augments batches of images on the device: flip, colour jitter, greyscale, blur, solarize, crop.

Every image draws its own random values. ``draw`` makes them all at once and ``apply`` uses them, so
that a recorded set of values can be replayed. Section 3.1 and appendix B of the paper
(arXiv:2006.07733) describe the augmentations; the two presets are those of its table 6.

Shapes: b images, H rows, W columns, 3 channels (red, green, blue). Images are float32 in [0, 1].
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LUMA = (0.2989, 0.5870, 0.1140)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)  # [24, 4]
METHODS = ("cubic", "linear")
Colors = tuple[jax.Array, jax.Array, jax.Array]


class View(NamedTuple):
    """Probabilities and strengths of one view; plain numbers, known when the step is compiled.

    Jitter draws brightness from U[-brightness, brightness], contrast and saturation factors from
    U[1 - strength, 1 + strength] and the hue's rotation, in turns, from U[-hue, hue].
    """

    flip_probability: float = 0.5
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale_probability: float = 0.2
    blur_probability: float = 1.0
    blur_sigma_min: float = 0.1
    blur_sigma_max: float = 2.0
    solarize_probability: float = 0.0
    solarize_threshold: float = 0.5


BYOL_VIEW1 = View()
BYOL_VIEW2 = View(blur_probability=0.1, solarize_probability=0.2)


class Draws(NamedTuple):
    """The random values of b images; those of an operation matter only where its flag is set."""

    flip: jax.Array  # [b] bool
    jitter: jax.Array  # [b] bool
    brightness: jax.Array  # [b] added to every pixel
    contrast: jax.Array  # [b] factor
    saturation: jax.Array  # [b] factor
    hue: jax.Array  # [b] turns
    order: jax.Array  # [b, 4] a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE
    grayscale: jax.Array  # [b] bool
    blur: jax.Array  # [b] bool
    sigma: jax.Array  # [b] pixels
    solarize: jax.Array  # [b] bool


def augment(key: jax.Array, images: jax.Array, view: View) -> jax.Array:
    """Augments every image of a batch on its own. Images [b, H, W, 3] in [0, 1] -> same."""
    return apply(images, draw(key, images.shape[0], view), view)


def draw(key: jax.Array, n: int, view: View) -> Draws:
    """Draws the random values of n images."""
    # One call of the generator for everything: it takes longer to compile than all that uses it.
    u = jax.random.uniform(key, (11, n), jnp.float32)
    signed = 2 * u - 1
    return Draws(
        flip=u[0] < view.flip_probability,
        jitter=u[1] < view.jitter_probability,
        brightness=view.brightness * signed[2],
        contrast=1 + view.contrast * signed[3],
        saturation=1 + view.saturation * signed[4],
        hue=view.hue * signed[5],
        order=jnp.asarray(ORDERS)[(len(ORDERS) * u[6]).astype(jnp.int32)],
        grayscale=u[7] < view.grayscale_probability,
        blur=u[8] < view.blur_probability,
        sigma=view.blur_sigma_min + (view.blur_sigma_max - view.blur_sigma_min) * u[9],
        solarize=u[10] < view.solarize_probability,
    )


def apply(images: jax.Array, draws: Draws, view: View) -> jax.Array:
    """Applies the drawn values. What the view gives probability 0 is not even compiled."""
    if view.flip_probability:
        images = jnp.where(_column(draws.flip, 4), flip(images), images)
    colors = _split(images)
    if view.jitter_probability:
        colors = _jitter(colors, draws)
    if view.grayscale_probability:
        luma, grays = _luma(colors), _column(draws.grayscale, 3)
        colors = tuple(jnp.where(grays, luma, color) for color in colors)
    if view.blur_probability:
        colors = _blur_some(colors, draws)
    if view.solarize_probability:
        solarizes = _column(draws.solarize, 3)
        colors = tuple(
            jnp.where(solarizes & (color >= view.solarize_threshold), 1 - color, color)
            for color in colors
        )
    return jnp.clip(jnp.stack(colors, -1), 0, 1)


def flip(images: jax.Array) -> jax.Array:
    """Mirrors images [b, H, W, 3] left and right."""
    return images[:, :, ::-1]


def brightness(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Adds shift [b] to every value; the result is not clipped."""
    return images + _column(shift, 4)


def contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales by factor [b] about the image's mean of each channel; not clipped."""
    return jnp.stack([_affine(color, factor, 0 * factor) for color in _split(images)], -1)


def saturation(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales the saturation of HSV by factor [b] and cuts it to [0, 1]."""
    return jnp.stack(_saturate_rotate(_split(images), factor, 0 * factor), -1)


def hue(images: jax.Array, turns: jax.Array) -> jax.Array:
    """Rotates the hue of HSV by turns [b]."""
    return jnp.stack(_saturate_rotate(_split(images), 1 + 0 * turns, turns), -1)


def grayscale(images: jax.Array) -> jax.Array:
    """Replaces every channel by the luma. Its weights sum to 0.9999, as the reference's do."""
    return jnp.broadcast_to(_luma(_split(images))[..., None], images.shape)


def blur(images: jax.Array, sigma: jax.Array) -> jax.Array:
    """Gaussian blur of standard deviation sigma [b] pixels; what is outside counts as black."""
    return jnp.stack(_blur(_split(images), sigma), -1)


def blur_radius(height: int) -> int:
    """The kernel reaches this many pixels to each side: a tenth of the image in all."""
    return int(height / 10 / 2)


def solarize(images: jax.Array, threshold: jax.Array) -> jax.Array:
    """Inverts the values that reach threshold [b]."""
    return jnp.where(images < _column(threshold, 4), images, 1 - images)


def rgb_to_hsv(images: jax.Array) -> jax.Array:
    """RGB [..., 3] in [0, 1] to hue in turns [0, 1), saturation and value in [0, 1]."""
    sixths, value, spread = _hexcone(_split(images))
    share = spread / jnp.where(value > 0, value, 1)
    return jnp.stack([jnp.where(sixths < 0, sixths + 6, sixths) / 6, share, value], -1)


def hsv_to_rgb(images: jax.Array) -> jax.Array:
    """The inverse of rgb_to_hsv; the hue may be any number of turns."""
    turns, share, value = _split(images)
    return jnp.stack(_from_hexcone(6 * turns, value, share * value), -1)


# Below, an image is its three colours, each [b, H, W]: loops over three interleaved channels are
# several times slower on a CPU.


def _split(images: jax.Array) -> Colors:
    return images[..., 0], images[..., 1], images[..., 2]


def _column(values: jax.Array, rank: int) -> jax.Array:
    return values.reshape(values.shape + (1,) * (rank - 1))


def _luma(colors: Colors) -> jax.Array:
    return sum(weight * color for weight, color in zip(LUMA, colors, strict=True))


def _jitter(colors: Colors, draws: Draws) -> Colors:
    """The four colour operations in each image's own order, clipped to [0, 1] after each.

    Selecting one of four operations in each of four turns would compute sixteen. But saturation and
    hue commute and never leave [0, 1], so all that matters is whether each of them comes before,
    between or after brightness and contrast; and brightness and contrast are one affine operation
    with other numbers. Hence a fixed programme for all 24 orders: saturation-hue, affine,
    saturation-hue, affine, saturation-hue, where an image skips what is not its turn.
    """
    place = (draws.order[:, :, None] == np.arange(4)) * np.arange(4)[:, None]
    place = place.sum(1).T  # [4, b] the turn of each operation
    first, last = jnp.sort(place[:2], axis=0)
    gap = (place > first).astype(jnp.int32) + (place > last)
    for turn in range(3):
        saturates = draws.jitter & (gap[SATURATION] == turn)
        rotates = draws.jitter & (gap[HUE] == turn)
        changed = _saturate_rotate(
            colors, jnp.where(saturates, draws.saturation, 1), jnp.where(rotates, draws.hue, 0)
        )
        changes = _column(saturates | rotates, 3)
        colors = tuple(jnp.where(changes, *pair) for pair in zip(changed, colors, strict=True))
        if turn < 2:
            now = (first, last)[turn]
            scales = draws.jitter & (place[CONTRAST] == now)
            shifts = draws.jitter & (place[BRIGHTNESS] == now)
            factor = jnp.where(scales, draws.contrast, 1)
            shift = jnp.where(shifts, draws.brightness, 0)
            colors = tuple(jnp.clip(_affine(color, factor, shift), 0, 1) for color in colors)
    return colors


def _affine(color: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
    """Contrast about the mean, then brightness; exact where factor is 1 or shift is 0."""
    factor = _column(factor, 3)
    mean = color.mean((1, 2), keepdims=True)
    return factor * color + (mean - factor * mean + _column(shift, 3))


def _saturate_rotate(colors: Colors, factor: jax.Array, turns: jax.Array) -> Colors:
    """Both at once. HSV's saturation is spread / value, so that its limit is spread <= value."""
    sixths, value, spread = _hexcone(colors)
    spread = jnp.clip(spread * _column(factor, 3), 0, value)
    return _from_hexcone(sixths + 6 * _column(turns, 3), value, spread)


def _hexcone(colors: Colors) -> Colors:
    """Hue in sixths of a turn [-1, 5], largest channel, and largest minus smallest channel."""
    red, green, blue = colors
    value = jnp.maximum(jnp.maximum(red, green), blue)
    spread = value - jnp.minimum(jnp.minimum(red, green), blue)
    is_red, is_green = red == value, green == value
    difference = jnp.where(is_red, green - blue, jnp.where(is_green, blue - red, red - green))
    offset = jnp.where(is_red, 0.0, jnp.where(is_green, 2.0, 4.0))
    return difference / jnp.where(spread > 0, spread, 1) + offset, value, spread


def _from_hexcone(sixths: jax.Array, value: jax.Array, spread: jax.Array) -> Colors:
    colors = []
    for peak in (0.0, 2.0, 4.0):  # where red, green and blue are largest
        away = sixths - peak
        away = jnp.abs(away - 6 * jnp.round(away / 6))  # not `%`, which is slow on a CPU
        colors.append(value - spread * jnp.clip(away - 1, 0, 1))
    return tuple(colors)


def _blur_some(colors: Colors, draws: Draws) -> Colors:
    # A real branch, also where it is always taken: XLA merges code only within a branch, and merged
    # with the blur's taps and borders the colour operations are several times slower.
    blurs = _column(draws.blur, 3)
    return jax.lax.cond(
        draws.blur.any(),
        lambda old: tuple(
            jnp.where(blurs, *pair) for pair in zip(_blur(old, draws.sigma), old, strict=True)
        ),
        lambda old: old,
        colors,
    )


def _blur(colors: Colors, sigma: jax.Array) -> Colors:
    rows = colors[0].shape[1]
    radius = blur_radius(rows)
    taps = np.arange(radius + 1)
    # A sigma of 0 is no blur.
    weights = jnp.exp(-0.5 * taps**2 / jnp.maximum(sigma * sigma, 1e-12)[:, None])
    weights = weights / (2 * weights.sum(1, keepdims=True) - weights[:, :1])
    weights = _column(weights.T, 4)
    x = jnp.pad(jnp.stack(colors, 1), ((0, 0), (0, 0), (radius, radius), (radius, radius)))
    for axis in (3, 2):
        size = x.shape[axis] - 2 * radius
        shifted = [jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(2 * radius + 1)]
        x = weights[0] * shifted[radius]
        for tap in range(1, radius + 1):
            x = x + weights[tap] * (shifted[radius - tap] + shifted[radius + tap])
    return x[:, 0], x[:, 1], x[:, 2]


def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    size: int,
    *,
    area_range: Sequence[float] = (0.08, 1.0),
    aspect_range: Sequence[float] = (3 / 4, 4 / 3),
    method: str = "cubic",
) -> jax.Array:
    """Cuts a random window out of every image and resizes it.

    Args:
      key: a random key.
      images: [b, H, W, 3], uint8, or float in [0, 1].
      size: rows and columns of the result.
      area_range: the window's share of the image's area is uniform on this.
      aspect_range: the logarithm of width / height is uniform between those of these two.
      method: ``cubic`` or ``linear``.

    Returns:
      float32 [b, size, size, 3] in [0, 1].

    Raises:
      ValueError: the method is neither.
    """
    windows = draw_windows(
        key,
        images.shape[0],
        images.shape[1:3],
        area_range=area_range,
        aspect_range=aspect_range,
    )
    return resize_windows(images, windows, size, method=method)


def draw_windows(
    key: jax.Array,
    n: int,
    image_size: Sequence[int],
    *,
    area_range: Sequence[float] = (0.08, 1.0),
    aspect_range: Sequence[float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Draws n crop windows [n, 4] int32 (top, left, height, width) of images (height, width)."""
    u = jax.random.uniform(key, (4, n), jnp.float32)
    low, high = (math.log(aspect) for aspect in aspect_range)
    area = area_range[0] + (area_range[1] - area_range[0]) * u[0]
    sides = window_sides(area, low + (high - low) * u[1], image_size)
    room = jnp.asarray(image_size)[:, None] - sides.T  # [2, n]
    corner = jnp.minimum((u[2:] * (room + 1)).astype(jnp.int32), room)
    return jnp.concatenate([corner.T, sides], 1)


def window_sides(area: jax.Array, log_aspect: jax.Array, image_size: Sequence[int]) -> jax.Array:
    """Sides [n, 2] (height, width) of windows with a share of the area and a log(width / height).

    A side longer than the image is cut to it, not drawn again, as in the reference.
    """
    height, width = image_size
    pixels = area * (height * width)
    aspect = jnp.exp(log_aspect)
    sides = jnp.round(jnp.sqrt(jnp.stack([pixels / aspect, pixels * aspect], 1)))
    return jnp.clip(sides, 1, jnp.array([height, width])).astype(jnp.int32)


def resize_windows(
    images: jax.Array, windows: jax.Array, size: int, *, method: str = "cubic"
) -> jax.Array:
    """Resizes windows [b, 4] (top, left, height, width) of images to float32 in [0, 1].

    No smoothing when the window is larger than the result, pixel centres at halves, and only
    pixels of the window count, as in the reference's resize of a cropped image.
    """
    if method not in METHODS:
        raise ValueError(f"resize method {method!r} is not one of {', '.join(METHODS)}")
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    height, width = images.shape[1:3]
    rows = _resize_matrix(windows[:, 0], windows[:, 2], height, size, method)
    columns = _resize_matrix(windows[:, 1], windows[:, 3], width, size, method)
    x = jnp.einsum("bij,bjwc->biwc", rows, images, precision="highest")
    return jnp.clip(jnp.einsum("bij,brjc->bric", columns, x, precision="highest"), 0, 1)


def _resize_matrix(
    start: jax.Array, length: jax.Array, old_size: int, new_size: int, method: str
) -> jax.Array:
    """Matrices [b, new_size, old_size] that resize the pixels from start to start + length."""
    scale = (length / new_size)[:, None]
    centre = (np.arange(new_size) + 0.5) * scale - 0.5  # [b, new_size], counted from start
    pixel = np.arange(old_size) - start[:, None]  # [b, old_size]
    weights = _kernel(jnp.abs(pixel[:, None, :] - centre[:, :, None]), method)
    inside = (pixel >= 0) & (pixel < length[:, None])
    weights = jnp.where(inside[:, None, :], weights, 0)
    return weights / weights.sum(-1, keepdims=True)


def _kernel(distance: jax.Array, method: str) -> jax.Array:
    """Weight of a pixel at a distance: linear, or Keys' cubic with a = -1/2."""
    if method == "linear":
        return jnp.maximum(1 - distance, 0)
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    return jnp.where(distance < 1, near, jnp.where(distance < 2, far, 0))
