"""Finds the images of a folder, their classes and their splits; reads none of them."""

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import folder_layout, image_decoding, label_table

UsageError = config_lib.UsageError
UNLABELED = -1
SPLITS = ("train", "test", "all")  # of a folder without such folders


class EmptySplitError(config_lib.UsageError):
    """Too few images for one of them to fall into a split."""


class Listing(NamedTuple):
    """The images of one split, in an order that depends on their names alone.

    Attributes:
      root: the folder.
      files: paths below it, with forward slashes.
      labels: [N] int32, the position of an image's folder in ``classes``; -1 without classes.
      classes: names of the subfolders that are classes; empty without labels.
      fingerprint: of the names of all files and so of the split.
      about: one line that says what was taken for what, and what was left out.
    """

    root: pathlib.Path
    files: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    fingerprint: str
    about: str = ""


def scan(root: str, split: str, labels: str = label_table.FOLDERS) -> Listing:
    """Lists the images of a split.

    If all images lie in subfolders, each subfolder that holds some is a class, at whatever depth
    its images are; with an image beside the subfolders, there are no labels. An outer folder that
    holds everything is passed through, and so one class alone is no label. Left out, and counted in
    ``about``: hidden files and folders, folders without an image, files that have no extension of
    an image, whatever is no regular file.

    Splits are folders as `folder_layout.open_layout` finds them. Else there are ``all``, ``test``
    (about a tenth, by a hash of the name, so that it stays when images are added) and ``train``:
    the rest, or all images if they have no labels, since then nothing is measured that they could
    give away.

    Args:
      root: the folder.
      split: of it.
      labels: "folders", as above; "none": subfolders mean nothing, but that they may be splits; or
        a CSV file, as `label_table.read` takes it, whose labels in their order are the classes.

    Raises:
      UsageError: no such folder or split, a folder that cannot be read, no image; or what
        `label_table.read` raises.
    """
    layout = folder_layout.open_layout(root)
    classes = layout.classes() if labels == label_table.FOLDERS else folder_layout.Classes((), 0)
    given: dict[str, str] = {}
    if label_table.is_table(labels):
        given = label_table.read(labels, set(layout.tree.files), layout.top)
    if not layout.splits:
        listing = _with_labels(_label(layout.top, layout.tree.files, classes), layout, given)
        listing = _held_out(layout.top, listing, split)
    elif split in layout.splits:
        listing = _label(layout.root(split), layout.files(split), classes)
        listing = _with_labels(listing, layout, given)
    else:
        raise UsageError(
            f"{layout.top} has no split '{split}'.{config_lib.suggest(split, layout.splits)} "
            "Choose by --config.data.train_split and --config.data.eval_split."
        )
    return listing._replace(about=_describe(listing, split, folder_layout.describe(layout)))


def list_all(root: str) -> Listing:
    """All images of a folder by name, whatever its subfolders are called, without labels.

    Raises:
      UsageError: no such folder, one that cannot be read, no image.
    """
    layout = folder_layout.open_layout(root)
    listing = _label(layout.top, layout.tree.files, folder_layout.Classes((), 0))
    left_out = folder_layout.describe(layout._replace(splits={}))
    return listing._replace(files=tuple(sorted(listing.files)), about=left_out)


def _with_labels(
    listing: Listing, layout: folder_layout.Layout, given: Mapping[str, str]
) -> Listing:
    """The same images with the labels of a table, which has paths below the top."""
    if not given:
        return listing
    classes = tuple(sorted(set(given.values())))
    number = {name: i for i, name in enumerate(classes)} | {None: UNLABELED}
    prefix = listing.root.relative_to(layout.top).as_posix()
    names = (name if prefix == "." else f"{prefix}/{name}" for name in listing.files)
    labels = np.array([number[given.get(name)] for name in names], np.int32)
    return listing._replace(
        labels=labels,
        classes=classes,
        fingerprint=f"{listing.fingerprint}-{label_table.digest(given)}",
    )


