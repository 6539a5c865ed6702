"""Logistic regression with an l2 penalty, by scikit-learn's L-BFGS, for many strengths of it.

The penalty lambda minimises

    sum over images of the cross-entropy + lambda / 2 * sum of the squared weights

so that scikit-learn's C is 1 / lambda; biases are free. With the mean over N images in place of the
sum, the same penalty would be called lambda / N. Shapes: N images, F features, C classes.
"""

import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import sklearn.exceptions
import sklearn.linear_model
import threadpoolctl

from byol_jax import config as config_lib

UsageError = config_lib.UsageError

# Products of fewer multiplications are left to one thread: several wait for each other, where other
# programs are busy, too, up to forty times as long as the work takes.
THREADED_SIZE = 10**9


class Solver(NamedTuple):
    """When L-BFGS stops.

    Attributes:
      max_iterations: of each fit.
      tolerance: of the largest component of the gradient of the mean over images.
    """

    max_iterations: int
    tolerance: float


class Fit(NamedTuple):
    """A classifier, and how it was found.

    Attributes:
      strength: lambda.
      weights: [F, C].
      biases: [C]; minus infinity for a class that no image had.
      iterations: of L-BFGS; the sum over classes where each has its own regression.
      not_converged: number of regressions that ended without having converged.
    """

    strength: float
    weights: np.ndarray
    biases: np.ndarray
    iterations: int
    not_converged: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Logits [N, C]."""
        return features @ self.weights + self.biases


def fit_labels(
    features: np.ndarray,
    labels: np.ndarray,
    strengths: Sequence[float],
    solver: Solver,
    *,
    num_classes: int,
) -> Iterator[Fit]:
    """Multinomial regressions, each from where the one before has ended.

    Two classes are scikit-learn's binary regression, with one vector of weights.

    Args:
      features: [N, F].
      labels: [N] in [0, C).
      strengths: lambdas, best from strong to weak.
      solver: when to stop.
      num_classes: C.

    Raises:
      UsageError: features that are not finite; images of one class only.
    """
    _require_finite(features)
    present = np.unique(labels)
    if len(present) < 2:
        raise UsageError(f"The {len(labels):,} images to learn from are all of one class.")
    model = _model(solver)
    for strength in strengths:
        not_converged = _fit(model, features, labels, strength)
        weights = np.zeros((features.shape[1], num_classes), features.dtype)
        biases = np.full(num_classes, -np.inf, features.dtype)
        columns = present[1:] if len(present) == 2 else present
        biases[present] = 0
        weights[:, columns], biases[columns] = model.coef_.T, model.intercept_
        yield Fit(strength, weights, biases, int(model.n_iter_.sum()), not_converged)


def fit_tags(
    features: np.ndarray, tags: np.ndarray, strengths: Sequence[float], solver: Solver
) -> Iterator[Fit]:
    """One binary regression a class, each from where the one before has ended.

    Args:
      features: [N, F].
      tags: [N, C]; 1 has the class, 0 has not, -1 is not counted.
      strengths: lambdas, best from strong to weak.
      solver: when to stop.

    Raises:
      UsageError: features that are not finite; no class that some images have and some have not.
    """
    _require_finite(features)
    mixed = [c for c, column in enumerate(tags.T) if {0, 1} <= set(column.tolist())]
    if not mixed:
        raise UsageError("No class to learn: each is in all images to learn from, or in none.")
    models = {c: _model(solver) for c in mixed}
    for strength in strengths:
        weights = np.zeros((features.shape[1], tags.shape[1]), features.dtype)
        biases = np.zeros(tags.shape[1], features.dtype)
        not_converged = 0
        for c, model in models.items():
            counted = tags[:, c] >= 0
            not_converged += _fit(model, features[counted], tags[counted, c], strength)
            weights[:, c], biases[c] = model.coef_[0], model.intercept_[0]
        iterations = sum(int(model.n_iter_.sum()) for model in models.values())
        yield Fit(strength, weights, biases, iterations, not_converged)


def _require_finite(features: np.ndarray) -> None:
    if not np.isfinite(features).all():
        raise UsageError("Some features are not finite numbers: the encoder has diverged.")


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


def _model(solver: Solver) -> sklearn.linear_model.LogisticRegression:
    return sklearn.linear_model.LogisticRegression(
        max_iter=solver.max_iterations, tol=solver.tolerance, warm_start=True
    )


def _fit(
    model: sklearn.linear_model.LogisticRegression,
    features: np.ndarray,
    targets: np.ndarray,
    strength: float,
) -> int:
    """Goes on from the weights that the model has; 1 if it did not converge, else 0."""
    is_small = features.size * len(np.unique(targets)) < THREADED_SIZE
    threads = _blas().limit(limits=1 if is_small else None)
    with threads, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.set_params(C=1 / strength).fit(features, targets)
    failed = sklearn.exceptions.ConvergenceWarning
    return int(any(issubclass(warning.category, failed) for warning in caught))
