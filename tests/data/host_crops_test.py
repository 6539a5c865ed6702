"""Windows, decoding and resizing on the host against the reference's numbers and slow formulas."""

import numpy as np
import PIL.Image
import pytest

from byol_jax.augment import random_resized_crop
from byol_jax.data import host_crops, image_decoding
from tests.support import golden_data
from tests.support.samples import drawn_picture, encode, same_distribution

GEOMETRY = golden_data.load_geometry()


# Windows.


def test_center_windows_equal_the_reference():
    sizes, windows = (GEOMETRY[f"center_geometry|{name}"] for name in ("image_hw", "window"))
    ours = [host_crops.center_window(height, width) for height, width in sizes.tolist()]
    np.testing.assert_array_equal(ours, windows)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (65, 48), (50, 50)])
def test_the_largest_square_in_the_middle_can_be_cropped(height, width):
    side = min(height, width)
    top, left, *sides = host_crops.center_window(height, width, fraction=1.0)
    assert sides == [side, side] and min(top, left) == 0
    assert abs(2 * top + side - height) <= 1 and abs(2 * left + side - width) <= 1
    picture = drawn_picture(height, width)
    crop = host_crops.center_crop(image_decoding.EncodedImage(encode(picture)), side, fraction=1.0)
    np.testing.assert_array_equal(crop, picture[top : top + side, left : left + side])


def test_sides_of_windows_equal_the_reference():
    fields = ("image_hw", "area_fraction", "log_aspect", "window")
    rows = zip(*(GEOMETRY[f"crop_geometry|{field}"].tolist() for field in fields), strict=True)
    equal = [
        list(host_crops.window_sides(area * height * width, log_aspect, height, width))
        == window[2:]
        for (height, width), area, log_aspect, window in rows
    ]
    assert np.mean(equal) >= 0.99  # the reference computes in float32


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 300), (375, 500)])
def test_sides_of_windows_are_those_of_the_device(height, width):
    """They are written twice: per image in float64, and for a batch in float32."""
    rng = np.random.RandomState(0)
    area, aspect = rng.uniform(0.08, 1, 2000), rng.uniform(np.log(3 / 4), np.log(4 / 3), 2000)
    device = random_resized_crop.window_sides(np.float32(area), np.float32(aspect), (height, width))
    host = [
        host_crops.window_sides(fraction * height * width, log_aspect, height, width)
        for fraction, log_aspect in zip(area, aspect, strict=True)
    ]
    difference = np.abs(np.array(host) - np.asarray(device))
    assert difference.max() <= 1 and difference.mean() < 1e-3  # only where .5 is rounded


def drawn_windows(n, height, width, seed=0, **ranges):
    uniforms = np.random.RandomState(seed).random_sample((n, 4))
    return np.array([host_crops.draw_window(u, height, width, **ranges) for u in uniforms])


def statistics(windows, height, width):
    """Those of the golden file, [6, n]: share, aspect, height, width, place of the corner."""
    top, left, high, wide = windows.T.astype(np.float64)
    with np.errstate(invalid="ignore"):  # NaN where there is no room to move
        places = top / (height - high), left / (width - wide)
    return np.stack([high * wide / (height * width), wide / high, high, wide, *places])


@pytest.mark.parametrize("index", range(len(GEOMETRY["random_crop|image_hw"])))
def test_random_windows_are_distributed_as_the_references(index):
    height, width = GEOMETRY["random_crop|image_hw"][index].tolist()
    n = 20_000  # as many as the reference drew, so that both have the same standard errors
    windows = drawn_windows(n, height, width, seed=index)
    values = statistics(windows, height, width)
    expected = {
        name: GEOMETRY[f"random_crop|{name}_{index}"]
        for name in ("mean", "mean_se", "quantiles", "quantiles_se", "clamped_fraction", "windows")
    }
    errors = np.abs(np.nanmean(values, axis=1) - expected["mean"])
    assert (errors <= 5 * np.sqrt(2) * expected["mean_se"]).all()
    quantiles = np.nanquantile(values, GEOMETRY["random_crop|quantile_levels"], axis=1).T
    errors = np.abs(quantiles - expected["quantiles"])
    assert (errors <= 5 * np.sqrt(2) * expected["quantiles_se"] + 1e-9).all()
    cut = (windows[:, 2:] == [height, width]).mean(axis=0)
    fraction = expected["clamped_fraction"]
    assert (np.abs(cut - fraction) <= 5 * np.sqrt(2 * fraction * (1 - fraction) / n)).all()
    for ours, theirs in zip(windows.T, expected["windows"].T, strict=True):
        assert same_distribution(ours, theirs)


