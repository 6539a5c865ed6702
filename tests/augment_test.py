"""Augmentations against the reference's values, its distribution, and NumPy."""

import colorsys
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from byol_jax import augment
from tests import golden_data

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
VIEWS = {"view1": augment.BYOL_VIEW1, "view2": augment.BYOL_VIEW2}
NOTHING = augment.View(**{name: 0.0 for name in augment.View._fields})
apply = jax.jit(augment.apply, static_argnums=2)
blur = jax.jit(augment.blur)
draw = jax.jit(augment.draw, static_argnums=(1, 2))
draw_windows = jax.jit(augment.draw_windows, static_argnums=(1, 2), static_argnames="area_range")
resize = jax.jit(augment.resize_windows, static_argnums=2, static_argnames="method")
sample = jax.jit(augment.augment, static_argnums=2)


@functools.cache
def golden(name):
    return golden_data.load(name)


def scaled(images):
    return images.astype(np.float32) / np.float32(255)


def random_images(n, height=32, width=32, seed=0):
    return np.random.RandomState(seed).rand(n, height, width, 3).astype(np.float32)


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
    operation = jax.jit(getattr(augment, name))
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
        operation = jax.jit(getattr(augment, name))
        actual = operation(images, arrays[f"{name}|values"][chosen])
        assert_within(actual, expected, tolerance)


def test_grayscale_and_flip_equal_reference():
    arrays = golden("augment_ops")
    images, large = scaled(arrays["images32"]), scaled(arrays["image224"])
    assert_within(augment.grayscale(images), arrays["grayscale|out32"], 2e-6)
    assert_same_224(arrays, "grayscale|out224", augment.grayscale(large[None])[0], 2e-6)
    assert_within(augment.flip(images), arrays["flip|out32"], 0)


def test_hsv_equals_reference():
    arrays = golden("augment_ops")
    hsv = jax.jit(augment.rgb_to_hsv)(scaled(arrays["images32"]))
    difference = np.asarray(hsv) - arrays["rgb_to_hsv|out32"]
    hue = difference[..., 0] - np.round(difference[..., 0])
    assert np.abs(hue).max() <= 3e-6
    assert np.abs(difference[..., 1:]).max() <= 2e-6
    rgb = jax.jit(augment.hsv_to_rgb)(arrays["hsv_to_rgb|in"])
    assert_within(rgb, arrays["hsv_to_rgb|out"], 2e-6)


def test_blur_radius_equals_reference():
    for height, radius, taps in golden("augment_ops")["blur|kernel_size_table"]:
        assert augment.blur_radius(int(height)) == radius == (taps - 1) // 2


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
    draws = augment.Draws(
        *(arrays[f"pipeline|{name}|{fields.get(f, f)}"] for f in augment.Draws._fields)
    )
    images = scaled(arrays["pipeline|images"])
    assert_within(apply(images, draws, VIEWS[name]), arrays[f"pipeline|{name}|out"], 5e-6)


def jitter_with_colorsys(image, order, brightness, contrast, saturation, hue):
    """One image, one operation after the other, one pixel after the other."""
    for operation in order:
        mean = image.mean((0, 1))
        hsv = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3)])
        if operation == augment.BRIGHTNESS:
            image = image + brightness
        elif operation == augment.CONTRAST:
            image = contrast * (image - mean) + mean
        else:
            if operation == augment.SATURATION:
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
    actual = apply(images, draws, augment.BYOL_VIEW2)
    expected = [jitter_with_colorsys(images[0].astype(float), order, **values) for order in orders]
    assert_within(actual, np.array(expected), 3e-6)
    # The orders of saturation and hue are equal where they are neighbours; all else differs.
    assert len(np.unique(np.round(expected, 6), axis=0)) == 18


