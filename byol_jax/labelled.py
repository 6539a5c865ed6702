"""Which images of a split have labels that may be used: a share of each class, or a list of files.

Shapes: N images of a split, n of those that are chosen, C classes.
"""

import pathlib

import numpy as np

from byol_jax import config as config_lib
from byol_jax import datasets, records

UsageError = config_lib.UsageError


def read_labels(data: datasets.Dataset) -> np.ndarray:
    """The labels [N] of a split; reads every record of one on disk, with a progress line."""
    if isinstance(data, datasets.Images):
        return data.labels
    labels = np.empty(data.num_images, np.int32)
    with records.progress_bar(total=data.num_images, done=0, unit="img", title="labels") as bar:
        for index in range(data.num_images):
            labels[index] = data.records.label(index)
            bar.update()
    return labels


def balanced(
    labels: np.ndarray, among: np.ndarray, share: float, *, num_classes: int, seed: int
) -> np.ndarray:
    """Positions [n] of as many images of each class, drawn by the seed, in order.

    A class with less images than its part gives all of them.

    Args:
      labels: [N].
      among: positions in ``labels`` to choose from.
      share: of N; each class gets share x N / C images, rounded.
      num_classes: C.
      seed: decides which.

    Raises:
      UsageError: a class would have no image.
    """
    part = round(share * len(labels) / num_classes)
    if part < 1:
        least = num_classes / len(labels)
        raise UsageError(
            f"--config.labels.share={share:g} of {len(labels):,} images leaves each of the "
            f"{num_classes:,} classes without an image: take {least:.2g} or more."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(among)
    chosen = np.concatenate([order[labels[order] == c][:part] for c in range(num_classes)])
    require_all_classes(labels[chosen], num_classes)
    return np.sort(chosen)


def require_all_classes(labels: np.ndarray, num_classes: int) -> None:
    """Raises unless every class is among labels [n]."""
    missing = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if missing.size:
        raise UsageError(
            f"{missing.size:,} of the {num_classes:,} classes have no image to learn from, such as "
            f"class {missing[0]}: use more labels, or hold less out (data.validation_share)."
        )


def listed(path: str, data: datasets.Dataset) -> np.ndarray:
    """Positions [n] of the images that a text file names, one a line, in the split's order.

    A name is compared with a file's path below its folder, or with the last part of it: the lists
    of SimCLR's authors for ImageNet are of that kind.

    Args:
      path: of the list.
      data: whose images have file names.

    Raises:
      UsageError: no such file, names that no image has, images without names.
    """
    wanted = _read_list(path)
    if isinstance(data, datasets.Images):
        raise UsageError(
            "--config.labels.list needs images with file names, but this set is held in memory "
            "without any: use --config.labels.share."
        )
    chosen, found = [], set()
    with records.progress_bar(total=data.num_images, done=0, unit="img", title="names") as bar:
        for index in range(data.num_images):
            name = data.records.file_name(index)
            names = {name, name.rsplit("/", 1)[-1]} & wanted
            if names:
                chosen.append(index)
                found |= names
            bar.update()
    missing = sorted(wanted - found)
    if missing:
        raise UsageError(
            f"{len(missing):,} of the {len(wanted):,} names in {path} are of no training image, "
            f"such as '{missing[0]}'."
        )
    return np.array(chosen)


def _read_list(path: str) -> set[str]:
    try:
        lines = pathlib.Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read --config.labels.list={path}: {error}.") from None
    wanted = {line.strip() for line in lines} - {""}
    if not wanted:
        raise UsageError(f"--config.labels.list={path} names no image.")
    return wanted