@pytest.mark.parametrize("size", [(8, 8), (8, 300), (301, 9), (64, 48)])
def test_windows_lie_inside_of_the_image(size):
    extremes = np.array(np.meshgrid(*[[0, 0.5, 1 - 2**-53]] * 4)).reshape(4, -1).T
    windows = [host_crops.draw_window(u, *size, area_range=(1e-4, 1.0)) for u in extremes]
    windows = np.concatenate([windows, drawn_windows(500, *size)])
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] >= 1).all()
    assert (windows[:, :2] + windows[:, 2:] <= size).all()


def test_windows_have_the_area_and_the_aspect_that_were_asked_for():
    ranges = {"area_range": (0.3, 0.3), "aspect_range": (2.0, 2.0)}
    _, _, high, wide = drawn_windows(10, 1000, 1000, **ranges).T
    assert (np.abs(high * wide / 1e6 - 0.3) < 2e-3).all() and (np.abs(wide / high - 2) < 1e-2).all()


def test_corners_reach_every_place_where_the_window_fits():
    ranges = {"area_range": (0.25, 0.25), "aspect_range": (1.0, 1.0)}
    windows = drawn_windows(300, 8, 8, **ranges)  # 4 x 4
    assert set(windows[:, 0]) == set(windows[:, 1]) == set(range(5))


# Resizing.


def keys(distance, a):
    """The cubic kernel of Keys 1981, equation 4 with a free."""
    s = abs(distance)
    if s < 1:
        return (a + 2) * s**3 - (a + 3) * s**2 + 1
    return a * s**3 - 5 * a * s**2 + 8 * a * s - 4 * a if s < 2 else 0.0


def slow_matrix(old, new, *, a, is_tensorflow):
    """[new, old] weights, one by one: TensorFlow's, or OpenCV's, which repeats the border."""
    matrix = np.zeros((new, old))
    for i in range(new):
        if is_tensorflow:
            center = np.float32(i + 0.5) * np.float32(old / new) - np.float32(0.5)
        else:
            center = (i + 0.5) * old / new - 0.5
        first = int(np.floor(center))
        part = float(center) - first
        if is_tensorflow:
            part = round(part * 1024) / 1024
        for tap in range(-1, 3):
            source = first + tap
            if is_tensorflow and not 0 <= source < old:
                continue
            matrix[i, min(max(source, 0), old - 1)] += keys(part - tap, a)
    return matrix / matrix.sum(axis=1, keepdims=True)


def slow_resize(pixels, size, *, a, is_tensorflow):
    """float64 [size, size, 3], in [0, 255]."""
    down, across = (
        slow_matrix(side, size, a=a, is_tensorflow=is_tensorflow) for side in pixels.shape[:2]
    )
    rows = np.tensordot(down, pixels.astype(np.float64), axes=1)  # [size, W, 3]
    return np.einsum("jw,iwc->ijc", across, rows).clip(0, 255)


def noise(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


SIZES = [(40, 40), (17, 17), (131, 90), (33, 200), (9, 8), (1, 5), (2, 3), (64, 32)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [32, 47])
def test_resize_equals_the_slow_formula(size, target):
    pixels = noise(*size)
    expected = slow_resize(pixels, target, a=-0.5, is_tensorflow=True)
    actual = host_crops.resize(pixels, target)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual / 255, expected / 255, atol=2e-6, rtol=0)


def test_resize_keeps_an_image_of_the_right_size():
    np.testing.assert_array_equal(host_crops.resize(noise(32, 32), 32), noise(32, 32))


