"""What can be wrong with a pretraining config before anything is built from it."""

import math
from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.augment import random_resized_crop
from byol_jax.data import datasets
from byol_jax.models import byol_network, norms, resnet
from byol_jax.objectives import directpred
from byol_jax.training import (
    collapse_monitor,
    config_ranges,
    method_settings,
    objective_setup,
    optimizers,
    train_step,
)
from byol_jax.training import settings as settings_lib

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
    objective = config.objective
    config_lib.lookup(
        optimizers.TARGET_EMA_SCHEDULES,
        objective.target_ema_schedule,
        key="objective.target_ema_schedule",
    )
    config_lib.lookup(train_step.TARGET_INITS, objective.target_init, key="objective.target_init")
    config_lib.lookup(optimizers.OPTIMIZERS, config.optimizer.name, key="optimizer.name")
    config_lib.lookup(collapse_monitor.ACTIONS, config.collapse.action, key="collapse.action")
    if config.model.dtype is not None:  # else `precision` decides
        config_lib.lookup(DTYPES, config.model.dtype, key="model.dtype")
    _check_model(config.model, method_settings.predictor_of(config))
    optimizers.parse_multipliers(config.optimizer.multipliers)
    _check_division(config, jax.device_count())
    bound = objective_setup.make_objective(
        settings_lib.objective_of(config), predictor_head=config.model.predictor
    )
    objective_setup.check(config, bound)
    _check_images_of_a_norm(config)


def _check_images_of_a_norm(config: Any) -> None:
    parts = 1 if config.accumulate_statistics == "exact" else config.accumulate
    size = config.model.bn_group_size
    images = collapse_monitor.images_of_a_norm(config.batch_size, parts, size)
    model = config.model
    has_batch_norm = "batch" in (model.norm, model.head_norm)
    if (has_batch_norm or model.projector_output_norm != "none") and images < 2:
        raise UsageError(
            "Batch norm would see one image at a time, whose features it makes constant: take more "
            "--config.batch_size, less --config.accumulate, or a larger "
            "--config.model.bn_group_size."
        )


def _check_model(model: Any, predictor: str) -> None:
    """Norms and heads, of which the predictor is of this kind."""
    for key in ("norm", "head_norm"):
        config_lib.lookup(dict.fromkeys(norms.KINDS), model[key], key=f"model.{key}")
    predictors = (*byol_network.PREDICTORS, *directpred.PREDICTORS)
    config_lib.lookup(dict.fromkeys(predictors), model.predictor, key="model.predictor")
    output_norm = model.projector_output_norm
    config_lib.lookup(byol_network.OUTPUT_NORMS, output_norm, key="model.projector_output_norm")
    channels: list[int] = []
    if model.norm == "group":
        width = model.width_multiplier
        channels += resnet.normalized_channels(model.encoder, width_multiplier=width)
    if model.head_norm == "group":
        heads = {"projector": model.projector_hidden_layers}
        heads["predictor"] = model.predictor_hidden_layers if predictor == "mlp" else 0
        channels += [model[f"{head}_hidden_size"] for head, layers in heads.items() if layers]
    if any(count % model.norm_groups for count in channels):
        sizes = ", ".join(map(str, sorted(set(channels))))
        raise UsageError(
            f"--config.model.norm_groups={model.norm_groups} does not divide {sizes}, the channels "
            f"of group norms here: take {math.gcd(*channels)}, for example."
        )


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
    min_area = config.augment.crop.min_area if config.augment.crop.enabled else 1.0
    smallest = int(np.sqrt(min_area) * min(height, width))
    if smallest < 4 or config.data.image_size < 8:
        raise UsageError(
            f"Images of {height} x {width} px are too small for this crop: windows of "
            f"augment.crop.min_area={min_area} would be about {smallest} px "
            f"wide (4 at least), resized to data.image_size={config.data.image_size} (8 at least)."
        )
