"""Scores and collapse measures against the reference's values and constructed cases."""

import numpy as np
import pytest

from byol_jax import metrics
from tests.objectives_test import HELPERS


@pytest.mark.parametrize("k", [1, 5])
def test_topk_equals_the_reference_also_in_ties(k):
    actual = metrics.topk_correct(HELPERS["logits"], HELPERS["labels"], k=k)
    np.testing.assert_array_equal(actual, HELPERS[f"top{k}_correct"])


def test_constant_logits_score_only_the_last_class():
    actual = metrics.topk_correct(np.zeros((4, 4)), np.arange(4), k=1)
    np.testing.assert_array_equal(actual, [0, 0, 0, 1])


def test_feature_std_is_one_for_directions_of_all_kinds_and_zero_for_one():
    rng = np.random.RandomState(0)
    spread = rng.standard_normal((20_000, 64))
    assert abs(metrics.feature_std(spread) - 1) < 0.02
    assert metrics.feature_std(np.tile(spread[:1], (100, 1))) < 1e-6
    assert metrics.feature_std(7 * spread) == pytest.approx(metrics.feature_std(spread))


@pytest.mark.parametrize("rank", [1, 5, 16])
def test_effective_rank_counts_equal_orthogonal_directions(rank):
    basis = np.linalg.qr(np.random.RandomState(0).standard_normal((16, 16)))[0][:rank]
    assert metrics.effective_rank(np.repeat(basis, 4, axis=0)) == pytest.approx(rank, rel=1e-3)


def test_effective_rank_of_unequal_directions_is_the_entropy_of_their_singular_values():
    share = np.array([4, 2, 1, 1]) / 8
    expected = np.exp(-(share * np.log(share)).sum())
    assert metrics.effective_rank(np.diag(share)) == pytest.approx(expected, rel=1e-4)


def test_nothing_but_zeros_is_no_error():
    assert metrics.feature_std(np.zeros((4, 3))) == 0
    assert np.isfinite(metrics.effective_rank(np.zeros((4, 3))))


def unit_points(n, size=5, seed=0):
    points = np.random.RandomState(seed).standard_normal((n, size))
    return points, points / np.linalg.norm(points, axis=1, keepdims=True)


def test_alignment_and_uniformity_agree_with_double_loops():
    (first, unit1), (second, unit2) = unit_points(12), unit_points(12, seed=1)
    distances = [sum((a - b) ** 2) for a, b in zip(unit1, unit2, strict=True)]
    assert metrics.alignment(first, second) == pytest.approx(sum(distances) / 12)
    potential = [np.exp(-2 * sum((unit1[i] - unit1[j]) ** 2)) for i in range(12) for j in range(i)]
    assert metrics.uniformity(first) == pytest.approx(np.log(sum(potential) / len(potential)))


def test_collapsed_features_are_aligned_and_not_uniform():
    same = np.ones((9, 3), np.float32)
    assert metrics.alignment(same, 2 * same) == pytest.approx(0, abs=1e-12)
    assert metrics.uniformity(same) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "share"), [(2000, 0.5), (2000, 0.9), (400, 0.3)])
def test_the_bootstrap_interval_is_close_to_the_normal_approximation(n, share):
    hits = np.arange(n) < share * n
    low, high = metrics.bootstrap_interval(hits, seed=0)
    half = 1.96 * np.sqrt(share * (1 - share) / n)
    assert low == pytest.approx(share - half, abs=0.15 * half)
    assert high == pytest.approx(share + half, abs=0.15 * half)
    assert (low, high) == metrics.bootstrap_interval(hits, seed=0)


def test_the_bootstrap_interval_of_a_perfect_score_has_no_width():
    assert metrics.bootstrap_interval(np.ones(10, bool), seed=0) == (1, 1)
