"""Windows on pictures of any size, and what they see together."""

import numpy as np
import pytest

from byol_jax.evaluation import windows


@pytest.mark.parametrize("shape", [(20, 50), (33, 33), (34, 70), (100, 131)])
def test_sliding_windows_cover_a_picture_and_stay_inside(shape):
    count = np.zeros(shape, int)
    for top, left in windows.sliding(shape, 33):
        assert 0 <= top <= max(shape[0] - 33, 0) and 0 <= left <= max(shape[1] - 33, 0)
        count[top : top + 33, left : left + 33] += 1
    assert count.min() >= 1


def test_a_small_picture_is_padded_at_the_right_and_bottom():
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    (window,) = windows.central((5, 7), 9)
    found = windows.cut(pixels, window, 9, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(found[:5, :7], pixels)
    assert (found[5:] == [1, 2, 3]).all() and (found[:, 7:] == [1, 2, 3]).all()


def test_the_central_window_says_which_pixels_it_has_seen():
    (window,) = windows.central((20, 12), 9)
    labels, seen = windows.paste((20, 12), [window], [np.full((9, 9), 3, np.uint8)])
    assert seen.sum() == 81 and (labels[seen] == 3).all() and seen[5:14, 1:10].all()


def test_windows_that_agree_give_what_each_of_them_says():
    """Scores of a picture, cut into windows and joined, are those of the picture."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 61, 5)).astype(np.float32)
    where = windows.sliding((40, 61), 33)
    parts = [scores[top : top + 33, left : left + 33] for top, left in where]
    labels, seen = windows.average((40, 61), where, parts)
    assert seen.all()
    np.testing.assert_array_equal(labels, scores.argmax(-1))


def test_batches_are_filled_up_and_say_how_many_are_real():
    items = [np.full((2, 2), i) for i in range(5)]
    found = list(windows.in_batches(items, 4))
    assert [(batch.shape, real) for batch, real in found] == [((4, 2, 2), 4), ((4, 2, 2), 1)]


def test_scores_that_are_no_numbers_are_no_label():
    scores = np.zeros((2, 2, 3), np.float32)
    scores[0, 0, 1], scores[1, 1, 2] = np.nan, 5
    np.testing.assert_array_equal(windows.best(scores), [[255, 0], [0, 2]])
