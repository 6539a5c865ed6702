"""What the subfolders of a folder of images are: outer folders, splits, classes."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from byol_jax import config as config_lib
from byol_jax.data import file_tree, image_decoding

UsageError = config_lib.UsageError

SPLIT_FOLDERS = {  # names of folders that can be splits, in any case
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

# What may follow such a name: train_set, train_images, train2017.
_ENDING = re.compile(r"[-_ ]?(set|data|images|split|\d{4})$")

SHOWN = 5  # names in a message


class Classes(NamedTuple):
    """Folders that are classes.

    Attributes:
      names: sorted; empty if there are no labels.
      depth: of the folders, 0 for those of the top.
    """

    names: tuple[str, ...]
    depth: int


class Layout(NamedTuple):
    """A folder that has been walked.

    Attributes:
      top: the folder.
      tree: all that is below it.
      prefix: of the folder that holds splits or classes, relative to ``top``.
      splits: split to its folder in there; empty if there are none.
    """

    top: pathlib.Path
    tree: file_tree.Tree
    prefix: str
    splits: Mapping[str, str]

    def root(self, split: str) -> pathlib.Path:
        """The folder of a split."""
        return self.top / self.prefix / self.splits[split]

    def files(self, split: str) -> list[str]:
        """Images of a split, relative to its folder.

        Raises:
          UsageError: there is none.
        """
        files = self.tree.below(_join(self.prefix, self.splits[split])).files
        if not files:
            raise UsageError(f"{self.root(split)} holds no image.")
        return files

    def filled_splits(self) -> list[str]:
        """Those splits whose folders hold images."""
        filled = self.tree.below(self.prefix).filled()
        return [split for split, name in self.splits.items() if name in filled]

    def classes(self) -> Classes:
        """Those of the training images if they have a folder, or else of all images."""
        if not self.splits:
            return find_classes(self.tree.files)
        splits = self.filled_splits()
        if "train" in splits:
            return find_classes(self.files("train"))
        found = [find_classes(self.files(split)) for split in splits]
        names = set().union(*(classes.names for classes in found))
        if not all(classes.names for classes in found):
            return Classes((), 0)
        return Classes(tuple(sorted(names)), found[0].depth)


def open_layout(root: str) -> Layout:
    """Walks a folder and finds its splits, passing through outer folders that hold everything.

    Folders are splits if those of two or more different splits (`SPLIT_FOLDERS`) are side by side,
    or if the only folder with images is called by a name of ``train``. So a folder called
    ``train`` beside others that are no splits is a class, and others beside ``train`` and ``test``
    are left out.

    Raises:
      UsageError: no such folder, one that cannot be read, no image, two folders for one split.
    """
    top = pathlib.Path(root).expanduser()
    if not root or not top.is_dir():
        raise UsageError(f"No folder '{root}': give one of images as --config.data.dir=...")
    tree = file_tree.walk(str(top))
    if not tree.files:
        extensions = ", ".join(image_decoding.EXTENSIONS)
        left_out = file_tree.describe_left_out(tree.left_out)
        found = f" It holds {left_out}." if left_out else ""
        raise UsageError(f"{top} holds no image (files ending in {extensions}).{found}")
    prefix, common = "", common_folder(tree.files)
    while True:
        splits = _find_splits(top / prefix, tree.below(prefix))
        if splits or len(prefix) == len(common):
            return Layout(top, tree, prefix, splits)
        end = common.find("/", len(prefix) + 1)
        prefix = common if end < 0 else common[:end]


def _join(*parts: str) -> str:
    return "/".join(filter(None, parts))


def common_folder(files: Sequence[str]) -> str:
    """The deepest folder that all of these files are in; empty if it is the top."""
    folders = [name.split("/")[:-1] for name in files]
    first, last = min(folders), max(folders)
    same = [a == b for a, b in zip(first, last, strict=False)]
    return "/".join(first[: [*same, False].index(False)])


def depth(folder: str) -> int:
    """How many folders deep it is; 0: the top."""
    return folder.count("/") + 1 if folder else 0


def owners(files: Sequence[str], depth: int) -> list[str | None]:
    """The folder at a depth that each file is in; None for a file that lies above."""
    parts = (name.split("/") for name in files)
    return [part[depth] if len(part) > depth + 1 else None for part in parts]


def find_classes(files: Sequence[str]) -> Classes:
    """The folders below the common one; none if there is an image beside them."""
    below = depth(common_folder(files))
    found = set(owners(files, below))
    return Classes(() if None in found else tuple(sorted(found)), below)


def _split_of(name: str) -> str | None:
    return SPLIT_FOLDERS.get(_ENDING.sub("", name.lower()))


def _find_splits(top: pathlib.Path, tree: file_tree.Tree) -> dict[str, str]:
    """Split to its folder, in the order of `SPLIT_FOLDERS`; empty if folders are no splits."""
    filled, children = tree.filled(), tree.children()
    named = [name for name in children if _split_of(name)]
    if not filled <= set(named):  # then only those with images tell
        named = [name for name in named if name in filled]
    splits = {_split_of(name) for name in named}
    are_alone = filled <= set(named) and (splits == {"train"} or len(filled) > 1)
    if not filled.intersection(named) or not (len(splits) > 1 or are_alone):
        return {}
    found: dict[str, str] = {}
    for name in sorted(named, key=filled.__contains__):  # those without images give way
        twice = found.get(_split_of(name))
        if name in filled and twice in filled:
            raise UsageError(
                f"{top} has two folders for one split: {twice}, {name}. Keep one, or merge them."
            )
        found[_split_of(name)] = name
    return {split: found[split] for split in SPLIT_FOLDERS.values() if split in found}


def describe(layout: Layout) -> str:
    """What was taken for splits, and what was left out; empty if there is nothing to tell."""
    folders = ", ".join(f"{name} ({split})" for split, name in layout.splits.items())
    left_out = file_tree.describe_left_out(layout.tree.left_out)
    unused = some(_unused(layout))
    parts = [
        f"Folders that are splits: {folders}." if folders else "",
        f"Folders left out, without images for it: {unused}." if unused else "",
        f"Files left out: {left_out}." if left_out else "",
    ]
    return " ".join(filter(None, parts))


def _unused(layout: Layout) -> list[str]:
    """Folders of which no image is used, at the level of splits and at that of classes."""
    inside = layout.tree.below(layout.prefix)
    used = set(layout.splits.values()) or inside.filled()
    unused = [name for name in inside.children() if name not in used]
    for folder in layout.splits.values():
        below = inside.below(folder)
        prefix = common_folder(below.files) if below.files else ""
        classes = below.below(prefix)
        empty = (name for name in classes.children() if name not in classes.filled())
        unused += [_join(folder, prefix, name) for name in empty]
    return [_join(layout.prefix, name) for name in unused]


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
