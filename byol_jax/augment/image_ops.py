"""Augments batches of images on the device: flip, color jitter, grayscale, blur, solarize.

Every image draws its own random values: ``draw`` makes them and ``apply`` uses them, so that a
recorded set of values can be replayed. The operations, their order and the two presets are those of
the paper (arXiv:2006.07733, section 3.3 and appendix B) in the reference's definitions: brightness
is added, contrast is about the mean of each channel, saturation and hue go through HSV.

Shapes: b images, H rows, W columns, 3 channels (red, green, blue), float32 in [0, 1].
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)  # [24, 4]
LUMA = (0.2989, 0.5870, 0.1140)  # the reference's; they sum to 0.9999
Colors = tuple[jax.Array, jax.Array, jax.Array]  # red, green, blue, each [b, H, W]


class View(NamedTuple):
    """Probabilities and strengths of one view; plain numbers, known when the step is compiled.

    Brightness is drawn from U[-brightness, brightness], the factors of contrast and saturation from
    U[1 - strength, 1 + strength], the rotation of the hue, in turns, from U[-hue, hue].
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
    extra: Sequence[str] = ()  # names of augmentations of users' own, which come last


BYOL_VIEW1 = View()
BYOL_VIEW2 = View(blur_probability=0.1, solarize_probability=0.2)


class Draws(NamedTuple):
    """The random values of b images; those of an operation matter only where its flag is set."""

    flip: jax.Array  # [b] bool
    jitter: jax.Array  # [b] bool
    brightness: jax.Array  # [b] added to every value
    contrast: jax.Array  # [b] factor
    saturation: jax.Array  # [b] factor
    hue: jax.Array  # [b] turns
    order: jax.Array  # [b, 4] a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE
    grayscale: jax.Array  # [b] bool
    blur: jax.Array  # [b] bool
    sigma: jax.Array  # [b] pixels
    solarize: jax.Array  # [b] bool


def augment(key: jax.Array, images: jax.Array, view: View) -> jax.Array:
    """Augments each of images [b, H, W, 3] on its own."""
    return apply(images, draw(key, images.shape[0], view), view)


def draw(key: jax.Array, n: int, view: View) -> Draws:
    """Draws the random values of n images."""
    # One call of the generator for everything, as it takes long to compile.
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
    """Applies drawn values to images [b, H, W, 3]; the view's other strengths play no part here.

    What the view gives probability 0 is not even compiled.
    """
    if view.flip_probability:
        images = jnp.where(_column(draws.flip), flip(images), images)
    colors = _split(images)
    if view.jitter_probability:
        colors = _jitter(colors, draws)
    if view.grayscale_probability:
        luma = _luma(colors)
        colors = _choose(draws.grayscale, (luma, luma, luma), colors)
    if view.blur_probability:
        colors = _blur_some(colors, draws)
    images = jnp.stack(colors, -1)
    if view.solarize_probability:
        solarized = solarize(images, jnp.float32(view.solarize_threshold))
        images = jnp.where(_column(draws.solarize), solarized, images)
    return jnp.clip(images, 0, 1)


def flip(images: jax.Array) -> jax.Array:
    """Mirrors images [b, H, W, 3] left and right."""
    return images[:, :, ::-1]


