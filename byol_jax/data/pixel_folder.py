"""A folder of images, and another with a PNG for each: class numbers, or depth in millimeters."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets, image_files, image_folder, image_formats, pixel_targets

UsageError = config_lib.UsageError

_SAMPLE = 50  # masks that are looked at before anything starts


def load_masks(images: str, masks: str, split: str, *, num_classes: int) -> datasets.RecordDataset:
    """Images with masks of class numbers, `pixel_targets.IGNORED` where none counts.

    Args:
      images: a folder; its splits are those of `image_folder.scan`, but ``train`` never holds an
        image of ``test``.
      masks: a folder in which ``a/b.png`` is the mask of the image ``a/b.jpg``.
      split: its name.
      num_classes: with the background.

    Raises:
      UsageError: no such folder or split, or masks that use 255 for a class.
    """
    read = functools.partial(pixel_targets.read_labels, num_classes=num_classes)
    data = _load(images, masks, split, read, key="masks")
    _require_classes(data, num_classes)
    return dataclasses.replace(data, num_classes=num_classes)


def load_depths(images: str, depths: str, split: str) -> datasets.RecordDataset:
    """Images with 16-bit PNGs of depth in millimeters, 0 where it is unknown; as `load_masks`."""
    return _load(images, depths, split, pixel_targets.read_depth, key="depths")


def _load(
    images: str,
    targets: str,
    split: str,
    read: Callable[[pathlib.Path], np.ndarray],
    *,
    key: str,
) -> datasets.RecordDataset:
    for name, folder in (("images", images), (key, targets)):
        if not folder or not pathlib.Path(folder).expanduser().is_dir():
            raise UsageError(f"Give a folder by --config.data.{name}; '{folder}' is none.")
    top, other = (pathlib.Path(folder).expanduser().resolve() for folder in (images, targets))
    if other.is_relative_to(top) or top.is_relative_to(other):
        raise UsageError(
            f"--config.data.{key} ({other}) and --config.data.images ({top}) lie in each other: "
            "take two folders side by side, so that no file is both."
        )
    names = _files(images, split)
    paths = [top / name for name in names]
    pngs = [other / pathlib.PurePosixPath(name).with_suffix(".png") for name in names]
    found = sum(path.exists() for path in pngs[:_SAMPLE])
    if not found:
        raise UsageError(
            f"None of the first {len(pngs[:_SAMPLE])} images has its PNG in {other}: for "
            f"{names[0]} there should be {pngs[0]}."
        )
    about = f"{split} of {top}: {len(names):,} images, {key} in {other}."
    records = pixel_targets.PairedFiles(paths, pngs, names, read)
    return datasets.RecordDataset(
        records, len(names), 0, pixel_targets.fingerprint(names), about=about
    )


def _files(images: str, split: str) -> list[str]:
    """Paths of a split's images below the folder."""
    listing = image_folder.scan(images, split)
    if split == "train" and not image_folder.find_splits(images):
        try:  # without classes all images would be for training
            test = set(image_folder.scan(images, "test").files)
        except image_folder.EmptySplitError:
            test = set()
        everything = image_folder.scan(images, "all")
        listing = everything._replace(files=tuple(f for f in everything.files if f not in test))
    top = pathlib.Path(images).expanduser().resolve()
    root = pathlib.Path(listing.root).expanduser().resolve().relative_to(top)
    return [(root / name).as_posix() for name in listing.files]


def _require_classes(data: datasets.RecordDataset, num_classes: int) -> None:
    """Refuses masks of 0 and 255 for two classes, all of whose foreground would be ignored."""
    seen: set[int] = set()
    for index in range(min(_SAMPLE, data.num_images)):
        try:
            seen |= set(np.unique(data.records.target(index)).tolist())
        except (image_formats.BadImageError, image_files.ReadError):
            continue  # counted and named when it is used
    if seen == {0, pixel_targets.IGNORED} and num_classes > 1:
        raise UsageError(
            "The masks hold nothing but 0 and 255, and 255 is ignored: write the class numbers "
            f"(0 to {num_classes - 1}) into them, for example 1 in place of 255."
        )
