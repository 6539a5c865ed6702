"""Augmentations against the reference's values, its distribution, and NumPy."""

import colorsys
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from byol_jax.augment import image_ops
from tests.support import golden_data
from tests.support.samples import random_images, same_distribution

OPERATIONS = {  # tolerances of golden/README.md, section 6
    "brightness": 2e-6,
    "contrast": 3e-6,
    "saturation": 3e-6,
    "hue": 3e-6,
    "solarize": 2e-6,
    "blur": 2e-6,
}
DRAWS = 2000  # images of one test of the distribution
FLAGS = ("flip", "jitter", "grayscale", "blur", "solarize")
VIEWS = {"view1": image_ops.BYOL_VIEW1, "view2": image_ops.BYOL_VIEW2}
NOTHING = image_ops.View(**{name: 0.0 for name in image_ops.View._fields})
apply = jax.jit(image_ops.apply, static_argnums=2)
blur = jax.jit(image_ops.blur)
draw = jax.jit(image_ops.draw, static_argnums=(1, 2))
sample = jax.jit(image_ops.augment, static_argnums=2)


golden = functools.cache(golden_data.load)
scaled = golden_data.images


def fixed_draws(n, **values):
    """Draws in which nothing is applied but what the values say."""
    return draw(jax.random.key(0), n, NOTHING)._replace(**values)


def assert_within(actual, expected, tolerance):
    assert np.shape(actual) == np.shape(expected)
    assert np.abs(np.asarray(actual, np.float64) - expected).max() <= tolerance


def assert_same_224(arrays, prefix, image, tolerance):
    assert_within(image[::7, ::7], arrays[f"{prefix}|stride7"], tolerance)
    assert_within(image[:16, :16], arrays[f"{prefix}|corner16"], tolerance)
    wide = np.asarray(image, np.float64)
    assert_within(wide.mean((0, 1)), arrays[f"{prefix}|channel_mean"], tolerance)
    assert_within(wide.std((0, 1)), arrays[f"{prefix}|channel_std"], tolerance)


# --- deterministic operations -----------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_reference(name):
    arrays, tolerance = golden("augment_ops"), OPERATIONS[name]
    operation = jax.jit(getattr(image_ops, name))
    images, large = scaled(arrays["images32"]), scaled(arrays["image224"])
    for index, value in enumerate(arrays[f"{name}|values"]):
        values = np.full(len(images), value)
        assert_within(operation(images, values), arrays[f"{name}|out32"][index], tolerance)
        prefix = f"{name}|out224|{index}"
        if f"{prefix}|stride7" in arrays:
            assert_same_224(arrays, prefix, operation(large[None], values[:1])[0], tolerance)


def test_operations_take_one_value_an_image():
    arrays = golden("augment_ops")
    images = scaled(arrays["images32"])
    for name, tolerance in OPERATIONS.items():
        chosen = np.arange(len(images)) % len(arrays[f"{name}|values"])
        expected = arrays[f"{name}|out32"][chosen, np.arange(len(images))]
        operation = jax.jit(getattr(image_ops, name))
        actual = operation(images, arrays[f"{name}|values"][chosen])
        assert_within(actual, expected, tolerance)


def test_grayscale_and_flip_equal_reference():
    arrays = golden("augment_ops")
    images, large = scaled(arrays["images32"]), scaled(arrays["image224"])
    assert_within(image_ops.grayscale(images), arrays["grayscale|out32"], 2e-6)
    assert_same_224(arrays, "grayscale|out224", image_ops.grayscale(large[None])[0], 2e-6)
    assert_within(image_ops.flip(images), arrays["flip|out32"], 0)


def test_hsv_equals_reference():
    arrays = golden("augment_ops")
    hsv = jax.jit(image_ops.rgb_to_hsv)(scaled(arrays["images32"]))
    difference = np.asarray(hsv) - arrays["rgb_to_hsv|out32"]
    hue = difference[..., 0] - np.round(difference[..., 0])
    assert np.abs(hue).max() <= 3e-6
    assert np.abs(difference[..., 1:]).max() <= 2e-6
    rgb = jax.jit(image_ops.hsv_to_rgb)(arrays["hsv_to_rgb|in"])
    assert_within(rgb, arrays["hsv_to_rgb|out"], 2e-6)