@pytest.mark.parametrize("size", [(64, 64), (57, 90), (131, 77), (20, 24)])
def test_center_crops_equal_the_slow_formula(size):
    picture = noise(*size)
    side = size[0] * 7 // 8 if size[0] <= size[1] else size[1] * 7 // 8
    top, left = ((length - side + 1) // 2 for length in size)
    window = picture[top : top + side, left : left + side]
    expected = slow_resize(window, 24, a=-0.5, is_tensorflow=True)
    actual = host_crops.center_crop(image_decoding.EncodedImage(encode(picture)), 24)
    assert actual.shape == (24, 24, 3) and actual.dtype == np.uint8
    assert np.abs(actual - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [(400, 300), (311, 407)])
def test_reduced_center_crops_come_from_as_small_a_jpeg_as_training_views(size, shrinks):
    noisy = np.clip(drawn_picture(*size).astype(int) + noise(*size) // 4 - 32, 0, 255)
    data = encode(noisy.astype(np.uint8), "JPEG", quality=95)
    image = image_decoding.EncodedImage(data)
    window = host_crops.center_window(*size)
    train = np.empty((1, 30, 30, 3), np.uint8)
    host_crops.train_views(image, (window,), train)
    full = host_crops.center_crop(image, 30)
    reduced = host_crops.center_crop(image, 30, is_reduced=True)
    assert shrinks == [8, 1, 8]
    errors = [np.square(crop - train[0].astype(float)).mean() for crop in (reduced, full)]
    assert errors[0] < errors[1] / 10
    smooth = host_crops.center_crop(
        image_decoding.EncodedImage(encode(drawn_picture(*size), "JPEG")), 30
    )
    assert np.abs(reduced - smooth.astype(float)).mean() < 6


def test_reduced_center_crops_of_small_images_and_other_formats_are_the_same():
    picture = noise(60, 80)
    for data, size in ((encode(picture, "JPEG"), 32), (encode(picture), 8)):
        image = image_decoding.EncodedImage(data)
        reduced = host_crops.center_crop(image, size, is_reduced=True)
        np.testing.assert_array_equal(reduced, host_crops.center_crop(image, size))


# Training views.


def views_of(data, windows, size):
    windows = tuple(host_crops.Window(*window) for window in windows)
    out = np.empty((len(windows), size, size, 3), np.uint8)
    host_crops.train_views(image_decoding.EncodedImage(data), windows, out)
    return out


def slow_view(picture, window, size):
    top, left, height, width = window
    crop = picture[top : top + height, left : left + width]
    return slow_resize(crop, size, a=-0.75, is_tensorflow=False)


@pytest.mark.parametrize("size", [16, 33])
def test_views_equal_the_slow_formula_on_their_windows(size):
    picture = noise(60, 80)
    windows = [(0, 0, 60, 80), (3, 41, 57, 39), (10, 20, 16, 16), (59, 79, 1, 1), (0, 70, 5, 10)]
    for window, view in zip(windows, views_of(encode(picture), windows, size), strict=True):
        assert view.shape == (size, size, 3) and view.dtype == np.uint8
        # OpenCV rounds its weights to 11 bits.
        assert np.abs(view - slow_view(picture, window, size)).max() <= 1.5


@pytest.fixture(name="shrinks")
def fixture_shrinks(monkeypatch):
    """The factors that images were decoded with."""
    calls = []
    decode = image_decoding.EncodedImage.decode

    def recorded(self, *, shrink=1, **options):
        calls.append(shrink)
        return decode(self, shrink=shrink, **options)

    monkeypatch.setattr(image_decoding.EncodedImage, "decode", recorded)
    return calls


@pytest.mark.parametrize(
    ("windows", "shrink"),
    [
        ([(0, 0, 200, 300), (10, 10, 160, 200)], 8),
        ([(0, 0, 200, 300), (10, 10, 159, 200)], 4),
        ([(0, 0, 200, 300), (10, 10, 200, 80)], 4),
        ([(20, 11, 79, 99), (0, 0, 200, 300)], 2),
        ([(0, 0, 40, 200), (0, 0, 40, 40)], 2),
        ([(0, 0, 39, 200), (0, 0, 40, 40)], 1),
        ([(0, 0, 5, 5), (0, 0, 200, 300)], 1),
    ],
)
def test_an_image_is_decoded_once_and_never_smaller_than_a_view(windows, shrink, shrinks):
    views = views_of(encode(drawn_picture(200, 300), "JPEG"), windows, 20)
    assert len(views) == len(windows) and shrinks == [shrink]


@pytest.mark.parametrize("size", [(240, 320), (241, 327), (333, 250)])
def test_shrinking_keeps_what_a_view_shows(size, shrinks):
    picture = drawn_picture(*size)
    data = encode(picture, "JPEG", quality=95)
    uniforms = np.random.RandomState(0).random_sample((20, 4))
    windows = [host_crops.draw_window(u, *size, area_range=(0.06, 1.0)) for u in uniforms]
    windows += [
        host_crops.Window(0, 0, *size),
        host_crops.Window(size[0] - 97, size[1] - 99, 97, 99),
    ]
    for window in windows:
        (view,) = views_of(data, [window], 24)
        difference = view - slow_view(picture, window, 24)
        # Windows move by half a pixel of the shrunk image at most; the picture is smooth.
        assert np.abs(difference).mean() <= 4 and np.abs(difference.mean()) <= 2
    assert set(shrinks) == {2, 4, 8}


def test_a_turned_image_is_cut_as_it_is_shown(shrinks):
    picture = drawn_picture(160, 96)
    exif = PIL.Image.Exif()
    exif[274] = 6  # to be shown turned clockwise, so laid down turned the other way
    laid = np.ascontiguousarray(picture.transpose(1, 0, 2)[::-1])
    data = encode(laid, "JPEG", quality=95, exif=exif)
    for window in [(80, 10, 60, 70), (0, 0, 160, 96)]:
        (view,) = views_of(data, [window], 24)
        assert np.abs(view - slow_view(picture, window, 24)).mean() <= 4
    assert shrinks == [2, 4]


def test_damaged_images_say_so():
    data = encode(noise(200, 200), "JPEG")
    image = image_decoding.EncodedImage(data[: len(data) // 2])
    with pytest.raises(image_decoding.BadImageError, match="truncated"):
        out = np.empty((2, 20, 20, 3), np.uint8)
        host_crops.train_views(image, (host_crops.Window(0, 0, 200, 200),) * 2, out)
    with pytest.raises(image_decoding.BadImageError, match="truncated"):
        host_crops.center_crop(image, 20)


# The reference's own photos, which are not part of the repository.


@pytest.fixture(name="photos", scope="module")
def fixture_photos():
    if not golden_data.has_photos():
        pytest.skip("the photos are in $BYOL_JAX_GOLDEN, preprocess.npz")
    return golden_data.load("preprocess")


def photo_indices(photos):
    return range(len(photos["image_size_hw"]))


def test_photos_have_the_references_size_and_window(photos):
    for index in photo_indices(photos):
        image = image_decoding.EncodedImage(photos[f"jpeg_{index}"].tobytes())
        assert (image.height, image.width) == tuple(photos["image_size_hw"][index])
        window = host_crops.center_window(image.height, image.width)
        assert window == tuple(photos["crop_window"][index])


def test_decoded_photos_equal_the_reference(photos):
    for index in photo_indices(photos):
        top, left, height, width = photos["crop_window"][index]
        pixels = image_decoding.EncodedImage(photos[f"jpeg_{index}"].tobytes()).decode()
        crop = pixels[top : top + height, left : left + width]
        # The last column, where the reference interpolates colors as if the image ended.
        np.testing.assert_array_equal(crop[:, :-1], photos[f"crop_{index}"][:, :-1])


def test_resized_photos_equal_the_reference(photos):
    for index in photo_indices(photos):
        output = host_crops.resize(photos[f"crop_{index}"], 224) / 255
        sample = photos[f"sample16_{index}"]
        np.testing.assert_allclose(output[::16, ::16], sample, atol=2e-6, rtol=0)
        if f"output_{index}" in photos:
            np.testing.assert_allclose(output, photos[f"output_{index}"], atol=6e-4, rtol=0)


def test_center_crops_of_photos_are_near_the_reference(photos):
    for index in photo_indices(photos):
        image = image_decoding.EncodedImage(photos[f"jpeg_{index}"].tobytes())
        output = host_crops.center_crop(image, 224).astype(np.float64) / 255
        error = np.abs(output[::16, ::16] - photos[f"sample16_{index}"])
        # Half a level from rounding; the last column is that of the test above.
        assert error[:, :-1].max() <= 0.5 / 255 + 1e-5 and error.mean() <= 0.002
        means = output.mean((0, 1)) - photos[f"channel_mean_{index}"]
        assert np.abs(means).max() <= 1e-3
        if f"output_{index}" in photos:
            error = np.abs(output - photos[f"output_{index}"].astype(np.float64))
            assert np.quantile(error, 0.98) <= 0.5 / 255 + 6e-4
