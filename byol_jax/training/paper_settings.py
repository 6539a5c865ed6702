"""What the reference's authors chose for ImageNet by the length of a run, and in between.

The length of a run counts in images seen: one on fewer images has to see them more often to be as
long. Between the authors' four lengths, learning rate, weight decay and 1 - tau are interpolated,
all on logarithmic scales; beyond them, the nearest holds.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict, config_dict

from byol_jax import config as config_lib

NUM_IMAGES = 1_281_167  # of an epoch of ImageNet
BATCH_SIZE = 4096


class Settings(NamedTuple):
    """What depends on the length of a run.

    Attributes:
      base_learning_rate: of LARS; times batch size / 256.
      weight_decay: of LARS.
      base_target_ema: tau at the start.
      warmup_epochs: of linear warm-up.
    """

    base_learning_rate: float
    weight_decay: float
    base_target_ema: float
    warmup_epochs: float


BY_EPOCHS = {  # configs/byol.py of the reference
    40: Settings(0.45, 1e-6, 0.97, 10.0),
    100: Settings(0.45, 1e-6, 0.99, 10.0),
    300: Settings(0.3, 1e-6, 0.99, 10.0),
    1000: Settings(0.2, 1.5e-6, 0.996, 10.0),
}


ABLATION = Settings(0.3, 1e-6, 0.99, 10.0)  # paper, appendix F: 300 epochs
SMALL_BATCH = Settings(0.4, 1.5e-6, 0.9995, 10.0)  # paper, appendix G: batch 512, 1000 epochs


def assign(config: ConfigDict, given: Mapping[str, float]) -> None:
    """Puts settings into a config; what is not given follows from the length of the run."""
    sections = (config.optimizer.lars, config.optimizer.lars, config.objective, config.optimizer)
    for section, name in zip(sections, Settings._fields, strict=True):
        section[name] = config_dict.placeholder(float)
        section[name] = given.get(name)


def of_length(config: Any, total_steps: int, num_images: int) -> tuple[Settings, str]:
    """What depends on the length of a run: as the config says, else as the reference does.

    Also a text that lists what is the reference's; empty if nothing is.
    """
    epochs = config.total_epochs
    if config.total_steps is not None:
        epochs = total_steps * config.batch_size / num_images
    reference, source = settings(epochs=epochs, batch_size=config.batch_size, num_images=num_images)
    given = {name: config_lib.get(config, key) for name, key in length_keys(config).items()}
    filled = {name: getattr(reference, name) for name, value in given.items() if value is None}
    # A warm-up in steps counts, so that nothing follows from its epochs.
    unused = {"warmup_epochs"} if config.optimizer.warmup_steps is not None else set()
    listed = ", ".join(f"{n} {value:.6g}" for n, value in filled.items() if n not in unused)
    return Settings(**given | filled), f"{listed}; {source}" if listed else ""


def length_keys(config: Any) -> dict[str, str]:
    """The keys of what depends on the length of a run, by the fields of `Settings`."""
    section = f"optimizer.{config.optimizer.name}"
    return {
        "base_learning_rate": f"{section}.base_learning_rate",
        "weight_decay": f"{section}.weight_decay",
        "base_target_ema": "objective.base_target_ema",
        "warmup_epochs": "optimizer.warmup_epochs",
    }


def settings(*, epochs: float, batch_size: int, num_images: int) -> tuple[Settings, str]:
    """Settings of a run of any length, and a text that says where they are from.

    tau belongs to steps of a batch of `BATCH_SIZE`. A k times larger batch takes k steps in one, so
    that its tau is tau^k (Busbridge et al. 2023, arXiv:2307.13813). The learning rate has its rule
    elsewhere. Warm-up sees as many images as the authors', but never more than a quarter of the
    run, which is its fraction of 40 epochs.
    """
    length = epochs * num_images / NUM_IMAGES
    below, above = _neighbors(length)
    low, high = BY_EPOCHS[below], BY_EPOCHS[above]
    fraction = math.log(length / below) / math.log(above / below) if above > below else 0.0
    tau = 1 - _between(1 - low.base_target_ema, 1 - high.base_target_ema, fraction)
    found = Settings(
        _between(low.base_learning_rate, high.base_learning_rate, fraction),
        _between(low.weight_decay, high.weight_decay, fraction),
        (tau if fraction else low.base_target_ema) ** (batch_size / BATCH_SIZE),
        min(low.warmup_epochs * NUM_IMAGES / num_images, epochs / 4),
    )
    return found, _source(length, below, above, batch_size)


def _neighbors(length: float) -> tuple[int, int]:
    """The lengths next to this one: twice the same if it is one of them or beyond them all."""
    below = max((known for known in BY_EPOCHS if known <= length), default=min(BY_EPOCHS))
    above = min((known for known in BY_EPOCHS if known >= length), default=max(BY_EPOCHS))
    return below, above


def _between(low: float, high: float, fraction: float) -> float:
    return low if low == high or not fraction else low ** (1 - fraction) * high**fraction


def _source(length: float, below: int, above: int, batch_size: int) -> str:
    seen = f"as many images as {length:.4g} epochs of ImageNet"
    if below < above:
        text = f"between the reference's for {below} and {above} epochs (this run sees {seen})"
    elif math.isclose(length, below):
        text = f"the reference's for {below} epochs of ImageNet"
    else:
        text = f"the reference's for {below} epochs, the nearest it has (this run sees {seen})"
    if batch_size != BATCH_SIZE:
        text += f", tau to the power of {batch_size} / {BATCH_SIZE} for this batch"
    return text