def test_blur_radius_equals_reference():
    for height, radius, taps in golden("augment_ops")["blur|kernel_size_table"]:
        assert image_ops.blur_radius(int(height)) == radius == (taps - 1) // 2


def test_blur_takes_its_radius_from_the_height_and_sigma_0_is_no_blur():
    images = random_images(2, 40, 8)  # radius 2
    weights = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 1.3**2))
    weights /= weights.sum()
    padded = np.pad(images.astype(np.float64), ((0, 0), (2, 2), (2, 2), (0, 0)))
    rows = sum(weights[i] * padded[:, i : i + 40] for i in range(5))
    expected = sum(weights[i] * rows[:, :, i : i + 8] for i in range(5))
    assert_within(blur(images, np.full(2, 1.3, np.float32)), expected, 1e-6)
    assert_within(blur(images, np.zeros(2, np.float32)), images, 0)


# --- the pipeline with given draws ------------------------------------------------------------


@pytest.mark.parametrize("name", VIEWS)
def test_pipeline_replays_the_reference(name):
    arrays = golden("augment_ops")
    fields = {"grayscale": "gray"}
    draws = image_ops.Draws(
        *(arrays[f"pipeline|{name}|{fields.get(f, f)}"] for f in image_ops.Draws._fields)
    )
    images = scaled(arrays["pipeline|images"])
    assert_within(apply(images, draws, VIEWS[name]), arrays[f"pipeline|{name}|out"], 5e-6)


def jitter_with_colorsys(image, order, brightness, contrast, saturation, hue):
    """One image, one operation after the other, one pixel after the other."""
    for operation in order:
        mean = image.mean((0, 1))
        hsv = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3)])
        if operation == image_ops.BRIGHTNESS:
            image = image + brightness
        elif operation == image_ops.CONTRAST:
            image = contrast * (image - mean) + mean
        else:
            if operation == image_ops.SATURATION:
                hsv[:, 1] = np.clip(hsv[:, 1] * saturation, 0, 1)
            else:
                hsv[:, 0] = (hsv[:, 0] + hue) % 1
            rgb = [colorsys.hsv_to_rgb(*pixel) for pixel in hsv]
            image = np.array(rgb).reshape(image.shape)
        image = np.clip(image, 0, 1)
    return image


def test_jitter_follows_each_of_the_24_orders():
    orders = np.array(list(itertools.permutations(range(4))))
    images = np.repeat(random_images(1), 24, 0)
    values = {"brightness": 0.3, "contrast": 1.6, "saturation": 1.7, "hue": 0.2}
    draws = fixed_draws(
        24,
        jitter=np.ones(24, bool),
        order=orders,
        **{name: np.full(24, value, np.float32) for name, value in values.items()},
    )
    actual = apply(images, draws, image_ops.BYOL_VIEW2)
    expected = [jitter_with_colorsys(images[0].astype(float), order, **values) for order in orders]
    assert_within(actual, np.array(expected), 3e-6)
    # The orders of saturation and hue are equal where they are neighbors; all else differs.
    assert len(np.unique(np.round(expected, 6), axis=0)) == 18


def test_an_image_does_not_depend_on_the_others_or_on_the_device():
    images = random_images(24)
    draws = draw(jax.random.key(1), 24, image_ops.BYOL_VIEW2)
    result = np.asarray(apply(images, draws, image_ops.BYOL_VIEW2))
    order = np.random.RandomState(0).permutation(24)
    others = np.where(np.arange(24)[:, None, None, None] < 12, images, images[order])
    other_draws = jax.tree.map(lambda d: jnp.concatenate([d[:12], d[order][12:]]), draws)
    changed = np.asarray(apply(others, other_draws, image_ops.BYOL_VIEW2))
    np.testing.assert_array_equal(changed[:12], result[:12])
    np.testing.assert_array_equal(changed[12:], result[order][12:])

    devices = jax.local_device_count()
    split = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), (images, draws))
    parallel = jax.pmap(image_ops.apply, static_broadcasted_argnums=2)
    pieces = parallel(*split, image_ops.BYOL_VIEW2)
    assert_within(np.asarray(pieces).reshape(images.shape), result, 1e-6)


