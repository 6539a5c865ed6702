"""Losses against the reference's values and against formulas."""

import numpy as np
import pytest

from byol_jax.objectives import byol
from tests.support import golden_data

HELPERS = golden_data.tree(
    {f"a|{key}": value for key, value in golden_data.load("loss_grads").items()}, "a"
)["helpers"]


def test_regression_loss_equals_the_reference():
    actual = byol.regression_loss(HELPERS["x"], HELPERS["y"])
    np.testing.assert_allclose(actual, HELPERS["regression_loss"], atol=2e-6, rtol=0)


def test_l2_normalize_equals_the_reference():
    actual = byol.l2_normalize(HELPERS["x"])
    np.testing.assert_allclose(actual, HELPERS["l2_normalize_x"], atol=2e-6, rtol=0)


def test_cross_entropy_equals_the_reference():
    actual = byol.cross_entropy(HELPERS["logits"], HELPERS["labels"])
    np.testing.assert_allclose(actual, HELPERS["cross_entropy_per_example"], rtol=1e-5, atol=1e-6)


def test_byol_loss_is_a_sum_over_views_of_two_minus_two_cosines():
    rng = np.random.RandomState(0)
    online1, online2, target1, target2 = rng.standard_normal((4, 6, 5)).astype(np.float32)

    def cosine(x, y):
        return (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)

    expected = np.mean(4 - 2 * cosine(online1, target2) - 2 * cosine(online2, target1))
    actual = byol.byol_loss((online1, online2), (target1, target2))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_byol_loss_needs_one_shape():
    with pytest.raises(AssertionError, match="shape"):
        byol.byol_loss((np.ones((2, 3)),) * 2, (np.ones((2, 4)),) * 2)
