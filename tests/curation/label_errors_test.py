"""Suspected labels: planted errors come first, and classes of too few images are not judged."""

import numpy as np

from byol_jax.curation import label_errors


def planted(count=400, classes=5, share=0.05, spread=1.0, seed=0):
    """Features of classes that overlap a little, their labels, and which of these are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    features = np.eye(classes, 16)[truth] * 4 + spread * rng.normal(size=(count, 16))
    is_wrong = np.zeros(count, bool)
    is_wrong[rng.permutation(count)[: int(share * count)]] = True
    moved = (truth + rng.integers(1, classes, count)) % classes
    return features, np.where(is_wrong, moved, truth), truth, is_wrong


def test_four_fifths_of_the_wrong_labels_are_in_the_first_tenth_of_the_list():
    features, labels, truth, is_wrong = planted()
    judged = label_errors.judge(features, labels, seed=0)
    first = np.argsort(judged.margin)[: len(labels) // 10]
    assert is_wrong[first].sum() >= 0.8 * is_wrong.sum()
    assert judged.is_suspect[is_wrong].mean() > 0.8 and judged.is_suspect[~is_wrong].mean() < 0.1
    assert (judged.suggested == truth).mean() > 0.9


def test_no_image_is_judged_by_a_classifier_that_has_seen_it():
    """Labels that are drawn cannot be known: in what was learned by heart they would be right."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(100, 60)), rng.integers(0, 2, 100)
    chances = label_errors.cross_validated(features, labels, seed=0)
    assert (chances.argmax(axis=1) == labels).mean() < 0.7


def test_images_without_a_label_or_of_a_rare_class_are_not_judged():
    features, labels, _, _ = planted(60, classes=2)
    labels = np.concatenate([labels, [-1, 7, 7]])
    judged = label_errors.judge(np.vstack([features, np.eye(3, 16)]), labels, seed=0)
    assert np.isnan(judged.margin[60:]).all() and (judged.suggested[60:] == -1).all()
    assert not judged.is_suspect[60:].any() and np.isfinite(judged.margin[:60]).all()


def test_one_class_alone_is_not_judged():
    judged = label_errors.judge(np.eye(8), np.zeros(8, int), seed=0)
    assert np.isnan(judged.margin).all() and not judged.is_suspect.any()
