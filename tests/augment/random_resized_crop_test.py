"""Random resized crop against the reference's windows, NumPy and jax.image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.augment import random_resized_crop
from tests.support import golden_data
from tests.support.samples import random_images, same_distribution

draw_windows = jax.jit(
    random_resized_crop.draw_windows, static_argnums=(1, 2), static_argnames="area_range"
)
resize = jax.jit(random_resized_crop.resize_windows, static_argnums=2, static_argnames="method")


golden = functools.cache(golden_data.load)
scaled = golden_data.images


def assert_within(actual, expected, tolerance):
    assert np.shape(actual) == np.shape(expected)
    assert np.abs(np.asarray(actual, np.float64) - expected).max() <= tolerance


# 225 of 240 pixels at an aspect of 1: sides of 15, of which only 12 rows fit; 5 columns of room.
CUT = ((12, 20), (225 / 240, 225 / 240), (1.0, 1.0))


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
    [((32, 32), (0.08, 1.0), (3 / 4, 4 / 3)), ((40, 25), (0.4, 0.9), (1 / 2, 2.0)), CUT],
)
def test_windows_agree_with_a_simulation(size, area_range, aspect_range):
    n = 20_000
    windows = np.asarray(
        jax.jit(
            functools.partial(
                random_resized_crop.draw_windows,
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
        assert same_distribution(statistic(windows), statistic(expected))


geometry = functools.cache(golden_data.load_geometry)


def test_sides_equal_reference():
    fields = ("image_hw", "area_fraction", "log_aspect", "window")
    rows = zip(*(geometry()[f"crop_geometry|{field}"] for field in fields), strict=True)
    equal = []
    for size, area, log_aspect, window in rows:
        sides = random_resized_crop.window_sides(
            area[None], log_aspect[None], tuple(map(int, size))
        )
        equal.append((np.asarray(sides)[0] == window[2:]).all())
    assert np.mean(equal) >= 0.99


def test_windows_agree_with_reference():
    for index, (height, width) in enumerate(geometry()["random_crop|image_hw"].tolist()):
        windows = draw_windows(jax.random.key(index), 8000, (height, width))
        for ours, theirs in zip(
            np.asarray(windows).T, geometry()[f"random_crop|windows_{index}"].T, strict=True
        ):
            assert same_distribution(ours, theirs)


@pytest.fixture(name="preprocess")
def fixture_preprocess():
    if not golden_data.has_photos():
        pytest.skip("preprocess.npz is not in the repository")
    return golden("preprocess")


def test_resize_equals_reference(preprocess):
    # The reference rounds positions to 1/1024 of a pixel, hence 6e-4.
    indices = range(len(preprocess["image_size_hw"]))
    crops = [preprocess[f"crop_{index}"] for index in indices]
    frame = 5 + np.max([window.shape for window in crops])
    for index, window in zip(indices, crops, strict=True):
        height, width = window.shape[:2]
        image = np.full((1, frame, frame, 3), 200, np.uint8)
        image[0, 2 : 2 + height, 3 : 3 + width] = window
        result = np.asarray(resize(image, np.array([[2, 3, height, width]]), 224))[0]
        assert_within(result[::16, ::16], preprocess[f"sample16_{index}"], 6e-4)
        for name in ("mean", "std"):
            statistic = getattr(result.astype(np.float64), name)((0, 1))
            assert_within(statistic, preprocess[f"channel_{name}_{index}"], 1e-4)


def numpy_resize_line(line, size, method):
    """Resizes the first axis in float64, output by output, tap by tap."""
    result = []
    for i in range(size):
        center = (i + 0.5) * len(line) / size - 0.5
        total, weights = 0.0, 0.0
        for j in range(int(np.floor(center)) - 1, int(np.floor(center)) + 3):
            d = abs(j - center)
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
        window = image[top : top + height, left : left + width]
        expected = numpy_resize_line(window.astype(np.float64), 12, method)
        expected = numpy_resize_line(expected.swapaxes(0, 1), 12, method).swapaxes(0, 1)
        assert_within(result, np.clip(expected, 0, 1), 2e-6)
    top, left, height, width = WINDOWS[1]
    window = images[1, top : top + height, left : left + width]
    theirs = jax.image.resize(window, (12, 12, 3), method, antialias=False)
    assert_within(actual[1], np.clip(theirs, 0, 1), 3e-5)


def test_resize_takes_bytes_and_keeps_a_whole_image():
    images = np.random.RandomState(0).randint(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    windows = np.array([[0, 0, 16, 16], [2, 1, 9, 13]])
    from_bytes = np.asarray(resize(images, windows, 16))
    assert_within(from_bytes[0], scaled(images)[0], 1e-6)
    assert_within(resize(scaled(images), windows, 16), from_bytes, 1e-6)


def test_random_resized_crop_resizes_the_drawn_windows():
    key, images = jax.random.key(3), random_images(4, 24, 30)
    compiled = jax.jit(
        functools.partial(
            random_resized_crop.random_resized_crop, size=10, area_range=(0.3, 0.6), method="linear"
        )
    )
    windows = draw_windows(key, 4, (24, 30), area_range=(0.3, 0.6))
    expected = resize(images, windows, 10, method="linear")
    assert_within(compiled(key, images), np.asarray(expected), 1e-6)
    assert compiled(key, images).dtype == jnp.float32


def test_unknown_resize_method_names_the_valid_ones():
    with pytest.raises(ValueError, match="'bicubic' is not one of cubic, linear"):
        random_resized_crop.resize_windows(
            random_images(1), np.array([[0, 0, 8, 8]]), 4, method="bicubic"
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_squares_that_fit_are_left_as_they_are(dtype):
    pixels = np.random.RandomState(0).randint(0, 256, (2, 8, 10, 3))
    images = pixels.astype(dtype) if dtype == np.uint8 else (pixels / 255).astype(dtype)
    squares = random_resized_crop.resize_squares(images, 8)
    np.testing.assert_allclose(squares, pixels[:, :, 1:9] / 255, atol=1e-7)


def test_other_squares_are_resized_as_windows():
    images = np.random.RandomState(0).randint(0, 256, (2, 8, 11, 3)).astype(np.uint8)
    windows = np.array([[0, 2, 8, 8]] * 2, np.int32)
    expected = random_resized_crop.resize_windows(images, windows, 5)
    np.testing.assert_array_equal(random_resized_crop.resize_squares(images, 5), expected)
