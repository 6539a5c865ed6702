"""Logistic regression against scikit-learn called directly, and against its own objective."""

import numpy as np
import pytest
import sklearn.linear_model
import threadpoolctl

from byol_jax.config import UsageError
from byol_jax.evaluation import logistic_regression
from tests.training.online_eval_test import clusters

STRENGTHS = [1e2, 1.0, 1e-2]
SOLVER = logistic_regression.Solver(max_iterations=5000, tolerance=1e-5)


def double(n, **options):
    features, labels = clusters(n, spread=2.5, **options)
    return features.astype(np.float64), labels


def direct(features, targets, strength):
    peer = sklearn.linear_model.LogisticRegression(C=1 / strength, max_iter=5000, tol=1e-7)
    with threadpoolctl.threadpool_limits(1):  # several wait for each other
        return peer.fit(features, targets)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_warm_start_ends_where_scikit_learn_does_from_the_beginning(classes):
    features, labels = double(200, classes=classes)
    unseen, _ = double(100, seed=1)
    fits = logistic_regression.fit_labels(features, labels, STRENGTHS, SOLVER, num_classes=classes)
    for fit, strength in zip(fits, STRENGTHS, strict=True):
        peer = direct(features, labels, strength)
        logits = fit.scores(unseen)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        ours = odds / odds.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(ours, peer.predict_proba(unseen), atol=2e-4)
        assert fit.strength == strength and fit.iterations > 0 and not fit.not_converged


def test_lambda_weighs_half_the_squared_weights_against_the_sum_of_the_losses():
    """At the minimum the gradient of the formula in the module's docstring is zero."""
    features, labels = double(150)
    strength = 3.0
    fit = next(logistic_regression.fit_labels(features, labels, [strength], SOLVER, num_classes=4))
    odds = np.exp(fit.scores(features))
    errors = odds / odds.sum(axis=1, keepdims=True) - np.eye(4)[labels]
    slope = features.T @ errors + strength * fit.weights
    scale = np.abs(strength * fit.weights).max()
    assert np.abs(slope).max() < 1e-3 * scale and np.abs(errors.sum(axis=0)).max() < 1e-3 * scale


@pytest.mark.parametrize("kept", [(0, 2, 3), (1, 3)])
def test_a_class_without_images_is_never_found(kept):
    features, labels = double(200)
    rows = np.isin(labels, kept)
    fit = next(
        logistic_regression.fit_labels(features[rows], labels[rows], [1.0], SOLVER, num_classes=4)
    )
    found = fit.scores(features).argmax(axis=1)
    assert set(found) == set(kept)
    expected = direct(features[rows], labels[rows], 1.0).predict(features)
    np.testing.assert_array_equal(found, expected)


def drawn_tags(features):
    """Three classes, the last of which all images have; some images are not counted."""
    rng = np.random.default_rng(0)
    multi_labels = (features[:, :3] + rng.standard_normal((len(features), 3)) > 0.5).astype(np.int8)
    multi_labels[rng.random(multi_labels.shape) < 0.1] = -1
    multi_labels[:, 2] = 1
    return multi_labels


def test_every_class_has_a_regression_of_its_own_on_the_images_that_count():
    features, _ = double(200)
    multi_labels = drawn_tags(features)
    fits = logistic_regression.fit_tags(features, multi_labels, STRENGTHS, SOLVER)
    for fit, strength in zip(fits, STRENGTHS, strict=True):
        for c in (0, 1):
            counted = multi_labels[:, c] >= 0
            peer = direct(features[counted], multi_labels[counted, c], strength)
            expected = peer.decision_function(features)
            np.testing.assert_allclose(fit.scores(features)[:, c], expected, atol=2e-2, rtol=2e-3)
        assert (fit.scores(features)[:, 2] == 0).all()


def separable(n=300):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n, 32)).astype(np.float32)
    return features, (features @ rng.standard_normal((32, 4))).argmax(axis=1)


def newton(features, labels, strength, weights):
    """The minimum by Newton's method from where another has ended; the last row are biases."""
    inputs = np.concatenate([features, np.ones((len(features), 1))], axis=1).astype(np.float64)
    penalty = np.full(weights.shape, strength)
    penalty[-1] = 0
    classes = weights.shape[1]
    for _ in range(4):
        logits = inputs @ weights
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        fractions = odds / odds.sum(axis=1, keepdims=True)
        slope = inputs.T @ (fractions - np.eye(classes)[labels]) + penalty * weights
        matrix = np.diag(penalty.ravel())
        for c, d in np.ndindex(classes, classes):
            curve = fractions[:, c] * ((c == d) - fractions[:, d])
            matrix[c::classes, d::classes] += inputs.T @ (curve[:, None] * inputs)
        matrix[-classes:, -classes:] += 1  # biases that move together change nothing
        weights = weights - np.linalg.solve(matrix, slope.ravel()).reshape(slope.shape)
    assert np.abs(slope).max() < 1e-6 * strength * np.abs(weights).max()
    return weights


