"""What depth estimation sees of an image: which part, flipped with its depth, colored by itself."""

import functools

import jax
import numpy as np
import pytest

from byol_jax.data import pixel_sets
from byol_jax.evaluation import depth_input
from tests.support import pixel_worlds

SIZE, OUTPUT = (24, 32), (12, 16)


def example(seed=0, height=48, width=64):
    image, _, depth = pixel_worlds.draw(seed, height=height, width=width)
    return pixel_sets.Example(0, image, depth)


def make(seed):
    return depth_input.make_example(SIZE, OUTPUT, example(), np.random.default_rng(seed))


def test_of_nyus_pictures_it_sees_the_papers_cut_at_half_size():
    assert depth_input.center_part((480, 640), (228, 304)) == (456, 608)


@pytest.mark.parametrize("shape", [(300, 1000), (1000, 300), (20, 20)])
def test_of_other_pictures_it_sees_as_much_of_the_same_proportions(shape):
    height, width = depth_input.center_part(shape, (228, 304))
    assert height <= shape[0] and width <= shape[1]
    assert height / width == pytest.approx(228 / 304, rel=0.1)
    assert max(height / shape[0], width / shape[1]) == pytest.approx(0.95, abs=0.03)


def test_image_and_depth_are_flipped_together_half_of_the_time():
    drawn = [make(seed) for seed in range(40)]
    flipped = []
    for found in drawn:
        is_flipped = not np.array_equal(found["image"], drawn[0]["image"])
        same = drawn[0]["target"][:, ::-1] if is_flipped else drawn[0]["target"]
        np.testing.assert_array_equal(found["target"], same)
        flipped.append(is_flipped)
    assert 8 < sum(flipped) < 32


def test_depth_is_never_mixed_and_unknown_pixels_stay_unknown():
    found = example()
    target = np.where(np.arange(64) % 2, 0, 2.0) * np.ones((48, 1))
    made = depth_input.make_example(
        SIZE, OUTPUT, found._replace(target=target), np.random.default_rng(0)
    )
    assert set(np.unique(made["target"])) <= {0.0, 2.0}


make_images = jax.jit(depth_input.make_images)


@functools.cache
def colored():
    batch = [make(seed) for seed in range(8)]
    stacked = {key: np.stack([found[key] for found in batch]) for key in batch[0]}
    return stacked, np.asarray(make_images(stacked))


def test_colors_follow_each_images_own_numbers_whatever_its_place_in_the_batch():
    stacked, whole = colored()
    order = np.random.default_rng(0).permutation(8)
    other = make_images({key: value[order] for key, value in stacked.items()})
    np.testing.assert_allclose(other, whole[order], atol=1e-6)


def test_some_images_become_gray_and_the_others_change():
    stacked, whole = colored()
    is_gray = np.ptp(whole, axis=-1).max(axis=(1, 2)) < 1e-6
    np.testing.assert_array_equal(is_gray, stacked["uniforms"][:, 4] < 0.3)
    assert np.abs(whole - stacked["image"] / 255).max(axis=(1, 2, 3)).min() > 0.01
