"""Probabilities that mean what they say: one temperature for all logits (Guo et al. 2017).

Shapes: N images, C classes.
"""

import numpy as np

LOWEST, HIGHEST = 1e-3, 1e3  # temperatures that are looked at
_HALVINGS = 30


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which the softmax of logits / temperature fits labels best.

    It minimizes the cross-entropy, which is convex in 1 / temperature. Targets are smoothed as
    Platt (1999) does: of N images each is taken to be right with (N + 1) / (N + 2), since a few
    images that are all right do not show that none can be wrong.

    Args:
      logits: [N, C] of images that the classifier has not learned from.
      labels: [N] in [0, C). Images of a class whose logit is minus infinity do not count.

    Returns:
      1.0 if no image counts.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    counted = np.isfinite(logits[np.arange(len(labels)), labels]) & ~np.isnan(logits).any(axis=1)
    logits, labels = logits[counted], labels[counted]
    if not len(labels):
        return 1.0
    possible = np.isfinite(logits)
    values = np.where(possible, logits, 0.0)
    targets = _smoothed(possible, labels)

    def slope(sharpness: float) -> float:
        """Of the mean cross-entropy, by 1 / temperature."""
        return float(np.mean(np.sum((softmax(sharpness * logits) - targets) * values, axis=1)))

    low, high = np.log(1 / HIGHEST), np.log(1 / LOWEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def _smoothed(possible: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Targets [N, C]; what the right class lacks is shared by the other possible ones."""
    count = len(labels)
    others = np.maximum(possible.sum(axis=1, keepdims=True) - 1, 1)
    targets = possible / others / (count + 2)
    targets[np.arange(count), labels] = (count + 1) / (count + 2)
    return targets / targets.sum(axis=1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [N, C]; those of logits at minus infinity are 0."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of labels [N] under the softmax of logits [N, C]."""
    right = softmax(np.asarray(logits, np.float64))[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.maximum(right, np.finfo(np.float64).tiny))))
