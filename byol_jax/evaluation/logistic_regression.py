"""Logistic regression with an l2 penalty, by scikit-learn, for many strengths of it.

The penalty lambda minimizes

    sum over images of the cross-entropy + lambda / 2 * sum of the squared weights

so that scikit-learn's C is 1 / lambda; biases are free. With the mean over N images in place of the
sum, the same penalty would be called lambda / N.

The minimum is the same whatever finds it: Newton's method where its matrix of (F x C)^2 numbers is
small, else L-BFGS. Both work in float64: with a weak penalty on classes that can be told apart,
all slopes are below the rounding of float32 long before the minimum. For the same reason the slope
at which a fit ends is a fraction of the penalty's own, and is checked afterwards.

Shapes: N images, F features, C classes.
"""

import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import sklearn.linear_model
import threadpoolctl

from byol_jax import config as config_lib

UsageError = config_lib.UsageError

# Products of fewer multiplications are left to one thread: several wait for each other, where other
# programs are busy, too, up to forty times as long as the work takes.
THREADED_SIZE = 10**9
NEWTON_SIZE = 4096  # F x C up to which Newton's method is used: its matrix has 128 MiB then


class Solver(NamedTuple):
    """When a fit ends.

    Attributes:
      max_iterations: of each fit.
      tolerance: a fit has converged when no slope of the objective is above this fraction of lambda
        times the largest weight, which is the largest slope of the penalty.
    """

    max_iterations: int
    tolerance: float


class Fit(NamedTuple):
    """A classifier, and how it was found.

    Attributes:
      strength: lambda.
      weights: [F, C].
      biases: [C]; minus infinity for a class that no image had.
      method: of scikit-learn's, that found it.
      iterations: of it; the sum over classes where each has its own regression.
      not_converged: number of regressions that ended without having converged.
    """

    strength: float
    weights: np.ndarray
    biases: np.ndarray
    method: str
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
    start: Fit | None = None,
) -> Iterator[Fit]:
    """Multinomial regressions, each from where the one before has ended.

    Two classes are scikit-learn's binary regression, with one vector of weights.

    Args:
      features: [N, F].
      labels: [N] in [0, C).
      strengths: lambdas, best from strong to weak.
      solver: when to stop.
      num_classes: C.
      start: where the first regression starts; None: at zero.

    Raises:
      UsageError: features that are not finite; images of one class only.
    """
    _require_finite(features)
    present = np.unique(labels)
    if len(present) < 2:
        raise UsageError(f"The {len(labels):,} images to learn from are all of one class.")
    features = features.astype(np.float64)
    columns = present[1:] if len(present) == 2 else present
    model = _model(features.shape[1] * len(columns))
    if start is not None:
        _start(model, start, columns, present)
    for strength in strengths:
        iterations, has_converged = _fit(model, features, labels, strength, solver)
        weights = np.zeros((features.shape[1], num_classes))
        biases = np.full(num_classes, -np.inf)
        biases[present] = 0
        weights[:, columns], biases[columns] = model.coef_.T, model.intercept_
        yield Fit(strength, weights, biases, model.solver, iterations, int(not has_converged))


def fit_tags(
    features: np.ndarray,
    multi_labels: np.ndarray,
    strengths: Sequence[float],
    solver: Solver,
    *,
    start: Fit | None = None,
) -> Iterator[Fit]:
    """One binary regression a class, each from where the one before has ended.

    Args:
      features: [N, F].
      multi_labels: [N, C]; 1 has the class, 0 has not, -1 is not counted.
      strengths: lambdas, best from strong to weak.
      solver: when to stop.
      start: where the first regressions start; None: at zero.

    Raises:
      UsageError: features that are not finite; no class that some images have and some have not.
    """
    _require_finite(features)
    mixed = [c for c, column in enumerate(multi_labels.T) if {0, 1} <= set(column.tolist())]
    if not mixed:
        raise UsageError("No class to learn: each is in all images to learn from, or in none.")
    features = features.astype(np.float64)
    models = {c: _model(features.shape[1]) for c in mixed}
    if start is not None:
        for c, model in models.items():
            _start(model, start, np.array([c]), np.arange(2))
    for strength in strengths:
        weights = np.zeros((features.shape[1], multi_labels.shape[1]))
        biases = np.zeros(multi_labels.shape[1])
        iterations, not_converged = 0, 0
        for c, model in models.items():
            counted = multi_labels[:, c] >= 0
            more, has_converged = _fit(
                model, features[counted], multi_labels[counted, c], strength, solver
            )
            iterations, not_converged = iterations + more, not_converged + (not has_converged)
            weights[:, c], biases[c] = model.coef_[0], model.intercept_[0]
        yield Fit(strength, weights, biases, model.solver, iterations, not_converged)