def test_probability_0_changes_nothing_and_is_not_compiled():
    images = random_images(3)
    draws = fixed_draws(3, **{name: np.ones(3, bool) for name in FLAGS})
    draws = draws._replace(brightness=np.full(3, 0.5), sigma=np.full(3, 2.0))
    np.testing.assert_array_equal(apply(images, draws, NOTHING), images)
    np.testing.assert_array_equal(sample(jax.random.key(0), images, NOTHING), images)


def test_flags_that_are_off_change_nothing():
    images = random_images(24)
    draws = draw(jax.random.key(0), 24, image_ops.BYOL_VIEW2)
    off = {name: np.zeros(24, bool) for name in FLAGS}
    np.testing.assert_array_equal(
        apply(images, draws._replace(**off), image_ops.BYOL_VIEW2), images
    )


@pytest.mark.parametrize(
    "view, expected",
    [
        ({"flip_probability": 1.0}, image_ops.flip),
        ({"grayscale_probability": 1.0}, image_ops.grayscale),
        (
            {"solarize_probability": 1.0, "solarize_threshold": 0.3},
            lambda x: np.where(x < np.float32(0.3), x, 1 - x),
        ),
        (
            {"blur_probability": 1.0, "blur_sigma_min": 1.5, "blur_sigma_max": 1.5},
            lambda x: blur(x, np.full(len(x), 1.5, np.float32)),
        ),
        ({"jitter_probability": 1.0}, lambda x: x),  # of strength 0
    ],
    ids=["flip", "grayscale", "solarize", "blur", "jitter"],
)
def test_probability_1_changes_every_image(view, expected):
    images, view = random_images(4), NOTHING._replace(**view)
    draws = image_ops.draw(jax.random.key(0), 4, view)
    assert all(getattr(draws, name).all() for name in FLAGS if getattr(view, f"{name}_probability"))
    assert_within(apply(images, draws, view), np.asarray(expected(images)), 1e-6)


# --- randomness -------------------------------------------------------------------------------


def test_presets_are_the_reference_s():
    shared = dict(
        flip_probability=0.5,
        jitter_probability=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
        grayscale_probability=0.2,
        blur_sigma_min=0.1,
        blur_sigma_max=2.0,
        solarize_threshold=0.5,
        extra=(),
    )
    assert image_ops.BYOL_VIEW1._asdict() == shared | dict(
        blur_probability=1.0, solarize_probability=0.0
    )
    assert image_ops.BYOL_VIEW2._asdict() == shared | dict(
        blur_probability=0.1, solarize_probability=0.2
    )


def test_draws_have_the_distribution_of_the_view():
    n, view = 40_000, image_ops.BYOL_VIEW2
    draws = jax.tree.map(np.asarray, draw(jax.random.key(0), n, view))
    for name in FLAGS:
        probability = getattr(view, f"{name}_probability")
        error = np.sqrt(probability * (1 - probability) / n)
        assert abs(getattr(draws, name).mean() - probability) <= 5 * error
    ranges = {
        "brightness": (-view.brightness, view.brightness),
        "contrast": (1 - view.contrast, 1 + view.contrast),
        "saturation": (1 - view.saturation, 1 + view.saturation),
        "hue": (-view.hue, view.hue),
        "sigma": (view.blur_sigma_min, view.blur_sigma_max),
    }
    for name, (low, high) in ranges.items():
        uniform = stats.uniform(low, high - low)
        assert stats.kstest(getattr(draws, name), uniform.cdf).pvalue > 1e-4, name
    columns = [np.asarray(values, float) for values in draws if values.ndim == 1]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() <= 5 / np.sqrt(n)


