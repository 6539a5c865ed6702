"""The settings of evaluations: a config, checked, resolved and frozen.

Fields have the names of the config's keys. Each task adds the keys of its own to `EvalSettings`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets, eval_loader
from byol_jax.evaluation import baselines

UsageError = config_lib.UsageError
Settings = TypeVar("Settings", bound="EvalSettings")


@dataclasses.dataclass(frozen=True)
class EvalData:
    """Which images; names that are empty stand for what the encoder's run has."""

    name: str
    dir: str
    train_split: str
    eval_split: str
    decode: str
    max_bad_share: float
    validation_split: str = ""
    validation_share: float = 0.1
    labels: str = ""

    def bad_limit(self, *splits: datasets.Dataset) -> eval_loader.BadLimit:
        """How many images of these splits may be bad."""
        return eval_loader.BadLimit(splits, self.max_bad_share)


@dataclasses.dataclass(frozen=True)
class SplitData:
    """Which images, of one split; empty names as in `EvalData`."""

    name: str
    dir: str
    split: str
    decode: str
    max_bad_share: float


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    """What all evaluations of an encoder have in common.

    Attributes:
      weights: a key of `baselines.WEIGHTS`.
      seed: the first of ``seeds``.
      stored: the config as it was, which results keep.
    """

    task: str
    checkpoint: str
    weights: str
    seed: int
    seeds: int
    bootstrap_resamples: int
    data: EvalData
    stored: Mapping[str, Any]


def resolve(
    kind: type[Settings],
    config: Any,
    *,
    weights: Mapping[str, Any] = baselines.WEIGHTS,
    positive: tuple[str, ...] = (),
    **resolved: Any,
) -> Settings:
    """The settings of a task, once what all evaluations have in common is checked.

    Args:
      kind: of settings.
      config: of the task.
      weights: networks that the task can evaluate, by name.
      positive: keys of the task that have to be above 0.
      resolved: fields that are not the values of their keys.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    config_lib.require_positive(config, *positive, "seeds", "bootstrap_resamples")
    config_lib.lookup(weights, config.weights, key="weights")
    if "validation_share" in config.data:
        require_share(config, "data.validation_share")
    require_bad_share(config)
    return config_lib.freeze(kind, config, stored=config.to_dict(), **resolved)


def require_share(config: Any, key: str) -> None:
    """Raises unless the value of a dotted key is between 0 and 1, exclusive."""
    value = config_lib.get(config, key)
    if not 0 < value < 1:
        raise UsageError(f"--config.{key} must be between 0 and 1, not {value}.")


def require_bad_share(config: Any) -> None:
    """Raises unless ``data.max_bad_share`` is between 0 and 1."""
    fraction = config.data.max_bad_share
    if not 0 <= fraction <= 1:
        raise UsageError(f"--config.data.max_bad_share must be between 0 and 1, not {fraction}.")


def numbers(config: Any, key: str, example: str, *, zero: bool = False) -> tuple[float, ...]:
    """The values of a dotted key that holds one number or several, none of them negative.

    Args:
      config: where to look.
      key: such as ``knn.k``.
      example: of a good value, for the error.
      zero: whether 0 is allowed.

    Raises:
      UsageError: no number, or one out of range.
    """
    values = list(np.atleast_1d(config_lib.get(config, key)))
    if not values or any(isinstance(v, str) or v < 0 or (v == 0 and not zero) for v in values):
        least = "of 0 or more" if zero else "above 0"
        raise UsageError(f'Give one or more numbers {least}, such as --config.{key}="{example}".')
    return tuple(v.item() for v in values)
