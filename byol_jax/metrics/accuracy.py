"""Per-example scores, their interval, and what features are worth without labels."""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from byol_jax.metrics import bootstrap

Array = TypeVar("Array", np.ndarray, jax.Array)

_NEVER = 1 << 30  # a rank beyond every k


def ranks(logits: Array, labels: Array) -> Array:
    """How many classes come before the right one: top-k is where it is below k.

    Among equal logits the highest class index ranks first, as in the reference: a constant
    network scores the fraction of the last class, never a perfect score. A logit that is not a
    number comes before all others, so that a network that diverged is never right.

    Args:
      logits: [N, C], of NumPy or of JAX, also within a transformation.
      labels: [N] integers in [0, C), or -1, which is never found.

    Returns:
      [N] integers.
    """
    right = logits[np.arange(len(labels)), labels][:, None]
    is_after = labels[:, None] < np.arange(logits.shape[-1])
    # Not "logits > right": no comparison with a number that is none is true.
    is_before = ~(logits < right) & ((logits != right) | is_after)
    return is_before.sum(axis=-1) + _NEVER * (labels < 0)


def top(ranks: Array) -> dict[str, Array]:
    """Whether the right class is the first one, and one of the first five, from ranks [N]."""
    return {f"top{k}": ranks < k for k in (1, 5)}


def correct(logits: Array, labels: Array) -> dict[str, Array]:
    """Whether each image is right, from `ranks`: by name, "top1" and "top5", [N]."""
    return top(ranks(logits, labels))


def means(correct: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Accuracies by name, from whether each image is right."""
    return {name: float(np.mean(right)) for name, right in correct.items()}


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
      multi_labels: [M, C]; 1 has the class, 0 has not, -1 is not counted, as images of which all
        objects of the class are difficult.

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
    rankings = _rankings(scores, multi_labels)
    draws = bootstrap.draws(len(scores), seed=seed, resamples=resamples)
    low, high = np.nanpercentile([_mean_precision(rankings, c) for c in draws], bootstrap.LIMITS)
    return float(low), float(high)