def test_order_is_uniform_and_independent_between_images():
    order = np.asarray(draw(jax.random.key(2), 48_000, image_ops.BYOL_VIEW1).order)
    np.testing.assert_array_equal(np.sort(order, 1), np.tile(np.arange(4), (len(order), 1)))
    names, index = np.unique(order, axis=0, return_inverse=True)
    assert len(names) == 24
    assert stats.chisquare(np.bincount(index.ravel())).pvalue > 1e-4
    pairs = np.zeros((24, 24))
    np.add.at(pairs, (index.ravel()[:-1], index.ravel()[1:]), 1)
    assert stats.chi2_contingency(pairs).pvalue > 1e-4


def test_same_key_same_result_and_images_differ():
    images = np.repeat(random_images(1), DRAWS, 0)
    first, again, other = (
        np.asarray(sample(jax.random.key(seed), images, image_ops.BYOL_VIEW1)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    means = np.concatenate([first, other]).mean((1, 2, 3), dtype=np.float64)
    assert len(np.unique(means)) > 1.99 * DRAWS
    assert first.dtype == np.float32 and first.min() >= 0 and first.max() <= 1


def measured(outputs):
    """The six statistics of golden/README.md, section 7, of each image: [n, 6]."""
    gradient = np.abs(np.diff(outputs, axis=2)).mean((1, 2, 3))
    spread, largest = outputs.std((1, 2, 3)), outputs.max((1, 2, 3))
    return np.stack([*outputs.mean((1, 2)).T, spread, gradient, largest], 1)


def detected(outputs):
    """Its three detectors (grayscale, flipped, solarized) on each image: [n, 3]."""
    red, green, blue = np.moveaxis(outputs, -1, 0)
    gray = np.maximum(np.abs(red - green), np.abs(green - blue)).max((1, 2)) <= 1e-6
    texture = np.abs(np.diff(outputs, axis=1)).mean((1, 3))  # [n, W]
    half = texture.shape[1] // 2
    flipped = texture[:, half:].sum(1) > texture[:, :half].sum(1)
    return np.stack([gray, flipped, outputs.max((1, 2, 3)) <= 0.5 + 1e-6], 1).astype(float)


def assert_close(actual, expected, error, own_error):
    bound = 5 * np.hypot(error, own_error) + 1e-6
    assert (np.abs(actual - expected) <= bound).all()


def assert_quantiles(values, levels, quantiles, num_draws):
    """Compares the fractions of values [n] below quantiles [q]: safe where values repeat."""
    error = np.sqrt(levels * (1 - levels) * (1 / len(values) + 1 / num_draws))
    below = (values[:, None] < quantiles - 1e-5).mean(0)
    not_above = (values[:, None] <= quantiles + 1e-5).mean(0)
    assert (below <= levels + 5 * error).all() and (not_above >= levels - 5 * error).all()


@pytest.mark.parametrize("name", [pytest.param("view1", marks=pytest.mark.slow), "view2"])
def test_statistics_agree_with_reference(name):
    arrays = golden("augment_stats")
    field = {key.split("|")[1]: value for key, value in arrays.items() if key.startswith(name)}
    num_draws, levels = field["num_draws"], arrays["quantile_levels"]
    for index, image in enumerate(scaled(arrays["images"])):
        images = np.broadcast_to(image, (DRAWS, *image.shape))
        outputs = np.asarray(sample(jax.random.key(index), images, VIEWS[name]))
        values, flags = measured(outputs), detected(outputs)
        theirs = {key: value[index] for key, value in field.items() if np.ndim(value)}

        own = values.std(0) / np.sqrt(DRAWS)
        assert_close(values.mean(0), theirs["mean"], theirs["mean_se"], own)
        own = theirs["std_se"] * np.sqrt(num_draws / DRAWS)
        assert_close(values.std(0), theirs["std"], theirs["std_se"], own)
        fraction = theirs["fractions"]
        own = np.sqrt(np.maximum(fraction * (1 - fraction), 1 / DRAWS) / DRAWS)
        assert_close(flags.mean(0), fraction, theirs["fractions_se"], own)
        for column, ours in enumerate(values.T):
            assert_quantiles(ours, levels, theirs["quantiles"][column], num_draws)
            # Rounded, because values that many draws share differ in the last bit.
            samples = theirs["samples"][:, column].round(3)
            assert same_distribution(ours.round(3), samples)
