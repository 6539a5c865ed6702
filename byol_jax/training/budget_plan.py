"""What the rules of `budget` work on: facts, and a config that is filled in with reasons."""

import copy
from typing import Any, NamedTuple

from byol_jax import config as config_lib

SMALL_ENCODERS = ("micro_resnet", "tiny_resnet")
TEXTURE_SIZE = 64  # px at which `Facts.texture` is measured
FINE_TEXTURE = 0.3  # from here on small images lose what they are about


class Facts(NamedTuple):
    """What the rules depend on.

    Attributes:
      num_images: to train on.
      side: shorter side of the images in pixels, the median of a sample.
      is_in_memory: whether the images are arrays of one size, which evaluations use as they are.
      is_gray: whether the sample has no color.
      brightness: mean of the pixels, in [0, 1].
      texture: fraction of the variance of an image that is lost at `TEXTURE_SIZE` px.
      is_accelerator: whether the devices are GPUs or TPUs.
      devices: of all processes.
    """

    num_images: int
    side: int
    is_in_memory: bool
    is_gray: bool
    brightness: float
    texture: float
    is_accelerator: bool
    devices: int


class Choice(NamedTuple):
    """A value for a key, and why.

    Attributes:
      value: of the key.
      reason: for people.
      origin: a label of who chose it; empty: these rules.
    """

    value: Any
    reason: str
    origin: str = ""


class Plan:
    """A config that is filled key by key; what is set stays.

    Attributes:
      config: of a run, a copy.
      choices: what was unset, by key.
    """

    def __init__(self, config: Any):
        self.config = copy.deepcopy(config)
        self.choices: dict[str, Choice] = {}

    def __getitem__(self, key: str) -> Any:
        return config_lib.get(self.config, key)

    def offer(self, key: str, value: Any, reason: str, origin: str = "") -> None:
        """Sets a key unless it is set."""
        if self[key] is None:
            self.config.update_from_flattened_dict({key: value})
            self.choices[key] = Choice(value, reason, origin)