def brightness(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Adds shift [b] to every value; does not clip."""
    return images + _column(shift)


def contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales by factor [b] about the image's mean of each channel; does not clip."""
    return jnp.stack(_affine(_split(images), factor, jnp.zeros_like(factor)), -1)


def saturation(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales the saturation of HSV by factor [b], at most to 1."""
    return jnp.stack(_saturate_rotate(_split(images), factor, jnp.zeros_like(factor)), -1)


def hue(images: jax.Array, turns: jax.Array) -> jax.Array:
    """Rotates the hue of HSV by turns [b]."""
    return jnp.stack(_saturate_rotate(_split(images), jnp.ones_like(turns), turns), -1)


def grayscale(images: jax.Array) -> jax.Array:
    """Replaces every channel by the luma."""
    return jnp.broadcast_to(_luma(_split(images))[..., None], images.shape)


def blur(images: jax.Array, sigma: jax.Array) -> jax.Array:
    """Gaussian blur of standard deviation sigma [b] pixels; what is outside counts as black."""
    return jnp.stack(_blur(_split(images), sigma), -1)


def blur_radius(height: int) -> int:
    """How many pixels the kernel reaches to each side: it is a tenth of the image in all."""
    return int(height / 10 / 2)


def solarize(images: jax.Array, threshold: jax.Array) -> jax.Array:
    """Inverts the values that reach threshold, [b] or a number."""
    return jnp.where(images < _column(threshold), images, 1 - images)


def rgb_to_hsv(images: jax.Array) -> jax.Array:
    """RGB [..., 3] in [0, 1] to hue in turns [0, 1), saturation and value in [0, 1]."""
    sixths, value, spread = _hexcone(_split(images))
    hues = jnp.where(sixths < 0, sixths + 6, sixths) / 6
    return jnp.stack([hues, spread / jnp.where(value > 0, value, 1), value], -1)


def hsv_to_rgb(images: jax.Array) -> jax.Array:
    """The inverse of rgb_to_hsv; the hue may be any number of turns."""
    turns, fraction, value = _split(images)
    return jnp.stack(_from_hexcone(6 * turns, value, fraction * value), -1)


# Inside, an image is its three colors: on a CPU, loops over interleaved channels are far slower.


def _split(images: jax.Array) -> Colors:
    return images[..., 0], images[..., 1], images[..., 2]


def _column(values: jax.Array, rank: int = 4) -> jax.Array:
    return values.reshape(values.shape + (1,) * (rank - 1))


def _choose(flags: jax.Array, yes: Colors, no: Colors) -> Colors:
    return tuple(jnp.where(_column(flags, 3), *pair) for pair in zip(yes, no, strict=True))


def _luma(colors: Colors) -> jax.Array:
    return sum(weight * color for weight, color in zip(LUMA, colors, strict=True))


def _jitter(colors: Colors, draws: Draws) -> Colors:
    """The four color operations in each image's own order, clipped to [0, 1] after each.

    To select one of four operations in each of four turns is to compute sixteen. But saturation and
    hue commute and do not leave [0, 1]: what matters is whether each comes before, between or after
    brightness and contrast, and those two are one affine operation with different numbers. So one
    programme serves all 24 orders, and every image skips the steps in which it has nothing to do:
    saturation-hue, affine, saturation-hue, affine, saturation-hue.
    """
    turn = _turns(draws.order)  # [brightness, contrast, saturation, hue; b]
    affine_turns = jnp.minimum(turn[0], turn[1]), jnp.maximum(turn[0], turn[1])
    gap = sum((turn > affine_turn).astype(jnp.int32) for affine_turn in affine_turns)
    for step in range(3):
        saturates, rotates = draws.jitter & (gap[2:] == step)
        factor = jnp.where(saturates, draws.saturation, 1)
        changed = _saturate_rotate(colors, factor, jnp.where(rotates, draws.hue, 0))
        # Even with nothing to change, HSV and back would round.
        colors = _choose(saturates | rotates, changed, colors)
        if step < 2:
            shifts, scales = draws.jitter & (turn[:2] == affine_turns[step])
            factor = jnp.where(scales, draws.contrast, 1)
            colors = _affine(colors, factor, jnp.where(shifts, draws.brightness, 0))
            colors = tuple(jnp.clip(color, 0, 1) for color in colors)
    return colors


def _turns(order: jax.Array) -> jax.Array:
    """The inverse permutations [4, b] of [b, 4]: when each operation's turn comes."""
    is_operation = order.T == np.arange(4)[:, None, None]  # [operation, turn, b]
    return (is_operation * np.arange(4)[:, None]).sum(1)


def _affine(colors: Colors, factor: jax.Array, shift: jax.Array) -> Colors:
    """Contrast and brightness; with factor 1 and shift 0 exactly the input."""
    factor, shift = _column(factor, 3), _column(shift, 3)
    means = (color.mean((1, 2), keepdims=True) for color in colors)
    return tuple(
        factor * color + (mean - factor * mean + shift)
        for color, mean in zip(colors, means, strict=True)
    )


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
    aways = (sixths - peak for peak in (0, 2, 4))  # from where red, green, blue are largest
    aways = (jnp.abs(away - 6 * jnp.round(away / 6)) for away in aways)  # `%` is slow on a CPU
    return tuple(value - spread * jnp.clip(away - 1, 0, 1) for away in aways)


def _blur_some(colors: Colors, draws: Draws) -> Colors:
    # A real branch, even where it is always taken: XLA does not merge code across it, and merged
    # into the blur's borders the color operations run twice as long.
    def some(old: Colors) -> Colors:
        return _choose(draws.blur, _blur(old, draws.sigma), old)

    return jax.lax.cond(draws.blur.any(), some, lambda old: old, colors)


def _blur(colors: Colors, sigma: jax.Array) -> Colors:
    """Adds shifted copies: on a CPU faster than banded matrix products or convolutions."""
    radius = blur_radius(colors[0].shape[1])
    exponent = -0.5 * np.arange(radius + 1, dtype=np.float32) ** 2
    weights = jnp.exp(exponent / jnp.maximum(sigma**2, 1e-12)[:, None])  # sigma 0 is no blur
    weights = weights / (2 * weights.sum(1, keepdims=True) - weights[:, :1])
    weights = _column(weights.T[..., None], 3)  # [radius + 1, b, 1, 1, 1]
    x = jnp.pad(jnp.stack(colors, 1), ((0, 0), (0, 0), (radius, radius), (radius, radius)))
    for axis in (3, 2):
        size = x.shape[axis] - 2 * radius
        taps = [jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(2 * radius + 1)]
        x = weights[0] * taps[radius]
        for i in range(1, radius + 1):
            x = x + weights[i] * (taps[radius - i] + taps[radius + i])
    return x[:, 0], x[:, 1], x[:, 2]
