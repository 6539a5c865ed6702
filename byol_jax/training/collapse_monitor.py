"""Watches a run for collapse: all images on one point, on one line, or one whatever the view.

The loss does not tell: it is as small after a collapse as after learning well.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from byol_jax.distributed import pmap
from byol_jax.objectives import table
from byol_jax.training import settings as settings_lib

ACTIONS = {"warn": False, "stop": True}  # whether the run ends


class CollapseError(RuntimeError):
    """The run has collapsed, and was to stop then."""


class Measures(NamedTuple):
    """What is watched, of the projections of a batch or as a bound on them.

    Attributes:
      feature_std: spread, 1 on the whole sphere and 0 on a point (`representation.feature_std`).
      effective_rank: number of directions in use, at least 1 (`representation.effective_rank`).
      target_cosine: mean cosine between what the online network predicts and what the target makes
        of the other view. Augmentations take something away that cannot be predicted, so that a
        cosine of nearly 1 means that there is nothing to predict.
    """

    feature_std: float
    effective_rank: float
    target_cosine: float


class Guard:
    """Remembers for how many measurements in a row a run has looked collapsed.

    Args:
      limits: least spread, least rank, largest cosine of a sound run.
      patience: so many measurements in a row have to be beyond a limit.
      stops: whether to end the run, else to warn, once for every collapse.
      advice: what to change, one line each.
    """

    def __init__(self, limits: Measures, *, patience: int, stops: bool, advice: list[str]):
        self._limits, self._patience, self._stops = limits, patience, stops
        self._advice = advice
        self._count = 0

    def check(self, step: int, measures: Measures) -> str | None:
        """Takes a measurement in; gives a warning if the time for one has come.

        Raises:
          CollapseError: instead of the warning, if the run is to stop.
        """
        beyond = _beyond(measures, self._limits)
        self._count = self._count + 1 if beyond else 0
        if self._count < self._patience or (self._count > self._patience and not self._stops):
            return None
        text = f"COLLAPSED at step {step}: {', '.join(beyond)}"
        if self._patience > 1:
            text += f", {self._count} times in a row"
        text += ". Nothing is learned from here on. What to change:"
        text = "\n  - ".join([text, *self._advice])
        if self._stops:
            raise CollapseError(text)
        return text


def find(rows: Iterable[Mapping[str, Any]], collapse: settings_lib.Collapse) -> list[str]:
    """What is beyond its limit, in words, if a run is collapsed at the last of its logs.

    Args:
      rows: of its metrics, in the order of steps.
      collapse: what counts as that.
    """
    limits, found, count = make_limits(collapse), [], 0
    for row in rows:
        if "train/feature_std" in row:
            values = (row.get(f"train/{name}") for name in Measures._fields)
            found = _beyond(Measures(*(math.nan if v is None else v for v in values)), limits)
            count = count + 1 if found else 0
    return found if count >= collapse.patience else []


def make_limits(collapse: settings_lib.Collapse) -> Measures:
    """The limits of a run."""
    return Measures(
        collapse.min_feature_std, collapse.min_effective_rank, collapse.max_target_cosine
    )


def _beyond(measures: Measures, limits: Measures) -> list[str]:
    """The measures that are beyond their limits, in words; NaN, which the loop notices, is not."""
    std, rank, cosine = measures
    found = []
    if std < limits.feature_std:
        found.append(f"all images have nearly the same projection (feature std {std:.3f})")
    if rank < limits.effective_rank:
        found.append(f"projections lie on a line or a point (effective rank {rank:.2f})")
    if cosine > limits.target_cosine:
        found.append(f"online and target network agree whatever the view (cosine {cosine:.4f})")
    return found


def make_guard(settings: settings_lib.PretrainSettings) -> Guard:
    """The guard of a run, with advice that fits it."""
    section = settings.collapse
    return Guard(
        make_limits(section),
        patience=section.patience,
        stops=ACTIONS[section.action],
        advice=_advice(settings),
    )


def _advice(settings: settings_lib.PretrainSettings) -> list[str]:
    """The likeliest causes first."""
    advice, objective, optimizer = [], settings.objective, settings.optimizer
    is_off = objective.name == "byol" and settings.model.predictor == "none"
    if objective.name == "byol_no_predictor" or objective.predictor is False or is_off:
        advice.append(f"objective.name={objective.name} has no predictor: take byol")
    images = images_of_a_norm(
        settings.batch_size, settings.micro_batches, settings.model.bn_group_size
    )
    if images < 32:
        parts = (
            " less accumulate or accumulate_statistics=exact," if settings.accumulate > 1 else ""
        )
        advice.append(
            f"batch norm sees {images} images at a time: more batch_size,{parts} a larger "
            "model.bn_group_size"
        )
    section = f"optimizer.{optimizer.name}"
    tau = f"an objective.base_target_ema nearer to 1 (now {objective.base_target_ema:.4g})"
    return [
        *advice,
        f"a smaller {section}.base_learning_rate (now {optimizer.base_learning_rate:.4g})",
        f"a longer optimizer.warmup_steps (now {optimizer.warmup_steps})",
        *([tau] if table.keeps_target(objective) else []),
        f"less {section}.weight_decay (now {optimizer.weight_decay:.2g})",
    ]


def images_of_a_norm(batch_size: int, micro_batches: int, bn_group_size: int | None) -> int:
    """How many images batch norm takes statistics of."""
    groups = pmap.groups(bn_group_size)
    return batch_size // micro_batches // (len(groups) if groups else 1)
