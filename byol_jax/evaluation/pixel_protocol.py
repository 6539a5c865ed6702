"""How tasks that predict every pixel are set up, and on which images.

Shapes: N images of a split.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import agreement, datasets, eval_loader, pixel_sets
from byol_jax.distributed import pmap
from byol_jax.evaluation import baselines, features, protocol, sweep
from byol_jax.evaluation import settings as settings_lib
from byol_jax.workdir import console

UsageError = config_lib.UsageError


@dataclasses.dataclass(frozen=True)
class PixelData:
    """Which images.

    Attributes:
      images: folder of images, of the set "folder".
      train_split: empty: the usual one of the set.
      eval_split: likewise.
    """

    name: str
    dir: str
    images: str
    train_split: str
    eval_split: str
    validation_share: float
    max_bad_share: float

    def bad_limit(self, *splits: datasets.RecordDataset) -> eval_loader.BadLimit:
        """How many images of these splits may be bad."""
        return eval_loader.BadLimit(splits, self.max_bad_share)


@dataclasses.dataclass(frozen=True)
class PixelSettings(settings_lib.EvalSettings):
    """What the settings of such tasks have in common."""

    data: PixelData
    frozen: bool
    batch_size: int
    total_steps: int
    learning_rates: tuple[float, ...]
    weight_decay: float
    bn_decay_rate: float
    refit: bool
    test_batch_size: int

    def trained(self) -> str:
        """What is trained, in words."""
        return "the head alone" if self.frozen else "the whole network"


Settings = TypeVar("Settings", bound=PixelSettings)


def resolve(kind: type[Settings], config: Any, **resolved: Any) -> Settings:
    """The settings of such a task.

    Args:
      kind: of settings.
      config: of the task.
      resolved: fields that are not the values of their keys.

    Raises:
      UsageError: a number out of range, an unknown name.
    """
    return settings_lib.resolve(
        kind,
        config,
        weights=baselines.NETWORKS,
        positive=("batch_size", "total_steps", "test_batch_size"),
        learning_rates=settings_lib.numbers(config, "learning_rates", "(0.01, 0.03)"),
        test_batch_size=pmap.round_up(config.test_batch_size),
        **resolved,
    )


def open_sets(
    encoder: encoders.Encoder,
    name: str,
    place: pixel_sets.Place,
    sets: Any,
    splits: tuple[str, str],
) -> protocol.EvalSetup:
    """Opens a training and an evaluated split of a set, and prints what there is to know.

    Args:
      encoder: that is measured.
      name: a key of ``sets``.
      place: where the set is.
      sets: `pixel_sets.LABELED` or `pixel_sets.DEPTHS`.
      splits: to learn from, and to test on.

    Raises:
      UsageError: an unknown set, a folder or split that is missing, equal splits.
    """
    load = pixel_sets.find(sets, name)
    if splits[0] == splits[1]:
        raise UsageError(f"'{splits[0]}' is both train_split and eval_split: give two splits.")
    train, test = (load(place, split) for split in splits)
    for split, data in zip(splits, (train, test), strict=True):
        agreement.require_same_data(f"{name} ({split})", data)
        console.say(data.about)
    source = features.Source(name, place.dir or place.images)
    names = dict(zip(("train_split", "validation_split", "eval_split"), (splits[0], "", splits[1]),
                     strict=True))  # fmt: skip
    return protocol.EvalSetup(encoder, source, train, 0, test, names)


def require_usable(data: datasets.RecordDataset, bad: eval_loader.BadLimit) -> None:
    """Reads the evaluated images once: too many bad ones should not end hours of training.

    Raises:
      UsageError: more images cannot be used than may be, or none can.
    """
    if not sum(1 for _ in pixel_sets.examples(data, bad)):
        raise UsageError(f"None of the {data.num_images:,} images to test on can be used.")


def table(found: Mapping[str, Any], name: str, title: str) -> list[str]:
    """Lines for the rows of a sweep, if there was one.

    Args:
      found: the result of a seed.
      name: of the criterion.
      title: of its column.
    """
    rates = [sweep.Column("learning_rate", "learning rate", 14, "g")]
    scores = [sweep.Column(f"validation_{name}", f"validation {title}", 24, ".2%")]
    return sweep.describe(found, rates, scores)
