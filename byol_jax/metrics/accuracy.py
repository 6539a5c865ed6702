"""Per-example scores, their interval, and what features are worth without labels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def topk_correct(logits: jax.Array, labels: jax.Array, *, k: int) -> jax.Array:
    """1.0 where the label is among the k largest logits, else 0.0.

    Among equal logits the highest class index ranks first, as in the reference: a constant
    network scores the fraction of the last class, never a perfect score.

    Args:
      logits: [b, C]; a k above C counts every label as found.
      labels: [b] integers in [0, C), or -1, which is never found.

    Returns:
      [b] float32.
    """
    label_logit = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    classes = jnp.arange(logits.shape[-1])
    ahead = (logits > label_logit) | ((logits == label_logit) & (classes > labels[:, None]))
    return ((jnp.sum(ahead, axis=-1) < k) & (labels >= 0)).astype(jnp.float32)


def bootstrap_interval(
    scores: np.ndarray, *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """95 % interval of the mean of scores [M], each 0 or 1: percentiles of resampled means.

    To draw M of them with replacement is to draw how many are 1, from a binomial distribution.
    """
    count = len(scores)
    rng = np.random.default_rng(seed)
    means = rng.binomial(count, np.mean(scores, dtype=np.float64), resamples) / count
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def mean_per_class(correct: np.ndarray, labels: np.ndarray) -> float:
    """Mean accuracy over the classes that occur; correct [M], labels [M]."""
    counts = np.bincount(labels)
    fractions = np.bincount(labels, correct)[counts > 0] / counts[counts > 0]
    return float(fractions.mean())


def bootstrap_mean_per_class(
    correct: np.ndarray, labels: np.ndarray, *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """95 % interval of `mean_per_class`, images drawn anew within each class."""
    counts = np.bincount(labels)
    right, counts = np.bincount(labels, correct)[counts > 0], counts[counts > 0]
    rng = np.random.default_rng(seed)
    means = (rng.binomial(counts, right / counts, (resamples, len(counts))) / counts).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def map11(scores: np.ndarray, multi_labels: np.ndarray) -> float:
    """Mean over classes of VOC2007's average precision (Everingham et al. 2010, section 4.2).

    That is the mean over recalls 0, 0.1, ..., 1 of the best precision at any threshold that finds
    at least so many of the images that have the class; 0 where none does. Equal scores are told
    apart by no threshold, so that their order does not matter. Classes that no image has are left
    out.

    Args:
      scores: [M, C], the higher the more likely.
      tags: [M, C]; 1 has the class, 0 has not, -1 is not counted, as images of which all objects
        of the class are difficult.

    Returns:
      A fraction; NaN if no image has any class.
    """
    return _mean_precision(_rankings(scores, multi_labels), np.ones(len(scores), np.int64))


class _Ranking(NamedTuple):
    """Images by the score of one class.

    Attributes:
      order: of the images that are counted, best first.
      is_positive: whether each of them has the class.
      last: where runs of equal scores end.
    """

    order: np.ndarray
    is_positive: np.ndarray
    last: np.ndarray


def _rankings(scores: np.ndarray, multi_labels: np.ndarray) -> list[_Ranking]:
    """Of the classes that an image has."""
    found = []
    for c in np.flatnonzero((multi_labels == 1).any(axis=0)):
        order = np.argsort(-scores[:, c], kind="stable")
        order = order[multi_labels[order, c] >= 0]
        last = np.flatnonzero(np.append(np.diff(scores[order, c]) != 0, True))
        found.append(_Ranking(order, multi_labels[order, c] == 1, last))
    return found


def _mean_precision(rankings: list[_Ranking], counts: np.ndarray) -> float:
    """`map11` if each image counts so often [M]."""
    found = [_average_precision(ranking, counts[ranking.order]) for ranking in rankings]
    found = [precision for precision in found if precision is not None]
    return float(np.mean(found)) if found else float("nan")


def _average_precision(ranking: _Ranking, counts: np.ndarray) -> float | None:
    """Of one class; None if no image that counts has it."""
    found = np.cumsum(counts * ranking.is_positive)[ranking.last]
    if not found[-1]:
        return None
    retrieved = np.cumsum(counts)[ranking.last]
    precision = found / np.maximum(retrieved, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or above
    # Recall r / 10 is reached with r / 10 of all positives: whole numbers leave no rounding.
    first = np.searchsorted(10 * found, np.arange(11) * found[-1])
    return float(best[first].mean())


def bootstrap_map11(
    scores: np.ndarray, multi_labels: np.ndarray, *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """95 % interval of `map11`, images drawn anew with all that they show."""
    rng = np.random.default_rng(seed)
    rankings, size = _rankings(scores, multi_labels), len(scores)
    draws = (np.bincount(rng.integers(size, size=size), minlength=size) for _ in range(resamples))
    low, high = np.nanpercentile([_mean_precision(rankings, c) for c in draws], [2.5, 97.5])
    return float(low), float(high)
