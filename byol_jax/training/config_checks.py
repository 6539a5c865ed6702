"""What can be wrong with a pretraining config before anything is built from it."""

from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.augment import random_resized_crop
from byol_jax.data import datasets
from byol_jax.training import collapse_monitor, config_ranges, optimizers

UsageError = config_lib.UsageError

STATISTICS = ("micro", "exact")  # of batch norm when gradients are accumulated
DTYPES = {"float32": None, "bfloat16": "bfloat16"}  # None: that of the parameters


def check(config: Any) -> None:
    """Checks what needs no data.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    config_ranges.check(config)
    section = config.augment.crop
    if section.min_area > section.max_area:
        raise UsageError(
            f"augment.crop: min_area {section.min_area} is above max_area {section.max_area}: "
            "lower --config.augment.crop.min_area or raise --config.augment.crop.max_area."
        )
    for name in ("view1", "view2"):
        view = config.augment[name]
        if view.blur_sigma_min > view.blur_sigma_max:
            raise UsageError(
                f"--config.augment.{name}.blur_sigma_min={view.blur_sigma_min} is above "
                f"--config.augment.{name}.blur_sigma_max={view.blur_sigma_max}."
            )
    config_lib.lookup(random_resized_crop.KERNELS, section.method, key="augment.crop.method")
    config_lib.lookup(optimizers.OPTIMIZERS, config.optimizer.name, key="optimizer.name")
    config_lib.lookup(collapse_monitor.ACTIONS, config.collapse.action, key="collapse.action")
    if config.model.dtype is not None:  # else `precision` decides
        config_lib.lookup(DTYPES, config.model.dtype, key="model.dtype")
    _check_division(config, jax.device_count())


def _check_division(config: Any, devices: int) -> None:
    """Batches divide by devices and micro-batches, devices by the groups of batch norm."""
    statistics = config.accumulate_statistics
    config_lib.lookup(dict.fromkeys(STATISTICS), statistics, key="accumulate_statistics")
    parts = devices * config.accumulate
    if config.batch_size % parts:
        below = config.batch_size - config.batch_size % parts
        micro = f" x {config.accumulate} micro-batches" if config.accumulate > 1 else ""
        raise UsageError(
            f"--config.batch_size={config.batch_size} does not divide by {devices} devices{micro}: "
            f"take {below or parts} or {below + parts}."
        )
    size = config.model.bn_group_size
    if size is not None and devices % size:
        valid = [str(n) for n in range(1, devices + 1) if devices % n == 0]
        raise UsageError(
            f"--config.model.bn_group_size={size} does not divide the {devices} devices: take one "
            f"of {', '.join(valid)}."
        )


def check_sizes(config: Any, train: datasets.Dataset) -> None:
    """Checks batch and crops against the data.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    if train.num_images < config.batch_size:
        raise UsageError(
            f"--config.batch_size={config.batch_size} is larger than the data set "
            f"({train.num_images} images): take {2 ** (train.num_images.bit_length() - 1)} or less."
        )
    if isinstance(train, datasets.RecordDataset):  # images have sizes of their own
        if config.data.image_size < 8:
            size = config.data.image_size
            raise UsageError(f"--config.data.image_size must be at least 8, not {size}.")
        return
    height, width = train.images.shape[1:3]
    smallest = int(np.sqrt(config.augment.crop.min_area) * min(height, width))
    if smallest < 4 or config.data.image_size < 8:
        raise UsageError(
            f"Images of {height} x {width} px are too small for this crop: windows of "
            f"augment.crop.min_area={config.augment.crop.min_area} would be about {smallest} px "
            f"wide (4 at least), resized to data.image_size={config.data.image_size} (8 at least)."
        )