def _require_finite(features: np.ndarray) -> None:
    if not np.isfinite(features).all():
        raise UsageError("Some features are not finite numbers: the encoder has diverged.")


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


def _model(size: int) -> sklearn.linear_model.LogisticRegression:
    """A regression with so many weights."""
    method = "newton-cholesky" if size <= NEWTON_SIZE else "lbfgs"
    return sklearn.linear_model.LogisticRegression(solver=method, warm_start=True)


def _start(
    model: sklearn.linear_model.LogisticRegression,
    start: Fit,
    columns: np.ndarray,
    classes: np.ndarray,
) -> None:
    """Lets a model go on from some columns of another fit; classes new to it start at zero."""
    biases = start.biases[columns]
    model.coef_ = np.ascontiguousarray(start.weights[:, columns].T)
    model.intercept_ = np.where(np.isfinite(biases), biases, 0.0)
    model.classes_ = classes


def _fit(
    model: sklearn.linear_model.LogisticRegression,
    features: np.ndarray,
    targets: np.ndarray,
    strength: float,
    solver: Solver,
) -> tuple[int, bool]:
    """Goes on from the weights that the model has; iterations, and whether it has converged.

    scikit-learn stops at a slope that has to be given in advance, and for other reasons, too: it is
    called again until the slope that counts is reached, or nothing is won any more.
    """
    if hasattr(model, "coef_"):
        scale = strength * np.abs(model.coef_).max()
    else:  # at zero: the penalty has no slope yet, but will balance that of the losses
        fractions = np.mean(targets[:, None] == np.unique(targets), axis=0)
        scale = np.abs(features).max() * len(features) * (fractions * (1 - fractions)).max()
    iterations, before = 0, np.inf
    while True:
        tolerance = max(solver.tolerance * scale / len(features), np.finfo(np.float64).tiny)
        model.set_params(C=1 / strength, tol=tolerance)
        model.set_params(max_iter=solver.max_iterations - iterations)
        _call(model, features, targets)
        iterations += int(model.n_iter_.sum())
        slope = _slope(model, features, targets, strength)
        scale = strength * np.abs(model.coef_).max()
        if slope <= solver.tolerance * scale:
            return iterations, True
        # A call that does not even halve the slope has ended for another reason, and would again.
        if iterations >= solver.max_iterations or slope > before / 2:
            return iterations, False
        before = slope


def _call(
    model: sklearn.linear_model.LogisticRegression, features: np.ndarray, targets: np.ndarray
) -> None:
    # Newton's matrix is put together from one product for each pair of classes.
    columns = len(np.unique(targets)) if model.solver == "lbfgs" else features.shape[1]
    is_small = features.size * columns < THREADED_SIZE
    threads = _blas().limit(limits=1 if is_small else None)
    with threads, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what has not converged: `_fit` looks for itself
        model.fit(features, targets)


def _slope(
    model: sklearn.linear_model.LogisticRegression,
    features: np.ndarray,
    targets: np.ndarray,
    strength: float,
) -> float:
    """Largest component of the gradient of the objective."""
    errors = model.predict_proba(features) - (targets[:, None] == model.classes_)
    errors = errors[:, -len(model.coef_) :]  # of two classes one has weights
    of_weights = features.T @ errors + strength * model.coef_.T
    return float(max(np.abs(of_weights).max(), np.abs(errors.sum(axis=0)).max()))
