"""What transfer measures, by name: accuracies and average precision, with their intervals.

Shapes: N images, C classes.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from byol_jax.metrics import accuracy


class Metric(NamedTuple):
    """What is measured.

    Attributes:
      is_multi_label: whether images may have several labels.
      value: of scores [N, C] and targets.
      interval: of the same, by a bootstrap; also takes its seed and resamples.
    """

    is_multi_label: bool
    value: Callable[[np.ndarray, np.ndarray], float]
    interval: Callable[..., tuple[float, float]]


def _correct(scores: np.ndarray, labels: np.ndarray, name: str) -> np.ndarray:
    return accuracy.correct(scores, labels)[name]


def _top(name: str) -> Metric:
    return Metric(
        False,
        lambda scores, labels: float(_correct(scores, labels, name).mean()),
        lambda scores, labels, **options: accuracy.bootstrap_interval(
            _correct(scores, labels, name), **options
        ),
    )


def _mean_per_class() -> Metric:
    return Metric(
        False,
        lambda scores, labels: accuracy.mean_per_class(_correct(scores, labels, "top1"), labels),
        lambda scores, labels, **options: accuracy.bootstrap_mean_per_class(
            _correct(scores, labels, "top1"), labels, **options
        ),
    )


METRICS: Mapping[str, Metric] = {
    "top1": _top("top1"),
    "top5": _top("top5"),
    "mean_per_class": _mean_per_class(),
    "map11": Metric(True, accuracy.map11, accuracy.bootstrap_map11),
}
