"""How fast are the augmentations, next to the usual way of writing them one image at a time?

    python -m experiments.augment.benchmark

The baseline augments one image under ``jax.vmap``: every operation behind ``lax.cond``, a
``lax.switch`` for each of the four turns of the color jitter, a depthwise convolution for the
blur. Under ``vmap`` a branch becomes a selection, so that all branches are computed. Both make the
two views of BYOL from batches in [0, 1] and their repeats alternate, so that other load on the
machine hits both.
"""

import argparse
import functools
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.augment import image_ops

BATCHES = {32: 128, 96: 64, 224: 16}
VIEWS = (image_ops.BYOL_VIEW1, image_ops.BYOL_VIEW2)


def baseline(key: jax.Array, images: jax.Array, view: image_ops.View) -> jax.Array:
    """Augments images one at a time."""
    keys = jax.random.split(key, len(images))
    return jax.vmap(functools.partial(_augment_one, view=view))(keys, images)


def _augment_one(key: jax.Array, image: jax.Array, view: image_ops.View) -> jax.Array:
    keys = jax.random.split(key, 6)
    image = _sometimes(keys[0], view.flip_probability, lambda x: x[:, ::-1], image)
    image = _sometimes(
        keys[1], view.jitter_probability, lambda x: _jitter_one(keys[2], x, view), image
    )
    image = _sometimes(keys[3], view.grayscale_probability, _gray_one, image)
    blur_keys = jax.random.split(keys[4])
    sigma = jax.random.uniform(blur_keys[0], minval=view.blur_sigma_min, maxval=view.blur_sigma_max)
    image = _sometimes(blur_keys[1], view.blur_probability, lambda x: _blur_one(x, sigma), image)
    image = _sometimes(
        keys[5],
        view.solarize_probability,
        lambda x: jnp.where(x < view.solarize_threshold, x, 1 - x),
        image,
    )
    return jnp.clip(image, 0, 1)


def _sometimes(key, probability, operation, image):
    return jax.lax.cond(jax.random.uniform(key) < probability, operation, lambda x: x, image)


def _jitter_one(key, image, view):
    keys = jax.random.split(key, 5)
    strengths = (view.brightness, view.contrast, view.saturation, view.hue)
    values = [
        jax.random.uniform(k, minval=-s, maxval=s) for k, s in zip(keys, strengths, strict=False)
    ]
    operations = (
        lambda x: x + values[0],
        lambda x: x + values[1] * (x - x.mean((0, 1), keepdims=True)),
        lambda x: _in_hsv(x, lambda h, s, v: (h, jnp.clip(s * (1 + values[2]), 0, 1), v)),
        lambda x: _in_hsv(x, lambda h, s, v: ((h + values[3]) % 1, s, v)),
    )
    for turn in jax.random.permutation(keys[4], 4):
        image = jnp.clip(jax.lax.switch(turn, operations, image), 0, 1)
    return image


def _in_hsv(image, change):
    hsv = image_ops.rgb_to_hsv(image)
    changed = change(*(hsv[..., c] for c in range(3)))
    return image_ops.hsv_to_rgb(jnp.stack(changed, -1))


def _gray_one(image):
    luma = image @ jnp.array(image_ops.LUMA)
    return jnp.broadcast_to(luma[..., None], image.shape)


def _blur_one(image, sigma):
    radius = image_ops.blur_radius(image.shape[0])
    taps = jnp.arange(-radius, radius + 1)
    kernel = jnp.exp(-(taps**2) / (2 * sigma**2))
    kernel = jnp.tile((kernel / kernel.sum())[:, None, None, None], (1, 1, 1, 3))
    x = image[None]
    for weights in (kernel, kernel.swapaxes(0, 1)):
        x = jax.lax.conv_general_dilated(
            x,
            weights,
            (1, 1),
            "SAME",
            feature_group_count=3,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    return x[0]


def two_views(augmentation):
    """Both views of a batch in one compiled function."""

    def make(key, images_of_view1, images_of_view2):
        keys = jax.random.split(key)
        return (
            augmentation(keys[0], images_of_view1, VIEWS[0]),
            augmentation(keys[1], images_of_view2, VIEWS[1]),
        )

    return jax.jit(make)


class Cost(NamedTuple):
    """Seconds of one augmentation."""

    compile: float  # processor time
    wall: float  # median of one call
    processor: float  # median of one call, summed over the cores


def measure(size: int, batch: int, repeats: int) -> tuple[Cost, Cost]:
    """Costs of the baseline and of the package on batches of one size."""
    images = jnp.asarray(np.random.RandomState(0).rand(2, batch, size, size, 3), jnp.float32)
    key = jax.random.key(0)
    functions, compile_seconds, calls = [], [], ([], [])
    for augmentation in (baseline, image_ops.augment):
        start = time.process_time()
        functions.append(two_views(augmentation).lower(key, *images).compile())
        compile_seconds.append(time.process_time() - start)
    for repeat in range(repeats + 1):
        for function, seconds in zip(functions, calls, strict=True):
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(function(jax.random.fold_in(key, repeat), *images))
            seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return tuple(
        Cost(compiling, *(statistics.median(column) for column in zip(*seconds[1:], strict=True)))
        for compiling, seconds in zip(compile_seconds, calls, strict=True)
    )


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description="Pairs of views a second, next to a baseline.")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--sizes", type=int, nargs="+", choices=BATCHES, default=list(BATCHES))
    arguments = parser.parse_args()
    print(
        "| px | batch | baseline, pairs/s | byol_jax, pairs/s | ratio | processor ms a pair "
        "| ratio | compile, processor s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in arguments.sizes:
        batch = BATCHES[size]
        slow, fast = measure(size, batch, arguments.repeats)
        print(
            f"| {size} | {batch} | {batch / slow.wall:.0f} | {batch / fast.wall:.0f} "
            f"| {slow.wall / fast.wall:.1f} "
            f"| {1e3 * slow.processor / batch:.2f} → {1e3 * fast.processor / batch:.2f} "
            f"| {slow.processor / fast.processor:.1f} "
            f"| {slow.compile:.1f} → {fast.compile:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