def test_an_image_does_not_depend_on_the_others_or_on_the_device():
    images = random_images(24)
    draws = draw(jax.random.key(1), 24, augment.BYOL_VIEW2)
    result = np.asarray(apply(images, draws, augment.BYOL_VIEW2))
    order = np.random.RandomState(0).permutation(24)
    others = np.where(np.arange(24)[:, None, None, None] < 12, images, images[order])
    other_draws = jax.tree.map(lambda d: jnp.concatenate([d[:12], d[order][12:]]), draws)
    changed = np.asarray(apply(others, other_draws, augment.BYOL_VIEW2))
    np.testing.assert_array_equal(changed[:12], result[:12])
    np.testing.assert_array_equal(changed[12:], result[order][12:])

    devices = jax.local_device_count()
    split = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), (images, draws))
    parallel = jax.pmap(augment.apply, static_broadcasted_argnums=2)
    pieces = parallel(*split, augment.BYOL_VIEW2)
    assert_within(np.asarray(pieces).reshape(images.shape), result, 1e-6)


def test_probability_0_changes_nothing_and_is_not_compiled():
    images = random_images(3)
    draws = fixed_draws(3, **{name: np.ones(3, bool) for name in FLAGS})
    draws = draws._replace(brightness=np.full(3, 0.5), sigma=np.full(3, 2.0))
    np.testing.assert_array_equal(apply(images, draws, NOTHING), images)
    np.testing.assert_array_equal(sample(jax.random.key(0), images, NOTHING), images)


def test_flags_that_are_off_change_nothing():
    images = random_images(24)
    draws = draw(jax.random.key(0), 24, augment.BYOL_VIEW2)
    off = {name: np.zeros(24, bool) for name in FLAGS}
    np.testing.assert_array_equal(apply(images, draws._replace(**off), augment.BYOL_VIEW2), images)


