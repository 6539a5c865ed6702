"""What numbers each key of a config may have: one table for all configs."""

import fnmatch
import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

from byol_jax import config as config_lib

UsageError = config_lib.UsageError

MOST = 2**31 - 1  # steps and seeds are 32-bit integers


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``.

    Attributes:
      low: the least.
      high: the greatest.
      is_above: ``low`` itself is not among them.
      is_below: ``high`` itself is not among them.
    """

    low: float
    high: float
    is_above: bool = False
    is_below: bool = False

    def __contains__(self, value: float) -> bool:
        is_high_enough = value > self.low if self.is_above else value >= self.low
        is_low_enough = value < self.high if self.is_below else value <= self.high
        return bool(is_high_enough and is_low_enough)

    def bound(self, value: float) -> str:
        """The end that a number is beyond, in words."""
        if (self.low, self.high) == (0, 1) and self.is_above == self.is_below:
            return "between 0 and 1"
        if value > self.high or (self.is_below and value == self.high):
            return f"{'below' if self.is_below else 'at most'} {self.high:.10g}"
        return f"{'above' if self.is_above else 'at least'} {self.low:.10g}"


COUNT = Range(0, MOST, is_above=True)
COUNT_OR_ZERO = Range(0, MOST)
POSITIVE = Range(0, math.inf, is_above=True)
NOT_NEGATIVE = Range(0, math.inf)
FRACTION = Range(0, 1)
SOME = Range(0, 1, is_above=True)  # of something
PART = Range(0, 1, is_above=True, is_below=True)
DECAY = Range(0, 1, is_below=True)
ANY = Range(-math.inf, math.inf)

# By the whole key, or by its end behind a star; the first that fits counts.
RANGES: Mapping[str, Range] = {
    "seed": COUNT_OR_ZERO,
    "budget_minutes": Range(0, 1e6, is_above=True),
    "*labels.share": SOME,
    "*validation_share": PART,
    "*_share": FRACTION,
    "*_probability": FRACTION,
    "*_area": SOME,
    "*solarize_threshold": FRACTION,
    "*blur_sigma_*": POSITIVE,
    "*.brightness": NOT_NEGATIVE,
    "*.contrast": NOT_NEGATIVE,
    "*.saturation": NOT_NEGATIVE,
    "*.hue": NOT_NEGATIVE,
    "data.threads": Range(0, 4096),
    "data.workers": Range(0, 1024),
    "*image_size": Range(0, 8192, is_above=True),
    "crop_size": Range(1, 8192, is_above=True),
    "output_stride": Range(1, 64),
    "*_scale": Range(0, 16, is_above=True),
    "input_height": Range(8, 8192),
    "input_width": Range(8, 8192),
    "up_channels": Range(1, 2**16),
    "head.channels": Range(1, 2**16),
    "image_sizes": Range(32, 8192),
    "longest_side": Range(32, 65_500),
    "anchor_sizes": Range(1, 8192),
    "*regions": Range(1, 100_000),
    "head.dilation": Range(1, 256),
    "*shorter_side": Range(8, 65_500),  # the longest side of a JPEG
    "mean": FRACTION,
    "std": SOME,
    "data.mean": FRACTION,
    "data.std": SOME,
    "*width_multiplier": Range(1, 64),
    "*_hidden_size": Range(1, 2**20),
    "logit_*": NOT_NEGATIVE,
    "*_hidden_layers": Range(0, 64),
    "*norm_groups": Range(1, 2**20),
    "*_output_size": Range(1, 2**20),
    "*bn_decay_rate": DECAY,
    "*bn_eps": POSITIVE,
    "*base_target_ema": FRACTION,
    "objective.raft.escape_weight": ANY,  # below 0 it is the paper's BYOL'
    "objective.*.*_weight": NOT_NEGATIVE,
    "objective.*.weight": NOT_NEGATIVE,
    "objective.*.scale": POSITIVE,
    "objective.swav.queue_size": COUNT_OR_ZERO,
    "objective.*.queue_size": COUNT,
    "objective.*.queue_start_steps": COUNT_OR_ZERO,
    "objective.*.features": COUNT,
    "objective.*_momentum": FRACTION,
    "objective.*.epsilon": POSITIVE,
    "objective.*.iterations": COUNT,
    "objective.*.prototypes": COUNT,
    "objective.*.frozen_steps": COUNT_OR_ZERO,
    "*learning_rate": POSITIVE,
    "*learning_rates": POSITIVE,
    "*weight_decay": NOT_NEGATIVE,
    "*weight_decays": NOT_NEGATIVE,
    "*momentum": DECAY,
    "*trust_coefficient": POSITIVE,
    "*.b1": DECAY,
    "*.b2": DECAY,
    "*warmup_steps": COUNT_OR_ZERO,
    "*warmup_epochs": Range(0, 1e6),
    "*epochs": Range(0, 1e6, is_above=True),
    "collapse.min_*": NOT_NEGATIVE,
    "collapse.max_*": ANY,
    "keep_every_steps": COUNT_OR_ZERO,
    "gallery.max_images": COUNT_OR_ZERO,
    "*temperature": POSITIVE,
    "*lambdas.count": Range(1, 10_000),
    "*lambdas.*": POSITIVE,
    "*tolerance": POSITIVE,
    "similarity": FRACTION,
    "subset": COUNT_OR_ZERO,
    "clusters": COUNT_OR_ZERO,
    "bench.seconds": Range(0, 3600, is_above=True),
    "estimate.seconds": Range(0, 3600, is_above=True),
    "seeds": Range(1, 10_000),
    "jobs": Range(0, 4096),
    "cores": Range(0, 4096),
    "bootstrap_resamples": Range(1, 1_000_000),
    "quality": Range(1, 100),
    "preview.num_images": Range(1, 10_000),
    "keep_checkpoints": COUNT,
    "accumulate": COUNT,
    "*patience": COUNT,
    "*max_images": COUNT,
    "max_iterations": COUNT,
    "*batch_size": Range(0, 2**20, is_above=True),
    "*shard_images": COUNT,
    "*bn_group_size": COUNT,
    "*_steps": COUNT,
    "*.k": COUNT,
    "k": COUNT,
    "top": COUNT,
}
WHOLE = ("*.k", "up_channels")  # of those that hold several
THREE = ("mean", "std", "data.mean", "data.std")  # red, green, blue


def find(key: str) -> Range | None:
    """The range of a dotted key; None if it holds no number."""
    return next((found for name, found in RANGES.items() if fnmatch.fnmatchcase(key, name)), None)


def check(config: Any) -> None:
    """Checks every number of a config, also those that its task does not need.

    Raises:
      UsageError: naming the key and what it may be.
    """
    for key, value in config_lib.flatten(config.to_dict()).items():
        check_value(key, value)


def check_value(key: str, value: Any) -> None:
    """Checks one value; of texts, that none is the address of a bucket.

    Raises:
      UsageError: naming the key and what it may be.
    """
    if isinstance(value, str):
        config_lib.require_local(value, flag=f"--config.{key}")
    allowed = find(key)
    if allowed is None or value is None or isinstance(value, str | bool):
        return
    values = value if isinstance(value, tuple | list) else [value]
    if not values or not all(_is_number(v) for v in values):
        raise UsageError(f'--config.{key} takes numbers, such as --config.{key}="(1, 2)".')
    if _is_one_of(key, THREE) and len(values) != 3:
        raise UsageError(f"--config.{key} takes three numbers, red, green and blue, not {value}.")
    for number in values:
        if not math.isfinite(number):
            raise UsageError(f"--config.{key} must be a number, not {number}.")
        if number not in allowed:
            raise UsageError(f"--config.{key} must be {allowed.bound(number)}, not {number:.10g}.")
        if number != int(number) and _is_one_of(key, WHOLE):
            raise UsageError(f"--config.{key} takes whole numbers, not {number:.10g}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_one_of(key: str, names: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(key, name) for name in names)
