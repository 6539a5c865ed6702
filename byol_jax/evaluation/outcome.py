"""What became of the evaluated images: which class was taken for which, and the surest mistakes.

Shapes: M evaluated images, C classes.
"""

from typing import Any

import numpy as np

from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import protocol
from byol_jax.metrics import calibration

MOST_CLASSES = 200  # of a confusion matrix that is kept
SHOWN = 24  # mistakes that are kept


def describe(
    setup: protocol.EvalSetup,
    found: features_lib.Features,
    logits: np.ndarray,
    train_labels: np.ndarray,
) -> dict[str, Any]:
    """What ``result.json`` says of the evaluated images.

    Args:
      setup: what was measured.
      found: the evaluated images, all with labels.
      logits: [M, C] of them, calibrated.
      train_labels: of the images that were learned from.

    Returns:
      ``confusion``, C lists of C counts (rows are the true classes; not above `MOST_CLASSES`),
      ``most_frequent_top1``, what naming the most frequent class of the training images would
      give, and ``surely_wrong``, the mistakes of the highest probability.
    """
    labels, count = found.labels, logits.shape[1]
    predicted = count - 1 - logits[:, ::-1].argmax(axis=1)  # of equal ones the last, as in top-1
    common = int(np.bincount(train_labels, minlength=count).argmax())
    told = {
        "most_frequent_top1": float(np.mean(labels == common)),
        "surely_wrong": _surely_wrong(setup, found, logits, predicted),
    }
    if count > MOST_CLASSES:
        return told
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (labels, predicted), 1)
    return told | {"confusion": confusion.tolist()}


def _surely_wrong(
    setup: protocol.EvalSetup,
    found: features_lib.Features,
    logits: np.ndarray,
    predicted: np.ndarray,
) -> list[dict[str, Any]]:
    """Mistakes from the most probable on; nothing of a network that gives no numbers."""
    wrong = np.flatnonzero((predicted != found.labels) & ~np.isnan(logits).any(axis=1))
    probability = calibration.softmax(logits[wrong]).max(axis=1)
    order = np.argsort(-probability, kind="stable")[:SHOWN]
    chosen = wrong[order]
    names = features_lib.names(setup.source, setup.test, found.indices[chosen])
    return [
        {
            "index": int(found.indices[row]),
            "file": name,
            "label": int(found.labels[row]),
            "predicted": int(predicted[row]),
            "probability": round(float(value), 6),
        }
        for row, name, value in zip(chosen, names, probability[order], strict=True)
    ]
