"""The settings of a pretraining run: its config, checked, resolved and frozen.

Sections and fields have the names of the config's keys, so that ``settings.optimizer.warmup_steps``
is what ``--config.optimizer.warmup_steps`` sets. What a config may leave open has a value here:
durations are in steps, and `PretrainSettings.origins` says where each of these values is from.
"""

import dataclasses
import types
from collections.abc import Collection, Mapping
from typing import Any

from byol_jax import config as config_lib
from byol_jax.augment import image_ops
from byol_jax.training import method_settings, optimizers, paper_settings, precision

UsageError = config_lib.UsageError

TYPED, PRESET, REFERENCE, MEASURED = "typed", "preset", "reference", "measured"


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images, and how they are read."""

    name: str
    dir: str
    train_split: str
    eval_split: str
    image_size: int
    mean: tuple[float, ...] | None  # None: measured; the run's data card has what counts
    std: tuple[float, ...] | None
    max_bad_share: float
    threads: int
    workers: int
    labels: str = "folders"


@dataclasses.dataclass(frozen=True)
class Model:
    """The networks: an encoder of `resnet.ENCODERS` and its heads."""

    encoder: str
    width_multiplier: int
    resnet_v2: bool
    stem: str
    zero_init_residual: bool
    padding: str
    norm: str
    head_norm: str
    norm_groups: int
    weight_standardization: bool
    projector_hidden_size: int
    projector_hidden_layers: int
    projector_output_size: int
    projector_output_norm: str
    predictor: str
    predictor_hidden_size: int
    predictor_hidden_layers: int
    head_bias: bool
    bn_decay_rate: float
    bn_eps: float
    bn_group_size: int | None
    dtype: str
    remat: bool


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss, and how the target network moves."""

    name: str
    recipe: str  # one of `method_settings.KINDS`, which was applied before
    predictor: bool | None  # None: as the objective has it
    target: str | None  # None: the objective's own kind
    base_target_ema: float | None  # None only before the length of the run is known
    target_ema_schedule: str
    target_init: str
    own: Mapping[str, Any]  # what the section of its name says


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The optimizer that the config names, with the settings that are its own."""

    name: str
    warmup_steps: int
    warmup_epochs: float | None  # what the steps were counted from, if they were
    base_learning_rate: float  # times batch size / 256
    weight_decay: float
    arguments: Mapping[str, float]  # those that other optimizers do not have
    multipliers: Mapping[str, float]  # of the learning rate, by patterns of modules


@dataclasses.dataclass(frozen=True)
class Crop:
    """Random resized crops."""

    enabled: bool
    min_area: float
    max_area: float
    method: str

    @property
    def area_range(self) -> tuple[float, float] | None:
        """Fraction of an image that is cut out, least and most; None: its largest square."""
        return (self.min_area, self.max_area) if self.enabled else None


@dataclasses.dataclass(frozen=True)
class Augment:
    """How the two views are made."""

    crop: Crop
    view1: image_ops.View
    view2: image_ops.View


@dataclasses.dataclass(frozen=True)
class Probe:
    """How the encoder is measured while it trains."""

    every_steps: int
    max_images: int
    k: int
    temperature: float


@dataclasses.dataclass(frozen=True)
class Collapse:
    """What counts as collapse, and what to do then."""

    action: str
    patience: int
    min_feature_std: float
    min_effective_rank: float
    max_target_cosine: float


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The pictures of the report."""

    max_images: int


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """All settings of a pretraining run; configs/byol.py says what each key means.

    Attributes:
      total_steps: length of the run.
      total_epochs: what the steps were counted from; None if the config gave steps.
      origins: where a resolved value is from, by its key: typed, preset, reference, measured, or
        what chose it.
      unset: values that the config leaves to the reference, and for what length; a text.
    """

    seed: int
    batch_size: int
    accumulate: int
    accumulate_statistics: str
    total_steps: int
    total_epochs: float | None
    checkpoint: str
    checkpoint_every_steps: int
    keep_checkpoints: int
    keep_every_steps: int
    log_every_steps: int
    wandb_project: str
    data: Data
    model: Model
    objective: Objective
    optimizer: Optimizer
    augment: Augment
    probe: Probe
    gallery: Gallery
    collapse: Collapse
    origins: Mapping[str, str]
    unset: str = ""

    @property
    def micro_batches(self) -> int:
        """Parts of a batch that are normalized each by itself, one after the other."""
        return 1 if self.accumulate_statistics == "exact" else self.accumulate

    @property
    def parts_of_a_pass(self) -> int:
        """Parts that each layer processes one after the other, normalized together."""
        return self.accumulate if self.accumulate_statistics == "exact" else 1


