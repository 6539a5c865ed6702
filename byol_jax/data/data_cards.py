"""Measures what has to stay the same about the data of a run."""

from typing import Any

from byol_jax import config as config_lib
from byol_jax.data import datasets, eval_loader, gray
from byol_jax.workdir import console, run_folder

UsageError = config_lib.UsageError

NEARLY_BLACK = 0.02  # mean of the brightest channel, in [0, 1], below which something is wrong


def describe(
    config: Any, train: datasets.Dataset, known: run_folder.DataCard | None
) -> run_folder.DataCard:
    """What has to stay the same about the data of a run; measured only once.

    Args:
      config: of the run.
      train: its training split.
      known: what an earlier part of the same run found out.

    Raises:
      UsageError: other images than before, half a normalization, or no image that can be used.
    """
    found = (train.num_images, train.num_classes, train.fingerprint)
    if known and found != (known.num_images, known.num_classes, known.fingerprint):
        raise UsageError(
            f"The images of {config.data.name} are not those that this run began with "
            f"({known.num_images:,} then, {train.num_images:,} now): give it another --workdir."
        )
    if known:
        return known
    mean, std = config.data.mean, config.data.std
    if (mean is None) != (std is None):
        raise UsageError("Set both data.mean and data.std, or none of them to have them measured.")
    ranges = eval_loader.grey_ranges(train)
    if ranges:
        console.say(gray.describe(ranges))
    if mean is None:
        train = datasets.with_grey_ranges(train, ranges)
        mean, std = eval_loader.channel_stats(train, image_size=config.data.image_size)
        _warn_of_darkness(mean, config.data.name)
    return run_folder.DataCard(*found, tuple(mean), tuple(std), ranges)


def _warn_of_darkness(mean: tuple[float, ...], name: str) -> None:
    if max(mean) < NEARLY_BLACK:
        console.say(
            f"Warning: the images of {name} come out nearly black (mean {max(mean):.2%} of white), "
            "as if few of their bits were used: look at them by configs/preview.py."
        )
