"""How fast are the augmentations, next to the usual way of writing them one image at a time?

    python experiments/augment/benchmark.py

The baseline augments one image under ``jax.vmap``: every operation behind ``lax.cond``, a
``lax.switch`` for each of the four turns of the colour jitter, a depthwise convolution for the
blur. Under ``vmap`` a branch becomes a selection, so that all branches are computed. Both make the
two views of BYOL from batches in [0, 1] and their repeats alternate, so that other load on the
machine hits both.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import augment

BATCHES = {32: 128, 96: 64, 224: 16}
VIEWS = (augment.BYOL_VIEW1, augment.BYOL_VIEW2)


def baseline(key: jax.Array, images: jax.Array, view: augment.View) -> jax.Array:
    """Augments images one at a time."""
    keys = jax.random.split(key, len(images))
    return jax.vmap(functools.partial(_augment_one, view=view))(keys, images)


def _augment_one(key: jax.Array, image: jax.Array, view: augment.View) -> jax.Array:
    keys = jax.random.split(key, 6)
    image = _sometimes(keys[0], view.flip_probability, lambda x: x[:, ::-1], image)
    image = _sometimes(
        keys[1], view.jitter_probability, lambda x: _jitter_one(keys[2], x, view), image
    )
    image = _sometimes(keys[3], view.grayscale_probability, _gray_one, image)
    blur_keys = jax.random.split(keys[4])
    sigma = jax.random.uniform(
        blur_keys[0], minval=view.blur_sigma_min, maxval=view.blur_sigma_max
    )
    image = _sometimes(blur_keys[1], view.blur_probability, lambda x: _blur_one(x, sigma), image)
    image = _sometimes(
        keys[5],
        view.solarize_probability,
        lambda x: jnp.where(x < view.solarize_threshold, x, 1 - x),
        image,
    )
    return jnp.clip(image, 0, 1)


def _sometimes(key, probability, operation, image):
    return jax.lax.cond(
        jax.random.uniform(key) < probability, operation, lambda x: x, image
    )


def _jitter_one(key, image, view):
    keys = jax.random.split(key, 5)
    strengths = (view.brightness, view.contrast, view.saturation, view.hue)
    values = [
        jax.random.uniform(k, minval=-s, maxval=s)
        for k, s in zip(keys, strengths, strict=False)
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
    hsv = augment.rgb_to_hsv(image)
    changed = change(*(hsv[..., c] for c in range(3)))
    return augment.hsv_to_rgb(jnp.stack(changed, -1))


def _gray_one(image):
    luma = image @ jnp.array(augment.LUMA)
    return jnp.broadcast_to(luma[..., None], image.shape)


def _blur_one(image, sigma):
    radius = augment.blur_radius(image.shape[0])
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


def measure(size: int, batch: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Compile seconds and median seconds a call of the baseline and of the package."""
    images = np.random.RandomState(0).rand(2, batch, size, size, 3).astype(np.float32)
    images = jnp.asarray(images)
    key = jax.random.key(0)
    compiled, compile_seconds = {}, {}
    for name, augmentation in (("baseline", baseline), ("byol_jax", augment.augment)):
        start = time.perf_counter()
        compiled[name] = two_views(augmentation).lower(key, *images).compile()
        compile_seconds[name] = time.perf_counter() - start
    seconds = {name: [] for name in compiled}
    for repeat in range(repeats + 1):
        for name, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(jax.random.fold_in(key, repeat), *images))
            seconds[name].append(time.perf_counter() - start)
    return {
        name: (compile_seconds[name], statistics.median(seconds[name][1:])) for name in compiled
    }


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(BATCHES))
    arguments = parser.parse_args()
    print("| size | batch | baseline pairs/s | ours pairs/s | ratio | compile s: baseline | ours |")
    print("|---|---|---|---|---|---|---|")
    for size in arguments.sizes:
        batch = BATCHES[size]
        result = measure(size, batch, arguments.repeats)
        (slow_compile, slow), (fast_compile, fast) = result["baseline"], result["byol_jax"]
        print(
            f"| {size} | {batch} | {batch / slow:.0f} | {batch / fast:.0f} | {slow / fast:.1f} "
            f"| {slow_compile:.1f} | {fast_compile:.1f} |"
        )


if __name__ == "__main__":
    main()
