"""Scores and collapse measures against the reference's values and constructed cases."""

import fractions

import jax
import numpy as np
import pytest

from byol_jax.metrics import accuracy, representation
from tests.objectives.byol_test import HELPERS

FORMS = {"numpy": accuracy.correct, "jax": jax.jit(accuracy.correct)}  # one and the same function


@pytest.mark.parametrize("form", FORMS)
def test_topk_equals_the_reference_also_in_ties(form):
    found = FORMS[form](HELPERS["logits"], HELPERS["labels"])
    for name in ("top1", "top5"):
        np.testing.assert_array_equal(found[name], HELPERS[f"{name}_correct"])


@pytest.mark.parametrize("form", FORMS)
def test_constant_logits_score_only_the_last_class(form):
    found = FORMS[form](np.zeros((4, 4)), np.arange(4))
    np.testing.assert_array_equal(found["top1"], [0, 0, 0, 1])


@pytest.mark.parametrize("form", FORMS)
def test_a_network_that_diverged_is_never_right(form):
    found = FORMS[form](np.full((3, 8), np.nan, np.float32), np.array([0, 3, 7]))
    assert not found["top1"].any() and not found["top5"].any()


@pytest.mark.parametrize("form", FORMS)
def test_an_image_without_label_is_never_right(form):
    found = FORMS[form](np.eye(3, dtype=np.float32)[[2, 2]], np.array([2, -1]))
    assert found["top1"].tolist() == found["top5"].tolist() == [True, False]


def test_feature_std_is_one_for_directions_of_all_kinds_and_zero_for_one():
    rng = np.random.RandomState(0)
    spread = rng.standard_normal((20_000, 64))
    assert abs(representation.feature_std(spread) - 1) < 0.02
    assert representation.feature_std(np.tile(spread[:1], (100, 1))) < 1e-6
    assert representation.feature_std(7 * spread) == pytest.approx(
        representation.feature_std(spread)
    )


@pytest.mark.parametrize("rank", [1, 5, 16])
def test_effective_rank_counts_equal_orthogonal_directions(rank):
    basis = np.linalg.qr(np.random.RandomState(0).standard_normal((16, 16)))[0][:rank]
    assert representation.effective_rank(np.repeat(basis, 4, axis=0)) == pytest.approx(
        rank, rel=1e-3
    )


def test_effective_rank_of_unequal_directions_is_the_entropy_of_their_singular_values():
    fraction = np.array([4, 2, 1, 1]) / 8
    expected = np.exp(-(fraction * np.log(fraction)).sum())
    assert representation.effective_rank(np.diag(fraction)) == pytest.approx(expected, rel=1e-4)


def test_nothing_but_zeros_is_no_error():
    assert representation.feature_std(np.zeros((4, 3))) == 0
    assert np.isfinite(representation.effective_rank(np.zeros((4, 3))))


def unit_points(n, size=5, seed=0):
    points = np.random.RandomState(seed).standard_normal((n, size))
    return points, points / np.linalg.norm(points, axis=1, keepdims=True)


def test_alignment_and_uniformity_agree_with_double_loops():
    (first, unit1), (second, unit2) = unit_points(12), unit_points(12, seed=1)
    distances = [sum((a - b) ** 2) for a, b in zip(unit1, unit2, strict=True)]
    assert representation.alignment(first, second) == pytest.approx(sum(distances) / 12)
    potential = [np.exp(-2 * sum((unit1[i] - unit1[j]) ** 2)) for i in range(12) for j in range(i)]
    assert representation.uniformity(first) == pytest.approx(
        np.log(sum(potential) / len(potential))
    )


def test_collapsed_features_are_aligned_and_not_uniform():
    same = np.ones((9, 3), np.float32)
    assert representation.alignment(same, 2 * same) == pytest.approx(0, abs=1e-12)
    assert representation.uniformity(same) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "fraction"), [(2000, 0.5), (2000, 0.9), (400, 0.3)])
def test_the_bootstrap_interval_is_close_to_the_normal_approximation(n, fraction):
    correct = np.arange(n) < fraction * n
    low, high = accuracy.bootstrap_interval(correct, seed=0)
    half = 1.96 * np.sqrt(fraction * (1 - fraction) / n)
    assert low == pytest.approx(fraction - half, abs=0.15 * half)
    assert high == pytest.approx(fraction + half, abs=0.15 * half)
    assert (low, high) == accuracy.bootstrap_interval(correct, seed=0)


