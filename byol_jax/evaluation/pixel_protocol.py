"""How tasks that predict every pixel are set up, and on which images.

Shapes: N images of a split.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import agreement, datasets, eval_loader, pixel_sets
from byol_jax.distributed import pmap
from byol_jax.evaluation import baselines, features, protocol, results
from byol_jax.workdir import console

UsageError = config_lib.UsageError


class Settings(NamedTuple):
    """How to choose, train and test; plain numbers of a config.

    Attributes:
      learning_rates: to choose from, of the first step.
      weight_decay: of the gradient.
      batch_size: of all devices together.
      total_steps: updates.
      is_frozen: train the head alone.
      refit: train the best again on held-out images, too.
      validation_fraction: of the training images that are held out to choose on.
      test_batch_size: images at a time.
      resamples: of the bootstrap.
    """

    learning_rates: tuple[float, ...]
    weight_decay: float
    batch_size: int
    total_steps: int
    is_frozen: bool
    refit: bool
    validation_fraction: float
    test_batch_size: int
    resamples: int


def read_settings(config: Any) -> Settings:
    """The settings of a config that all such tasks have.

    Raises:
      UsageError: a number out of range, an unknown name.
    """
    config_lib.require_positive(
        config, "batch_size", "total_steps", "test_batch_size", "seeds", "bootstrap_resamples"
    )
    results.require_share(config, "data.validation_share")
    results.require_bad_share(config)
    config_lib.lookup(baselines.NETWORKS, config.weights, key="weights")
    return Settings(
        learning_rates=tuple(results.numbers(config, "learning_rates", "(0.01, 0.03)")),
        weight_decay=config.weight_decay,
        batch_size=config.batch_size,
        total_steps=config.total_steps,
        is_frozen=config.frozen,
        refit=config.refit,
        validation_fraction=config.data.validation_share,
        test_batch_size=pmap.round_up(config.test_batch_size),
        resamples=config.bootstrap_resamples,
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
    load = config_lib.lookup(sets, name, key="data.name")
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
      found: what `score` gives.
      name: of the criterion.
      title: of its column.
    """
    chosen = found["selected"]
    if chosen["among"] == 1:
        return []
    lines = [f"{'learning rate':>14}{f'validation {title}':>24}"]
    for row in found["table"]:
        mark = "  <- chosen" if row["learning_rate"] == chosen["learning_rate"] else ""
        lines.append(f"{row['learning_rate']:>14g}{row[f'validation_{name}']:>24.2%}{mark}")
    return [*lines, f"chosen on {chosen['on']}"]
