"""The embedded data set: repeatable, balanced, and not to be told apart by its colors."""

import numpy as np
import pytest

from byol_jax.data import patterns


@pytest.fixture(scope="module")
def drawn():
    return patterns.make_patterns(600, 7)


@pytest.fixture(scope="module")
def clean():
    """Upright gray motifs of period 8, without noise and shadow."""
    return patterns.make_patterns(
        100,
        5,
        period=(8, 8),
        rotation=0,
        saturation=(0, 0),
        contrast=(0.4, 0.4),
        illumination=0,
        noise=0,
    )


def _motifs(images, labels):
    """Where the lighter color is, [100, 32, 32] between 0 (ground) and 1."""
    light = images.astype(float).sum(-1)
    low, high = light.min((1, 2), keepdims=True), light.max((1, 2), keepdims=True)
    order = np.argsort(labels, kind="stable")
    return ((light - low) / (high - low))[order].reshape(10, -1, 32, 32)


def test_shapes_and_types(drawn):
    images, labels = drawn
    assert images.shape == (600, 32, 32, 3) and images.dtype == np.uint8
    assert labels.shape == (600,) and labels.dtype == np.int32
    assert len(patterns.CLASS_NAMES) == len(set(patterns.CLASS_NAMES)) == 10


def test_same_seed_same_images(drawn):
    images, labels = patterns.make_patterns(600, 7)
    np.testing.assert_array_equal(images, drawn[0])
    np.testing.assert_array_equal(labels, drawn[1])


def test_another_seed_changes_every_image(drawn):
    images, labels = patterns.make_patterns(600, 8)
    assert (images != drawn[0]).any((1, 2, 3)).all()
    assert (labels != drawn[1]).any()


def test_global_random_state_is_left_alone():
    np.random.seed(0)
    expected = np.random.RandomState(0).uniform()
    patterns.make_patterns(10, 1)
    assert np.random.uniform() == expected


@pytest.mark.parametrize("num_images", [1, 9, 250, 251, 503])
def test_any_number_of_images_and_even_classes(num_images):
    images, labels = patterns.make_patterns(num_images, 3)
    assert len(images) == len(labels) == num_images
    counts = np.bincount(labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    assert images[-1].std() > 0


def test_splits_share_no_seed_and_no_image():
    assert set(patterns.SPLITS) == {"train", "validation", "test"}
    seeds = [split.seed for split in patterns.SPLITS.values()]
    assert len(set(seeds)) == len(seeds)
    small = [patterns.make_patterns(200, seed)[0] for seed in seeds]
    assert len({image.tobytes() for images in small for image in images}) == 600


def test_load_draws_the_named_split():
    split = patterns.SPLITS["validation"]
    images, labels = patterns.load("validation")
    assert len(images) == split.num_images
    np.testing.assert_array_equal(images, patterns.make_patterns(*split)[0])
    np.testing.assert_array_equal(np.bincount(labels), split.num_images // 10)


def test_pixels_use_the_whole_range_without_saturating(drawn):
    images, _ = drawn
    assert 100 < images.mean() < 155
    assert ((images == 0) | (images == 255)).mean() < 0.1


def test_motif_repeats_at_the_period(clean):
    for name, motifs in zip(patterns.CLASS_NAMES, _motifs(*clean), strict=True):
        if name in ("diagonals", "checks"):
            continue  # their period runs diagonally and is no whole number of pixels
        wide = 16 if name in ("zigzag", "dashes") else 8  # two periods wide
        np.testing.assert_allclose(motifs[:, :, wide:], motifs[:, :, :-wide], atol=0.02)
        tall = 16 if name == "dashes" else 8  # every second row of dashes is shifted
        np.testing.assert_allclose(motifs[:, tall:], motifs[:, :-tall], atol=0.02)


def test_classes_differ_at_every_offset(clean):
    """No translation or mirroring turns one class into another."""
    motifs = _motifs(*clean)[:, 0]  # one image a class
    spectra = np.abs(np.fft.fft2(motifs - motifs.mean((1, 2), keepdims=True)))
    spectra = spectra + spectra[:, :, -np.arange(32)]  # does not see a mirror
    spectra = (spectra / np.linalg.norm(spectra, axis=(1, 2), keepdims=True)).reshape(10, -1)
    likeness = spectra @ spectra.T - np.eye(10)
    assert likeness.max() < 0.95


def test_rows_and_columns_are_what_they_say(clean):
    motifs = dict(zip(patterns.CLASS_NAMES, _motifs(*clean), strict=True))
    assert motifs["rows"].std(2).max() < 0.02 < motifs["rows"].std(1).min()
    assert motifs["columns"].std(1).max() < 0.02 < motifs["columns"].std(2).min()


def test_mean_color_does_not_give_the_class_away():
    images, labels = patterns.make_patterns(2000, 11)
    color = images.mean((1, 2)) / 255  # [N, 3]
    means = np.array([color[labels == label].mean(0) for label in range(10)])
    nearest = np.argmin(np.linalg.norm(color[:, None] - means, axis=-1), axis=-1)
    assert (nearest == labels).mean() < 0.25


def test_noise_has_the_stated_size():
    plain = {"contrast": (0, 0), "illumination": 0, "noise": 0}
    before, _ = patterns.make_patterns(200, 2, **plain)
    after, _ = patterns.make_patterns(200, 2, **{**plain, "noise": 0.05})
    inside = (before > 40) & (before < 215)  # where noise of 5 % hardly clips
    change = (after.astype(float) - before)[inside] / 255
    assert abs(change.std() - 0.05) < 0.002 and abs(change.mean()) < 0.002


def test_no_images_is_an_error():
    with pytest.raises(ValueError, match="at least 1"):
        patterns.make_patterns(0, 1)


def test_unknown_split_names_the_valid_ones():
    with pytest.raises(ValueError, match="Valid: test, train, validation"):
        patterns.load("tset")
