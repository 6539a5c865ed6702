"""Near-duplicates: what is planted is found, nothing else, and of a group one image is kept."""

import numpy as np
import pytest

from byol_jax.curation import alignment, duplicates, pictures
from byol_jax.data import datasets
from tests.support.samples import drawn_picture


def leaves(seed):
    """A picture of rectangles of all sizes that cover each other, uint8 [64, 72, 3]."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((64, 72, 3), np.uint8)
    for _ in range(60):
        top, left = rng.integers(-8, 64), rng.integers(-8, 72)
        height, width = rng.integers(4, 40, 2)
        picture[max(top, 0) : top + height, max(left, 0) : left + width] = rng.integers(0, 256, 3)
    return picture


def planted(count, copies):
    """Drawn images and near-duplicates of the first of them."""
    rng = np.random.default_rng(0)
    images = [leaves(seed) for seed in range(count)]
    images += [pictures.vary(images[i], i % 3, rng) for i in range(copies)]
    return images


def find(images):
    small = np.stack([alignment.shrink(image) for image in images])
    nearest = np.zeros((len(images), 1), int)  # an encoder that tells nothing apart
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(images))[:100]
    made = [alignment.shrink(pictures.vary(images[i], i % 3, rng)) for i in rows]
    known = duplicates.Known(rows, np.stack(made))
    pairs = duplicates.propose(nearest, small)
    chosen = duplicates.choose_threshold(small, known, pairs)
    compared = duplicates.compare(small, pairs, known)
    order = np.arange(len(images))
    return chosen, *duplicates.find(nearest, small, order, compared, known, chosen.value)


def assert_found(count, copies):
    chosen, owner, alike = find(planted(count, copies))
    found = np.flatnonzero(owner != np.arange(len(owner)))
    right = (owner[found] == found - count).sum()
    assert right >= 0.95 * copies and right >= 0.95 * len(found)
    assert chosen.found > 0.95 and (alike[found] >= chosen.value).all()


@pytest.mark.slow
def test_of_2000_images_and_50_planted_ones_95_percent_are_found_and_95_percent_are_right():
    assert_found(2000, 50)


@pytest.mark.slow
def test_many_copies_of_one_image_leave_one():
    images = [*planted(12, 0), *[leaves(3)] * 20]
    _, owner, _ = find(images)
    assert (owner[12:] == 3).all() and (owner[:12] == np.arange(12)).all()


def test_a_chain_of_small_changes_does_not_make_one_of_many_images():
    pairs = duplicates.Pairs(np.array([[0, 1], [1, 2], [2, 3]]), np.float32([0.99, 0.98, 0.97]))
    owner, alike = duplicates.keepers(pairs, np.arange(4), 0.9)
    assert owner.tolist() == [0, 0, 2, 2]
    np.testing.assert_allclose(alike, [1, 0.99, 1, 0.97], rtol=1e-6)


def test_the_best_image_of_a_group_is_kept():
    pairs = duplicates.Pairs(np.array([[0, 1], [0, 2], [1, 2]]), np.float32([0.99, 0.98, 0.97]))
    assert duplicates.keepers(pairs, [2, 0, 1], 0.9)[0].tolist() == [2, 2, 2]


def test_pictures_that_are_moved_and_scaled_are_alike_and_others_are_not():
    image = drawn_picture(100, 100, seed=5)
    views = [image, image[3:98, 5:100], image[:, ::-1], drawn_picture(100, 100, seed=6)]
    small = np.stack([alignment.shrink(view) for view in views])
    found = alignment.similarity(small, np.array([[0, 0], [0, 1], [1, 0], [0, 2], [0, 3]]))
    assert found[0] == 1 and found[1] == pytest.approx(found[2], abs=1e-5) and found[1] > 0.95
    assert (found[3:] < 0.9).all()


def test_flat_pictures_are_alike_if_their_colors_are():
    flat = np.stack([np.full((32, 32, 3), value, np.float32) for value in (0.0, 0.001, 0.3)])
    found = alignment.similarity(flat, np.array([[0, 1], [0, 2]]))
    assert found[0] > 0.9 and found[1] < 0


def test_a_picture_is_the_mean_of_the_pixels_that_it_covers():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    expected = image.reshape(32, 2, 32, 3, 3).mean(axis=(1, 3)) / 255 - 0.5
    np.testing.assert_allclose(alignment.shrink(image), expected, atol=1e-5)


def test_pictures_of_arrays_are_those_of_their_images():
    data = datasets.ArrayDataset(np.stack([drawn_picture(40, 40, seed=s) for s in range(3)]))
    np.testing.assert_array_equal(
        pictures.small(data, [2, 0]), [alignment.shrink(data.images[i]) for i in (2, 0)]
    )
