"""Finds the images of a folder, their classes and their splits; reads none of them."""

import hashlib
import os
import pathlib
from typing import NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax import images, records

UsageError = config_lib.UsageError
UNLABELLED = -1
SPLIT_FOLDERS = {  # folders of the top level that are splits, if there is one called "train"
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
SPLITS = ("train", "test", "all")  # of a folder without such folders


class Listing(NamedTuple):
    """The images of one split, in an order that depends on their names alone.

    Attributes:
      root: the folder.
      files: paths below it, with forward slashes.
      labels: [N] int32, the position of an image's folder in ``classes``; -1 without classes.
      classes: names of the subfolders that are classes; empty without labels.
      fingerprint: of the names of all files and so of the split.
    """

    root: pathlib.Path
    files: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    fingerprint: str


def scan(root: str, split: str) -> Listing:
    """Lists the images of a split.

    If all images lie in subfolders, each subfolder of the top is a class, at whatever depth its
    images are; with an image at the top, there are no labels. Hidden files and folders and files
    that have no extension of an image are ignored.

    Splits: the folders ``train``, ``validation`` (also val, valid) and ``test`` if there is a
    ``train``. Else ``all``, ``test`` (about a tenth, by a hash of the name, so that it stays when
    images are added) and ``train``: the rest, or all images if they have no labels, since then
    nothing is measured that they could give away.

    Raises:
      UsageError: no such folder or split, a folder that cannot be read, no image, a class
        without image.
    """
    top = pathlib.Path(root).expanduser()
    if not root or not top.is_dir():
        raise UsageError(f"No folder '{root}': give one of images as --config.data.dir=...")
    inside = _split_folders(top)
    if not inside:
        return _held_out(top, split)
    if split not in inside:
        raise UsageError(f"{top} has no split '{split}'.{config_lib.suggest(split, inside)}")
    listing = _label(top / inside[split], _find(top / inside[split]))
    if split == "train" or not listing.classes:
        return listing
    return _relabel(listing, _label(top / inside["train"], _find(top / inside["train"])).classes)


def _split_folders(top: pathlib.Path) -> dict[str, str]:
    names = [name for name in SPLIT_FOLDERS if (top / name).is_dir()]
    splits = {SPLIT_FOLDERS[name]: name for name in names}
    if "train" not in splits:
        return {}
    if len(splits) < len(names):
        raise UsageError(f"{top} has two folders for one split: {', '.join(names)}. Keep one.")
    return splits


def _held_out(top: pathlib.Path, split: str) -> Listing:
    if split not in SPLITS:
        raise UsageError(f"Unknown split '{split}' of {top}.{config_lib.suggest(split, SPLITS)}")
    listing = _label(top, _find(top))
    if split == "all" or (split == "train" and not listing.classes):
        return listing
    is_test = np.array([_hash(name)[0] < 26 for name in listing.files])  # 26 of 256
    kept = np.flatnonzero(is_test == (split == "test"))
    if not kept.size:
        raise UsageError(
            f"None of the {len(listing.files)} images of {top} falls into '{split}'; "
            "try 'all' for --config.data.train_split or --config.data.eval_split."
        )
    files = tuple(listing.files[i] for i in kept)
    return listing._replace(files=files, labels=listing.labels[kept])


def _find(top: pathlib.Path) -> list[str]:
    """Paths of all images below a folder, and, ending in a slash, of its direct subfolders."""
    found = []

    def walk(folder: str, prefix: str, above: tuple[str, ...]) -> None:
        real = os.path.realpath(folder)
        if real in above:  # a link that leads back up
            return
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise UsageError(f"Cannot read {folder}: {error.strerror}.") from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if not prefix:
                    found.append(f"{entry.name}/")
                walk(entry.path, f"{prefix}{entry.name}/", (*above, real))
            elif os.path.splitext(entry.name)[1].lower() in images.EXTENSIONS:
                found.append(prefix + entry.name)
                bar.update()

    with records.progress_bar(total=None, unit=" files", title=f"listing {top}", delay=2) as bar:
        walk(str(top), "", ())
    return found


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reading it will say so
        return False


def _label(top: pathlib.Path, found: list[str]) -> Listing:
    files = sorted((name for name in found if not name.endswith("/")), key=_hash)
    if not files:
        extensions = ", ".join(images.EXTENSIONS)
        raise UsageError(f"{top} holds no image (files ending in {extensions}).")
    classes = tuple(sorted(name[:-1] for name in found if name.endswith("/")))
    if any("/" not in name for name in files):
        classes = ()
    owners = [name.split("/")[0] for name in files]
    empty = sorted(set(classes) - set(owners))
    if empty:
        raise UsageError(
            f"The class '{empty[0]}' has no image: {top / empty[0]}. Remove the folder or fill it."
        )
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number.get(owner, UNLABELLED) for owner in owners], np.int32)
    digest = hashlib.sha256("\n".join(files).encode("utf-8", "surrogateescape")).hexdigest()
    return Listing(top, tuple(files), labels, classes, digest[:16])


def _relabel(listing: Listing, classes: tuple[str, ...]) -> Listing:
    unknown = sorted(set(listing.classes) - set(classes))
    if unknown:
        raise UsageError(f"{listing.root} has a class '{unknown[0]}' that 'train' has not.")
    number = np.array([classes.index(name) for name in listing.classes], np.int32)
    return listing._replace(labels=number[listing.labels], classes=classes)


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
        """
        name = self._listing.files[index]
        try:
            data = (self._listing.root / name).read_bytes()
        except OSError as error:
            raise images.BadImageError(f"cannot be read: {error.strerror}") from None
        named, found = images.EXTENSIONS[os.path.splitext(name)[1].lower()], images.sniff(data)
        if named != found:
            raise images.BadImageError(f"wrong extension: a {found} file (rename it to use it)")
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
