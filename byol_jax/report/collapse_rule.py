"""Tells from a run's metrics whether it has collapsed, by the rule of the guard that watches runs.

The limits are those of the run's config; a test compares both judges on many values.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from byol_jax.report import metric_curves


class Limits(NamedTuple):
    """Of a sound run; the values are those of runs whose config does not say them.

    Attributes:
      min_feature_std: of projections, least.
      min_effective_rank: of projections, least.
      max_target_cosine: of predictions and targets, largest.
      patience: so many logs in a row beyond a limit are a collapse.
    """

    min_feature_std: float = 0.1
    min_effective_rank: float = 2.0
    max_target_cosine: float = 0.995
    patience: int = 3


def limits(config: Mapping[str, Any]) -> Limits:
    """The limits of a run's config."""
    section = config.get("collapse")
    section = section if isinstance(section, dict) else {}
    given = {name: metric_curves.number(section.get(name)) for name in Limits._fields}
    return Limits()._replace(**{name: value for name, value in given.items() if value is not None})


class Judge(metric_curves.Watcher):
    """Counts for how many logs in a row a run has looked collapsed.

    Attributes:
      count: of logs in a row, up to the last one.
      beyond: what was beyond its limit at the last of them, in words.
      collapses: steps at which collapses were noticed.
    """

    def __init__(self, bounds: Limits):
        self.bounds = bounds
        self.count = 0
        self.beyond: list[str] = []
        self.collapses: list[int] = []

    @property
    def is_collapsed(self) -> bool:
        """Whether the run is so now."""
        return self.count >= self.bounds.patience

    def see(self, step: int, row: Mapping[str, Any]) -> None:
        """Takes a log in; lines without measures of projections are none."""
        if "train/feature_std" not in row:
            return
        self.beyond = _beyond(row, self.bounds)
        self.count = self.count + 1 if self.beyond else 0
        if self.count == self.bounds.patience:
            self.collapses = [*self.collapses[-9:], step]


def _beyond(row: Mapping[str, Any], bounds: Limits) -> list[str]:
    std, rank, cosine = (
        metric_curves.number(row.get(f"train/{name}"))
        for name in ("feature_std", "effective_rank", "target_cosine")
    )
    found = []
    if std is not None and std < bounds.min_feature_std:
        found.append(f"feature std {std:.3g} is below {bounds.min_feature_std:g}")
    if rank is not None and rank < bounds.min_effective_rank:
        found.append(f"effective rank {rank:.3g} is below {bounds.min_effective_rank:g}")
    if cosine is not None and cosine > bounds.max_target_cosine:
        found.append(
            f"the cosine of prediction and target {cosine:.4g} is above "
            f"{bounds.max_target_cosine:g}"
        )
    return found