def find_classes(root: str) -> tuple[str, ...]:
    """Names of the classes of a folder, alike for all of its splits; empty without labels."""
    return folder_layout.open_layout(root).classes().names


def find_splits(root: str) -> tuple[str, ...]:
    """The splits that have folders of their own with images in them; empty if none has."""
    return tuple(folder_layout.open_layout(root).filled_splits())


def _describe(listing: Listing, split: str, more: str) -> str:
    names = listing.classes
    of = f" of {len(names):,} classes ({folder_layout.some(names)})" if names else ", no labels"
    outer = folder_layout.common_folder(listing.files)
    of += f" (all are in one folder, {outer})" if outer and not names else ""
    return f"{split} of {listing.root}: {len(listing.files):,} images{of}. {more}".strip()


def _held_out(top: pathlib.Path, listing: Listing, split: str) -> Listing:
    """A split of a folder that has none of its own."""
    if split not in SPLITS:
        raise UsageError(f"Unknown split '{split}' of {top}.{config_lib.suggest(split, SPLITS)}")
    if split == "all" or (split == "train" and not listing.classes):
        return listing
    is_test = np.array([_hash(name)[0] < 26 for name in listing.files])  # 26 of 256
    kept = np.flatnonzero(is_test == (split == "test"))
    if not kept.size:
        raise EmptySplitError(
            f"None of the {len(listing.files)} images of {top} falls into '{split}'; "
            "try 'all' for --config.data.train_split or --config.data.eval_split."
        )
    files = tuple(listing.files[i] for i in kept)
    return listing._replace(files=files, labels=listing.labels[kept])


def _label(root: pathlib.Path, files: Sequence[str], classes: folder_layout.Classes) -> Listing:
    """All files in their order, with the numbers of their classes.

    Raises:
      UsageError: a folder that is none of the classes.
    """
    files = sorted(files, key=_hash)
    digest = hashlib.sha256("\n".join(files).encode("utf-8", "surrogateescape")).hexdigest()
    found = Listing(root, tuple(files), np.full(len(files), UNLABELED, np.int32), (), digest[:16])
    owners = _find_owners(files, classes)
    if not classes.names or None in owners:
        return found
    unknown = sorted(set(owners) - set(classes.names))
    if unknown:
        raise UsageError(f"{root} has a class '{unknown[0]}' that 'train' has not.")
    number = {name: i for i, name in enumerate(classes.names)}
    labels = np.array([number[owner] for owner in owners], np.int32)
    return found._replace(labels=labels, classes=classes.names)


def _find_owners(files: Sequence[str], classes: folder_layout.Classes) -> list[str | None]:
    """The folders that are classes: as deep as in the training split, or below an outer one."""
    own = folder_layout.depth(folder_layout.common_folder(files))
    found = [folder_layout.owners(files, depth) for depth in dict.fromkeys((classes.depth, own))]
    return next((owners for owners in found if set(owners) <= set(classes.names)), found[0])


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


class Files:
    """The images of a listing, read one by one, still encoded."""

    def __init__(self, listing: Listing):
        self._listing = listing

    def __len__(self) -> int:
        return len(self._listing.files)

    def read(self, index: int) -> tuple[bytes, int]:
        """The bytes of an image and its label (-1 if there is none).

        Raises:
          images.BadImageError: the file cannot be read, or its name says another format.
          images.ReadError: the system fails.
        """
        name = self._listing.files[index]
        data = image_decoding.read_file(self._listing.root / name)
        named, found = (
            image_decoding.EXTENSIONS[os.path.splitext(name)[1].lower()],
            image_decoding.sniff(data),
        )
        if named != found:
            raise image_decoding.BadImageError(
                f"wrong extension: a {found} file (rename it to use it)"
            )
        return data, int(self._listing.labels[index])

    def label(self, index: int) -> int:
        """The label of an image, -1 if it has none."""
        return int(self._listing.labels[index])

    def file_name(self, index: int) -> str:
        """The path of an image below the folder."""
        return self._listing.files[index]

    def name(self, index: int) -> str:
        """The path of an image."""
        return str(self._listing.root / self._listing.files[index])