@pytest.mark.parametrize(
    "view, expected",
    [
        ({"flip_probability": 1.0}, augment.flip),
        ({"grayscale_probability": 1.0}, augment.grayscale),
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
    draws = augment.draw(jax.random.key(0), 4, view)
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
    )
    assert augment.BYOL_VIEW1._asdict() == shared | dict(
        blur_probability=1.0, solarize_probability=0.0
    )
    assert augment.BYOL_VIEW2._asdict() == shared | dict(
        blur_probability=0.1, solarize_probability=0.2
    )


def test_draws_have_the_distribution_of_the_view():
    n, view = 40_000, augment.BYOL_VIEW2
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
    order = np.asarray(draw(jax.random.key(2), 48_000, augment.BYOL_VIEW1).order)
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
        np.asarray(sample(jax.random.key(seed), images, augment.BYOL_VIEW1)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    means = np.concatenate([first, other]).mean((1, 2, 3))
    assert len(np.unique(means)) > 1.99 * DRAWS
    assert first.dtype == np.float32 and first.min() >= 0 and first.max() <= 1


def measured(outputs):
    """The six statistics of golden/README.md, section 7, of each image: [n, 6]."""
    gradient = np.abs(np.diff(outputs, axis=2)).mean((1, 2, 3))
    spread, largest = outputs.std((1, 2, 3)), outputs.max((1, 2, 3))
    return np.stack([*outputs.mean((1, 2)).T, spread, gradient, largest], 1)


def detected(outputs):
    """Its three detectors (greyscale, flipped, solarized) on each image: [n, 3]."""
    red, green, blue = np.moveaxis(outputs, -1, 0)
    gray = np.maximum(np.abs(red - green), np.abs(green - blue)).max((1, 2)) <= 1e-6
    texture = np.abs(np.diff(outputs, axis=1)).mean((1, 3))  # [n, W]
    half = texture.shape[1] // 2
    flipped = texture[:, half:].sum(1) > texture[:, :half].sum(1)
    return np.stack([gray, flipped, outputs.max((1, 2, 3)) <= 0.5 + 1e-6], 1).astype(float)


@pytest.mark.parametrize("name", VIEWS)
def test_statistics_agree_with_reference(name):
    arrays, n = golden("augment_stats"), DRAWS
    field = {key: arrays[f"{name}|{key}"] for key in ("mean", "mean_se", "std", "std_se")}
    share = arrays[f"{name}|num_draws"] / n  # the variance of ours over the variance of theirs
    for index, image in enumerate(scaled(arrays["images"])):
        images = np.broadcast_to(image, (n, *image.shape))
        outputs = np.asarray(sample(jax.random.key(index), images, VIEWS[name]))
        values, flags = measured(outputs), detected(outputs)

        def assert_close(actual, expected, error, own_error):
            bound = 5 * np.sqrt(np.square(error) + np.square(own_error)) + 1e-6
            assert (np.abs(actual - expected) <= bound).all()

        own = values.std(0) / np.sqrt(n)
        assert_close(values.mean(0), field["mean"][index], field["mean_se"][index], own)
        error = field["std_se"][index]
        assert_close(values.std(0), field["std"][index], error, error * np.sqrt(share))
        quantiles = np.quantile(values, arrays["quantile_levels"], axis=0).T
        error = arrays[f"{name}|quantiles_se"][index]
        expected = arrays[f"{name}|quantiles"][index]
        assert_close(quantiles, expected, error, error * np.sqrt(share))
        expected = arrays[f"{name}|fractions"][index]
        own = np.sqrt(np.maximum(expected * (1 - expected), 1 / n) / n)
        error = arrays[f"{name}|fractions_se"][index]
        assert_close(flags.mean(0), expected, error, own)
        samples = arrays[f"{name}|samples"][index]
        # Rounded, because values that many draws share differ in the last bit.
        for ours, theirs in zip(values.round(3).T, samples.round(3).T, strict=True):
            assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


# --- random resized crop ----------------------------------------------------------------------


def simulated_windows(n, size, area_range, aspect_range, seed=0):
    """NumPy's draws of (top, left, height, width), after golden/README.md, section 8."""
    random = np.random.RandomState(seed)
    height, width = size
    pixels = random.uniform(*area_range, n) * height * width
    aspect = np.exp(random.uniform(*np.log(aspect_range), n))
    w = np.minimum(np.round(np.sqrt(pixels * aspect)), width).astype(int)
    h = np.minimum(np.round(np.sqrt(pixels / aspect)), height).astype(int)
    return np.stack([random.randint(0, height - h + 1), random.randint(0, width - w + 1), h, w], 1)


@pytest.mark.parametrize(
    "size, area_range, aspect_range",
    [((32, 32), (0.08, 1.0), (3 / 4, 4 / 3)), ((40, 25), (0.4, 0.9), (1 / 2, 2.0))],
)
def test_windows_agree_with_a_simulation(size, area_range, aspect_range):
    n = 20_000
    windows = np.asarray(
        jax.jit(
            functools.partial(
                augment.draw_windows,
                n=n,
                image_size=size,
                area_range=area_range,
                aspect_range=aspect_range,
            )
        )(jax.random.key(0))
    )
    assert windows.shape == (n, 4) and windows.dtype == np.int32
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (windows[:, :2] + windows[:, 2:] <= np.array(size)).all()
    expected = simulated_windows(n, size, area_range, aspect_range)
    for statistic in (
        lambda w: w[:, 0],
        lambda w: w[:, 1],
        lambda w: w[:, 2],
        lambda w: w[:, 3],
        lambda w: w[:, 2] * w[:, 3],
        lambda w: w[:, 2] / w[:, 3],
    ):
        assert stats.ks_2samp(statistic(windows), statistic(expected)).pvalue > 1e-4


def test_corner_is_uniform_where_the_window_fits():
    # 225 of 240 pixels at an aspect of 1: sides of 15, of which 12 fit; room 0 and 5.
    draws = augment.draw_windows(
        jax.random.key(0), 6000, (12, 20), area_range=(225 / 240,) * 2, aspect_range=(1.0, 1.0)
    )
    top, left, height, width = np.asarray(draws).T
    assert (height == 12).all() and (width == 15).all() and (top == 0).all()
    assert stats.chisquare(np.bincount(left, minlength=6)).pvalue > 1e-4
    assert left.max() == 5


@pytest.fixture(name="preprocess")
def fixture_preprocess():
    if not (golden_data.FOLDER / "preprocess.npz").exists():
        pytest.skip("preprocess.npz is not in the repository")
    return golden("preprocess")


def test_sides_equal_reference(preprocess):
    fields = ("image_hw", "area_fraction", "log_aspect", "window")
    rows = zip(*(preprocess[f"crop_geometry|{field}"] for field in fields), strict=True)
    equal = []
    for size, area, log_aspect, window in rows:
        sides = augment.window_sides(area[None], log_aspect[None], tuple(map(int, size)))
        equal.append((np.asarray(sides)[0] == window[2:]).all())
    assert np.mean(equal) >= 0.99


def test_windows_agree_with_reference(preprocess):
    for index, (height, width) in enumerate(preprocess["random_crop|image_hw"].tolist()):
        windows = draw_windows(jax.random.key(index), 8000, (height, width))
        for ours, theirs in zip(
            np.asarray(windows).T, preprocess[f"random_crop|windows_{index}"].T, strict=True
        ):
            assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


def test_resize_equals_reference(preprocess):
    # The reference rounds positions to 1/1024 of a pixel, hence 6e-4.
    indices = range(len(preprocess["image_size_hw"]))
    crops = [preprocess[f"crop_{index}"] for index in indices]
    frame = 5 + np.max([crop.shape for crop in crops])
    for index, crop in zip(indices, crops, strict=True):
        height, width = crop.shape[:2]
        image = np.full((1, frame, frame, 3), 200, np.uint8)
        image[0, 2 : 2 + height, 3 : 3 + width] = crop
        result = np.asarray(resize(image, np.array([[2, 3, height, width]]), 224))[0]
        assert_within(result[::16, ::16], preprocess[f"sample16_{index}"], 6e-4)
        for name in ("mean", "std"):
            statistic = getattr(result.astype(np.float64), name)((0, 1))
            assert_within(statistic, preprocess[f"channel_{name}_{index}"], 1e-4)


def numpy_resize_line(line, size, method):
    """Resizes the first axis in float64, output by output, tap by tap."""
    result = []
    for i in range(size):
        centre = (i + 0.5) * len(line) / size - 0.5
        total, weights = 0.0, 0.0
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d = abs(j - centre)
            if method == "linear":
                weight = max(0.0, 1 - d)
            elif d < 1:
                weight = 1.5 * d**3 - 2.5 * d**2 + 1
            else:
                weight = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0
            if 0 <= j < len(line):
                total, weights = total + weight * line[j], weights + weight
        result.append(total / weights)
    return np.array(result)


WINDOWS = np.array([[0, 0, 20, 24], [3, 5, 9, 7], [19, 23, 1, 1], [0, 9, 20, 2], [7, 0, 13, 24]])


@pytest.mark.parametrize("method", ["cubic", "linear"])
def test_resize_equals_numpy_and_jax_on_the_crop(method):
    images = random_images(len(WINDOWS), 20, 24)
    actual = resize(images, WINDOWS, 12, method=method)
    for image, (top, left, height, width), result in zip(images, WINDOWS, actual, strict=True):
        crop = image[top : top + height, left : left + width]
        expected = numpy_resize_line(crop.astype(np.float64), 12, method)
        expected = numpy_resize_line(expected.swapaxes(0, 1), 12, method).swapaxes(0, 1)
        assert_within(result, np.clip(expected, 0, 1), 2e-6)
    top, left, height, width = WINDOWS[1]
    crop = images[1, top : top + height, left : left + width]
    theirs = jax.image.resize(crop, (12, 12, 3), method, antialias=False)
    assert_within(actual[1], np.clip(theirs, 0, 1), 3e-5)


def test_resize_takes_bytes_and_keeps_a_whole_image():
    images = np.random.RandomState(0).randint(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    windows = np.array([[0, 0, 16, 16], [2, 1, 9, 13]])
    from_bytes = np.asarray(resize(images, windows, 16))
    assert_within(from_bytes[0], scaled(images)[0], 1e-6)
    assert_within(resize(scaled(images), windows, 16), from_bytes, 1e-6)


def test_random_resized_crop_resizes_the_drawn_windows():
    key, images = jax.random.key(3), random_images(4, 24, 30)
    crop = jax.jit(
        functools.partial(
            augment.random_resized_crop, size=10, area_range=(0.3, 0.6), method="linear"
        )
    )
    windows = draw_windows(key, 4, (24, 30), area_range=(0.3, 0.6))
    expected = resize(images, windows, 10, method="linear")
    assert_within(crop(key, images), np.asarray(expected), 1e-6)
    assert crop(key, images).dtype == jnp.float32


def test_unknown_resize_method_names_the_valid_ones():
    with pytest.raises(ValueError, match="'bicubic' is not one of cubic, linear"):
        augment.resize_windows(random_images(1), np.array([[0, 0, 8, 8]]), 4, method="bicubic")
