"""Which images of a split have labels that may be used: a fraction of each class, or listed files.

Shapes: N images of a split, n of those that are chosen, C classes.
"""

import pathlib

import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets
from byol_jax.workdir import console

UsageError = config_lib.UsageError

LOOKED_AT = 256  # images of a set on disk, to tell how many of them have labels


def labeled_share(data: datasets.Dataset) -> float:
    """Fraction of the images that have labels; of a set on disk of some of them, evenly spread."""
    if not data.num_classes:
        return 0.0
    if isinstance(data, datasets.ArrayDataset):
        return float(np.mean(data.labels >= 0))
    count = min(data.num_images, LOOKED_AT)
    some = np.linspace(0, data.num_images - 1, count).astype(int)
    return float(np.mean([data.records.label(int(index)) >= 0 for index in some]))


def read_labels(data: datasets.Dataset) -> np.ndarray:
    """The labels [N] of a split; reads every record of one on disk, with a progress line."""
    if isinstance(data, datasets.ArrayDataset):
        return data.labels
    labels = np.empty(data.num_images, np.int32)
    with console.progress_bar(total=data.num_images, done=0, unit="img", title="labels") as bar:
        for index in range(data.num_images):
            labels[index] = data.records.label(index)
            bar.update()
    return labels


def positions(labels: np.ndarray) -> np.ndarray:
    """Where the images with labels are among all [N].

    Raises:
      UsageError: there is none.
    """
    found = np.flatnonzero(labels >= 0)
    if not found.size:
        raise UsageError(f"None of the {len(labels):,} images of the training split has a label.")
    return found


def balanced(
    labels: np.ndarray, among: np.ndarray, fraction: float, *, num_classes: int, seed: int
) -> np.ndarray:
    """Positions [n] of as many images of each class, drawn by the seed, in order.

    A class with less images than its part gives all of them.

    Args:
      labels: [N]; -1 without, which are not among N where a fraction of it is taken.
      among: positions in ``labels`` to choose from.
      fraction: of N; each class gets fraction x N / C images, rounded.
      num_classes: C.
      seed: decides which.

    Raises:
      UsageError: a class would have no image.
    """
    count = int((labels >= 0).sum())
    part = round(fraction * count / num_classes)
    if part < 1:
        least = num_classes / count
        raise UsageError(
            f"--config.labels.share={fraction:g} of {count:,} labeled images leaves each of the "
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


def listed(path: str, data: datasets.Dataset, labels: np.ndarray) -> np.ndarray:
    """Positions [n] of the images that a text file names, one a line, in the split's order.

    A name is compared with a file's path below its folder, or with the last part of it: the lists
    of SimCLR's authors for ImageNet are of that kind.

    Args:
      path: of the list.
      data: whose images have file names.
      labels: [N] of all its images.

    Raises:
      UsageError: no such file, names that no image has, images without names or labels.
    """
    wanted = _read_list(path)
    if isinstance(data, datasets.ArrayDataset):
        raise UsageError(
            "--config.labels.list needs images with file names, but this set is held in memory "
            "without any: use --config.labels.share."
        )
    chosen, found = [], set()
    with console.progress_bar(total=data.num_images, done=0, unit="img", title="names") as bar:
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
    unlabeled = [index for index in chosen if labels[index] < 0]
    if unlabeled:
        raise UsageError(
            f"{len(unlabeled):,} of the images that {path} names have no label, such as "
            f"{data.records.name(unlabeled[0])}."
        )
    return np.array(chosen)


def _read_list(path: str) -> set[str]:
    try:
        data = pathlib.Path(path).expanduser().read_bytes()
        lines = data.decode("utf-8-sig", "surrogateescape").splitlines()
    except OSError as error:
        raise UsageError(f"Cannot read --config.labels.list={path}: {error}.") from None
    wanted = {line.strip() for line in lines} - {""}
    if not wanted:
        raise UsageError(f"--config.labels.list={path} names no image.")
    return wanted
