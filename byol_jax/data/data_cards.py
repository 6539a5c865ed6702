"""Measures what has to stay the same about the data of a run."""

from byol_jax import config as config_lib
from byol_jax.data import datasets, eval_loader, gray
from byol_jax.workdir import console, run_folder

UsageError = config_lib.UsageError

DARKNESS_SAMPLE = 20  # images that are looked at where the mean is given
NEARLY_BLACK = 0.02  # mean of the brightest channel, in [0, 1], below which something is wrong


def describe(
    train: datasets.Dataset,
    known: run_folder.DataCard | None,
    *,
    name: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    image_size: int,
) -> run_folder.DataCard:
    """What has to stay the same about the data of a run; measured only once.

    Args:
      train: its training split.
      known: what an earlier part of the same run found out.
      name: of the set.
      mean: of the channels; None: measured.
      std: of the channels, likewise.
      image_size: that they are measured at.

    Raises:
      UsageError: other images than before, half a normalization, or no image that can be used.
    """
    found = (train.num_images, train.num_classes, train.fingerprint)
    if known and found != (known.num_images, known.num_classes, known.fingerprint):
        raise UsageError(
            f"The images of {name} are not those that this run began with "
            f"({known.num_images:,} then, {train.num_images:,} now): give it another --workdir."
        )
    if known:
        return known
    if (mean is None) != (std is None):
        raise UsageError("Set both data.mean and data.std, or none of them to have them measured.")
    ranges = eval_loader.grey_ranges(train)
    if ranges:
        console.say(gray.describe(ranges))
    train = datasets.with_grey_ranges(train, ranges)
    if mean is None:
        mean, std = eval_loader.channel_stats(train, image_size=image_size)
        _warn_of_darkness(mean, name)
    else:  # which says what was expected, not what comes out
        some = eval_loader.channel_means(train, image_size=image_size, num_images=DARKNESS_SAMPLE)
        _warn_of_darkness(some, name)
    return run_folder.DataCard(*found, tuple(mean), tuple(std), ranges)


def _warn_of_darkness(mean: tuple[float, ...] | None, name: str) -> None:
    if mean and max(mean) < NEARLY_BLACK:
        console.say(
            f"Warning: the images of {name} come out nearly black (mean {max(mean):.2%} of white), "
            "as if few of their bits were used: look at them by configs/preview.py."
        )