@pytest.mark.parametrize("size", [logistic_regression.NEWTON_SIZE, 0], ids=["newton", "lbfgs"])
def test_weak_penalties_on_separable_images_have_minima_of_their_own(size, monkeypatch):
    """Their losses are tiny, and so are their slopes, wherever a fit stands."""
    monkeypatch.setattr(logistic_regression, "NEWTON_SIZE", size)
    features, labels = separable()
    unseen = np.random.default_rng(1).standard_normal((2000, 32))
    solver = logistic_regression.Solver(max_iterations=1000, tolerance=1e-3)
    fits = list(
        logistic_regression.fit_labels(features, labels, [1e-2, 1e-4, 1e-6], solver, num_classes=4)
    )
    for fit in fits:
        assert fit.iterations > 0 and not fit.not_converged
        found = np.concatenate([fit.weights, fit.biases[None]])
        best = newton(features, labels, fit.strength, found)
        expected = unseen @ best[:-1] + best[-1]
        assert np.abs(found - best).max() < 1e-2 * np.abs(best).max()
        assert (fit.scores(unseen).argmax(axis=1) != expected.argmax(axis=1)).mean() < 2e-3
    assert np.abs(fits[0].weights).max() * 1.2 < np.abs(fits[1].weights).max()


def test_the_final_fit_is_the_classifier_that_was_selected():
    """However far it comes: it goes on from the selected one's weights."""
    features, labels = separable()
    short = logistic_regression.Solver(max_iterations=3, tolerance=1e-9)
    options = {"num_classes": 4}
    *_, chosen = logistic_regression.fit_labels(
        features, labels, [1.0, 1e-2, 1e-4], SOLVER, **options
    )
    final = next(
        logistic_regression.fit_labels(features, labels, [1e-4], short, start=chosen, **options)
    )
    np.testing.assert_allclose(final.weights, chosen.weights, atol=1e-3 * chosen.weights.max())
    multi_labels = np.eye(4, dtype=np.int8)[labels]
    *_, chosen = logistic_regression.fit_tags(features, multi_labels, [1.0, 1e-2, 1e-4], SOLVER)
    final = next(logistic_regression.fit_tags(features, multi_labels, [1e-4], short, start=chosen))
    np.testing.assert_allclose(final.weights, chosen.weights, atol=1e-3 * chosen.weights.max())


def test_a_class_that_only_all_images_have_starts_at_zero():
    features, labels = double(200)
    rows = labels != 2
    (start,) = logistic_regression.fit_labels(
        features[rows], labels[rows], [1.0], SOLVER, num_classes=4
    )
    (fit,) = logistic_regression.fit_labels(
        features, labels, [1.0], SOLVER, num_classes=4, start=start
    )
    (alone,) = logistic_regression.fit_labels(features, labels, [1.0], SOLVER, num_classes=4)
    np.testing.assert_allclose(fit.weights, alone.weights, atol=1e-4)


def test_fits_that_do_not_converge_are_counted(monkeypatch):
    monkeypatch.setattr(logistic_regression, "NEWTON_SIZE", 0)  # L-BFGS
    features, labels = double(200)
    short = logistic_regression.Solver(max_iterations=2, tolerance=1e-7)
    (fit,) = logistic_regression.fit_labels(features, labels, [1e-3], short, num_classes=4)
    assert fit.not_converged == 1 and fit.iterations == 2
    (fit,) = logistic_regression.fit_tags(features, drawn_tags(features), [1e-3], short)
    assert fit.not_converged == 2 and fit.iterations == 4


def test_what_cannot_be_learned_is_refused():
    features, labels = double(20)
    with pytest.raises(UsageError, match="20 images to learn from are all of one class"):
        next(logistic_regression.fit_labels(features, labels * 0, [1.0], SOLVER, num_classes=4))
    with pytest.raises(UsageError, match="No class to learn"):
        next(logistic_regression.fit_tags(features, np.ones((20, 2), np.int8), [1.0], SOLVER))
    features[3, 2] = np.nan
    for fits in (
        logistic_regression.fit_labels(features, labels, [1.0], SOLVER, num_classes=4),
        logistic_regression.fit_tags(features, drawn_tags(features), [1.0], SOLVER),
    ):
        with pytest.raises(UsageError, match="not finite"):
            next(fits)
