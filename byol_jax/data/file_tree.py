"""Walks a folder for image files, and counts everything that it leaves out."""

import os
import stat
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from byol_jax import config as config_lib
from byol_jax.data import image_decoding

UsageError = config_lib.UsageError

# What systems put into folders; an image in one of them is not one of the set.
SYSTEM_FOLDERS = ("__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information")
_SYSTEM = "system folder"
_HIDDEN, _SPECIAL, _NO_SUFFIX = "hidden", "no regular file", "without suffix"
_LISTED = 6  # kinds of files that are named in a message


class Tree(NamedTuple):
    """What lies below a folder; paths are relative to it, with forward slashes.

    Attributes:
      files: those whose names end as an image's, in no particular order.
      folders: all that were entered, and those that lead back up.
      left_out: number of other files, by what they are: a suffix, or one of a few words.
    """

    files: list[str]
    folders: list[str]
    left_out: Mapping[str, int]

    def below(self, prefix: str) -> "Tree":
        """The part of the tree below a folder; what was left out is known only of the whole."""
        start = prefix + "/" if prefix else ""
        files, folders = (
            [path[len(start) :] for path in paths if path.startswith(start)]
            for paths in (self.files, self.folders)
        )
        return Tree(files, folders, {})

    def children(self) -> list[str]:
        """The folders of the first level, in order of their names."""
        return sorted(name for name in self.folders if "/" not in name)

    def filled(self) -> set[str]:
        """The folders of the first level that hold an image, at whatever depth."""
        return {name.split("/", 1)[0] for name in self.files if "/" in name}


def walk(top: str) -> Tree:
    """Finds all image files below a folder, however deep.

    Links are followed, except to a folder that they are in. Hidden files and folders, and those of
    `SYSTEM_FOLDERS`, are left out; so is what is no regular file: to read a pipe can take forever.

    Raises:
      UsageError: a folder cannot be read.
    """
    tree = Tree([], [], Counter())
    waiting: list[tuple[str, str, frozenset]] = [(top, "", frozenset())]
    while waiting:
        folder, prefix, above = waiting.pop()
        try:
            status = os.stat(folder)
            identity = (status.st_dev, status.st_ino)
            if identity in above:  # a link that leads back up
                continue
            inside = above | {identity}
            entries = list(os.scandir(folder))
        except OSError as error:
            raise UsageError(f"Cannot read {folder}: {error.strerror}.") from None
        for entry in entries:
            if _is_folder(entry):
                if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
                    tree.left_out[_HIDDEN if entry.name.startswith(".") else _SYSTEM] += 1
                    continue
                tree.folders.append(prefix + entry.name)
                waiting.append((entry.path, f"{prefix}{entry.name}/", inside))
            elif reason := _why_not(entry):
                tree.left_out[reason] += 1
            else:
                tree.files.append(prefix + entry.name)
    return tree


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reading it will say so
        return False


def _why_not(entry: os.DirEntry) -> str:
    """Why an entry that is no folder is no image; empty if its name says that it is one."""
    if entry.name.startswith("."):
        return _HIDDEN
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix not in image_decoding.EXTENSIONS:
        return suffix or _NO_SUFFIX
    try:
        is_special = not entry.is_file() and not stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # a link to nothing or to itself: a bad image, which will be named
        return ""
    return _SPECIAL if is_special else ""


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """A line on files that are not used; images of other formats come first, and by name."""
    unread, others = Counter(), Counter()
    for kind, count in left_out.items():
        found = image_decoding.UNREAD.get(kind)
        if found:
            unread[found] += count
        else:
            others[kind] += count
    kinds = _in_order(others)
    rest = sum(others[kind] for kind in kinds[_LISTED:])
    listed = [f"{others[kind]:,} {kind}" for kind in kinds[:_LISTED]]
    parts = [
        *(f"{unread[kind]:,} {kind.name} (not read: {kind.advice})" for kind in _in_order(unread)),
        ", ".join([*listed, f"{rest:,} others"] if rest else listed),
    ]
    return "; ".join(filter(None, parts))


def _in_order(counts: Mapping[Any, int]) -> list[Any]:
    return sorted(counts, key=lambda kind: (-counts[kind], kind))