def resolve(
    config: Any,
    *,
    num_images: int,
    typed: Collection[str] = (),
    chosen: Mapping[str, str] = types.MappingProxyType({}),
) -> PretrainSettings:
    """The settings of a config for a training set of a size.

    Args:
      config: of a pretraining run; `config_checks.check` has checked it.
      num_images: of the training split.
      typed: dotted keys whose values a person gave on top of the preset.
      chosen: who chose what neither a person nor the preset did, by dotted key.

    Raises:
      UsageError: the config says nothing of the length, or the run would have no step.
    """
    total_steps = steps_of(
        config.total_steps, config.total_epochs, config.batch_size, num_images, key="total"
    )
    if total_steps < 1:
        raise UsageError(
            f"The run would have {total_steps} steps: set total_steps or total_epochs higher."
        )
    found, unset = paper_settings.of_length(config, total_steps, num_images)
    warmup = config.optimizer.warmup_steps
    warmup_steps = steps_of(
        warmup, found.warmup_epochs, config.batch_size, num_images, key="optimizer.warmup"
    )
    section = config.optimizer[config.optimizer.name]
    own = {name: section[name] for name in section if name not in found._fields}
    return config_lib.freeze(
        PretrainSettings,
        config,
        total_steps=total_steps,
        total_epochs=None if config.total_steps is not None else config.total_epochs,
        model=config_lib.freeze(
            Model,
            config.model,
            prefix="model.",
            dtype=config.model.dtype or precision.default(),
            predictor=method_settings.predictor_of(config),
        ),
        objective=objective_of(config, base_target_ema=found.base_target_ema),
        optimizer=Optimizer(
            config.optimizer.name,
            min(warmup_steps, total_steps),
            found.warmup_epochs if warmup is None else None,
            found.base_learning_rate,
            found.weight_decay,
            types.MappingProxyType(own),
            types.MappingProxyType(optimizers.parse_multipliers(config.optimizer.multipliers)),
        ),
        origins=_origins(config, typed, chosen),
        unset=unset,
    )


def objective_of(config: Any, *, base_target_ema: float | None = None) -> Objective:
    """The objective that the config names, with the settings that are its own."""
    section = config.objective
    own = section[section.name] if section.name in section else {}
    return config_lib.freeze(
        Objective,
        section,
        base_target_ema=base_target_ema,
        own=types.MappingProxyType({name: own[name] for name in own}),
    )


def steps_of(
    steps: int | None, epochs: float | None, batch_size: int, num_images: int, *, key: str
) -> int:
    """A duration in steps: those that are given, else those of so many epochs.

    Raises:
      UsageError: neither is given; ``<key>_steps`` and ``<key>_epochs`` are named.
    """
    if steps is not None:
        return steps
    if epochs is None:
        name = key.rpartition(".")[2]
        raise UsageError(
            f"Set {name}_steps or {name}_epochs, for example --config.{key}_epochs=100."
        )
    return int(epochs * num_images // batch_size)


def _origins(config: Any, typed: Collection[str], chosen: Mapping[str, str]) -> Mapping[str, str]:
    def origin(key: str, unset: str) -> str:
        if config_lib.get(config, key) is None:
            return unset
        return TYPED if key in typed else chosen.get(key, PRESET)

    keys = paper_settings.length_keys(config)
    total = "total_epochs" if config.total_steps is None else "total_steps"
    warmup = "epochs" if config.optimizer.warmup_steps is None else "steps"
    found = {
        "total_steps": origin(total, REFERENCE),
        "optimizer.warmup_steps": origin(f"optimizer.warmup_{warmup}", REFERENCE),
        "optimizer.base_learning_rate": origin(keys["base_learning_rate"], REFERENCE),
        "optimizer.weight_decay": origin(keys["weight_decay"], REFERENCE),
        "objective.base_target_ema": origin(keys["base_target_ema"], REFERENCE),
        "data.mean": origin("data.mean", MEASURED),
    }
    return types.MappingProxyType(found)
