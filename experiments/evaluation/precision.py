"""What float32 and the former stopping rule cost: python experiments/evaluation/precision.py RUN.

Fits the features of a run's own images as configs/transfer.py does (float64, Newton's method, a
slope relative to the penalty's), the same features in float32, and by scikit-learn's L-BFGS with
its usual tolerance; prints the fraction of test images that are classified otherwise than at the
minimum, and the largest difference of the weights.
"""

import sys
import warnings

import numpy as np
import sklearn.linear_model
import threadpoolctl

from byol_jax.checkpoints import encoders
from byol_jax.data import datasets
from byol_jax.evaluation import logistic_regression

LAMBDAS = [1.0, 1e-2, 1e-4]


def peer(features, labels, method, tolerance):
    """scikit-learn called directly, each lambda from where the one before has ended."""
    options = {"solver": method, "tol": tolerance, "max_iter": 1000, "warm_start": True}
    model = sklearn.linear_model.LogisticRegression(**options)
    for strength in LAMBDAS:
        model.set_params(C=1 / strength).fit(features, labels)
        yield model.coef_.T.copy(), model.intercept_.copy(), int(model.n_iter_.max())


def main(run: str) -> None:
    """Prints a table."""
    encoder = encoders.load_encoder(run)
    train, test = (datasets.load("patterns", split) for split in ("train", "test"))

    def encode(images):
        parts = [encoder.encode(images[i : i + 250]) for i in range(0, len(images), 250)]
        return np.concatenate(parts)

    features, unseen = encode(train.images), encode(test.images)
    solver = logistic_regression.Solver(1000, 1e-6)
    exact = logistic_regression.fit_labels(features, train.labels, LAMBDAS, solver, num_classes=10)
    ways = {
        "float64, Newton, 1e-3 of the penalty": (
            (fit.weights, fit.biases, fit.iterations)
            for fit in logistic_regression.fit_labels(
                features,
                train.labels,
                LAMBDAS,
                logistic_regression.Solver(1000, 1e-3),
                num_classes=10,
            )
        ),
        "float32, Newton, tol 1e-9": peer(features, train.labels, "newton-cholesky", 1e-9),
        "float32, L-BFGS, tol 1e-4": peer(features, train.labels, "lbfgs", 1e-4),
        "float64, L-BFGS, tol 1e-4": peer(features.astype(float), train.labels, "lbfgs", 1e-4),
    }
    exact = list(exact)
    for name, fits in ways.items():
        for fit, (weights, biases, iterations) in zip(exact, fits, strict=True):
            other = (unseen @ weights + biases).argmax(axis=1)
            moved = (other != fit.scores(unseen).argmax(axis=1)).mean()
            far = np.abs(weights - fit.weights).max() / np.abs(fit.weights).max()
            right = (other == test.labels).mean()
            print(
                f"{name:<38} lambda {fit.strength:<8g} {iterations:>5} iterations  otherwise "
                f"{moved:.2%}  weights {far:.1e}  top-1 {right:.2%}",
                flush=True,
            )


if __name__ == "__main__":
    with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(sys.argv[1])