def test_the_bootstrap_interval_of_a_perfect_score_has_no_width():
    assert accuracy.bootstrap_interval(np.ones(10, bool), seed=0) == (1, 1)


# Metrics of transfer.


def test_mean_per_class_weighs_classes_alike_and_leaves_absent_ones_out():
    labels = np.array([0, 0, 0, 0, 2, 2])
    correct = np.array([1, 1, 1, 0, 0, 0])
    assert accuracy.mean_per_class(correct, labels) == pytest.approx((0.75 + 0) / 2)


def test_the_interval_of_mean_per_class_is_that_of_its_standard_error():
    """Normal approximation; a rare class makes it wider than that of the plain mean."""
    labels = np.repeat([0, 1], [900, 100])
    correct = np.random.default_rng(0).random(1000) < 0.7
    low, high = accuracy.bootstrap_mean_per_class(correct, labels, seed=0, resamples=4000)
    fractions = [correct[labels == c].mean() for c in (0, 1)]
    error = np.sqrt(sum(p * (1 - p) / n for p, n in zip(fractions, (900, 100), strict=True))) / 2
    mean = accuracy.mean_per_class(correct, labels)
    np.testing.assert_allclose([low, high], [mean - 1.96 * error, mean + 1.96 * error], atol=4e-3)


def brute_force_map11(scores, multi_labels):
    """By the definition: of every threshold the recall and the precision."""
    precisions = []
    for c in range(scores.shape[1]):
        score, tag = scores[multi_labels[:, c] >= 0, c], multi_labels[multi_labels[:, c] >= 0, c]
        if not tag.sum():
            continue
        points = []
        for threshold in score:
            chosen = tag[score >= threshold]
            points.append((fractions.Fraction(int(chosen.sum()), int(tag.sum())), chosen.mean()))
        levels = [fractions.Fraction(level, 10) for level in range(11)]
        precisions.append(
            np.mean([max(p for recall, p in points if recall >= level) for level in levels])
        )
    return np.mean(precisions)


@pytest.mark.parametrize("decimals", [8, 1])
@pytest.mark.parametrize("count", [3, 20, 97])
def test_map11_is_vocs_definition_also_with_equal_scores(count, decimals):
    rng = np.random.default_rng(count)
    multi_labels = rng.choice([-1, 0, 1], (count, 4), p=[0.1, 0.6, 0.3]).astype(np.int8)
    multi_labels[0], multi_labels[:, 3] = 1, 0  # a class that no image has
    scores = np.round(rng.standard_normal((count, 4)) + multi_labels, decimals)
    assert accuracy.map11(scores, multi_labels) == pytest.approx(
        brute_force_map11(scores, multi_labels), abs=1e-12
    )
    order = rng.permutation(count)
    assert accuracy.map11(scores[order], multi_labels[order]) == accuracy.map11(
        scores, multi_labels
    )


def test_map11_of_a_known_ranking():
    """Right, wrong, right, and one that is not counted: precision 1 up to half, 2/3 after it."""
    scores = np.array([[4.0], [3], [2], [5]])
    multi_labels = np.array([[1], [0], [1], [-1]], np.int8)
    assert accuracy.map11(scores, multi_labels) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert accuracy.map11(np.zeros((4, 1)), multi_labels) == pytest.approx(
        2 / 3
    )  # a collapsed encoder
    assert np.isnan(accuracy.map11(scores, 0 * multi_labels))


def test_images_drawn_twice_count_twice_in_the_bootstrap_of_map11():
    rng = np.random.default_rng(0)
    multi_labels = rng.integers(0, 2, (60, 3)).astype(np.int8)
    scores = rng.standard_normal((60, 3)) + multi_labels
    found = accuracy.bootstrap_map11(scores, multi_labels, seed=4, resamples=50)
    rng = np.random.default_rng(4)
    drawn = [rng.integers(60, size=60) for _ in range(50)]
    expected = [brute_force_map11(scores[rows], multi_labels[rows]) for rows in drawn]
    np.testing.assert_allclose(found, np.percentile(expected, [2.5, 97.5]), atol=1e-12)
