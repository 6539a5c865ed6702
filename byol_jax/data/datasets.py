"""Where images come from: the embedded set, TFDS sets, folders.

Sets that fit in memory come as arrays, all others as encoded images that are read when needed.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import (
    array_dataset,
    gray,
    image_folder,
    label_table,
    patterns,
    tfds_source,
)
from byol_jax.host import machine

UsageError = config_lib.UsageError
ArrayDataset = array_dataset.ArrayDataset

ARRAYS = "arrays"  # the name of what Python hands over, as a config has it
MEMORY_LIMIT = 4 << 30  # bytes of one split's pixels, above which a set is read from disk


class Records(Protocol):
    """Encoded images that can be read in any order."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[bytes, int]:
        """The file's bytes, and the label or -1."""
        ...

    def label(self, index: int) -> int:
        """The label or -1, without the image where that is quicker."""
        ...

    def file_name(self, index: int) -> str:
        """The file's path below its folder, or empty if it is not known."""
        ...

    def name(self, index: int) -> str:
        """What to call the image in a message."""
        ...

    def multi_labels(self, index: int) -> np.ndarray:
        """int8 [T] as in `tags`; only of a set that has them."""
        ...


class Selected:
    """Some of other records, in an order of their own."""

    def __init__(self, records: Records, indices: np.ndarray):
        self._records, self._indices = records, indices

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> tuple[bytes, int]:
        """The file's bytes, and the label or -1."""
        return self._records.read(int(self._indices[index]))

    def label(self, index: int) -> int:
        """The label or -1."""
        return self._records.label(int(self._indices[index]))

    def file_name(self, index: int) -> str:
        """The file's path below its folder, or empty if it is not known."""
        return self._records.file_name(int(self._indices[index]))

    def name(self, index: int) -> str:
        """What to call the image in a message."""
        return self._records.name(int(self._indices[index]))

    def multi_labels(self, index: int) -> np.ndarray:
        """int8 [T] as in `tags`."""
        return self._records.multi_labels(int(self._indices[index]))

    def target(self, index: int) -> np.ndarray:
        """[H, W] what is known of every pixel; only of a set of `pixel_sets`."""
        return self._records.target(int(self._indices[index]))


class Joined:
    """Some records, and others after them."""

    def __init__(self, first: Records, second: Records):
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def read(self, index: int) -> tuple[bytes, int]:
        """The file's bytes, and the label or -1."""
        records, index = self._find(index)
        return records.read(index)

    def label(self, index: int) -> int:
        """The label or -1."""
        records, index = self._find(index)
        return records.label(index)

    def file_name(self, index: int) -> str:
        """The file's path below its folder, or empty if it is not known."""
        records, index = self._find(index)
        return records.file_name(index)

    def name(self, index: int) -> str:
        """What to call the image in a message."""
        records, index = self._find(index)
        return records.name(index)

    def multi_labels(self, index: int) -> np.ndarray:
        """int8 [T] as in `tags`."""
        records, index = self._find(index)
        return records.multi_labels(index)

    def _find(self, index: int) -> tuple[Records, int]:
        count = len(self._first)
        return (self._first, index) if index < count else (self._second, index - count)


@dataclasses.dataclass(frozen=True, eq=False)
class RecordDataset:
    """One split on disk.

    Attributes:
      records: the encoded images.
      num_images: how many of them to use, from the first on.
      num_classes: number of classes of the data set; 0 if it has no labels.
      fingerprint: differs if the images do, as far as that can be known cheaply.
      num_labels: T, number of classes of a set whose images may have several, instead of a label.
      grey_ranges: what is black and white in grayscale of more than 8 bits, by kind of values; None
        if there is none, or nobody has measured it.
      is_reduced: whether evaluation crops come, as training views do, from large JPEGs decoded at
        1/2, 1/4 or 1/8.
      about: what a person should know of the split; may be empty.
      class_names: of a folder.
    """

    records: Records
    num_images: int
    num_classes: int
    fingerprint: str = ""
    num_labels: int = 0
    grey_ranges: gray.Ranges | None = None
    is_reduced: bool = False
    about: str = ""
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.num_images

    def take(self, n: int) -> "RecordDataset":
        """The first n images."""
        return dataclasses.replace(self, num_images=min(n, self.num_images))

    def select(self, indices: np.ndarray) -> "RecordDataset":
        """Some of the images, in the order given."""
        return dataclasses.replace(
            self, records=Selected(self.records, indices), num_images=len(indices)
        )


Dataset = ArrayDataset | RecordDataset


def multi_labels(data: RecordDataset, indices: np.ndarray) -> np.ndarray:
    """Which of the T classes images have, int8 [n, T]: 1 has, 0 has not, -1 not to be counted."""
    return np.stack([data.records.multi_labels(int(index)) for index in indices])


def with_grey_ranges(data: Dataset, ranges: gray.Ranges | None) -> Dataset:
    """The same images, read with these ranges if they are read from files."""
    return data if isinstance(data, ArrayDataset) else dataclasses.replace(data, grey_ranges=ranges)


def join(first: Dataset, second: Dataset) -> Dataset:
    """All images of one split, then all of another of the same set."""
    if isinstance(first, ArrayDataset):
        pixels = np.concatenate([first.images, second.images])
        return first.replace(images=pixels, labels=np.concatenate([first.labels, second.labels]))
    parts = [split.select(np.arange(split.num_images)).records for split in (first, second)]
    return dataclasses.replace(
        first, records=Joined(*parts), num_images=len(parts[0]) + len(parts[1])
    )


def load(
    name: str, split: str, *, data_dir: str | None = None, labels: str = label_table.FOLDERS
) -> Dataset:
    """Opens one split.

    Args:
      name: a name in `DATASETS`, or ``tfds:NAME`` for any other TFDS image set.
      split: depends on the set: `patterns.SPLITS`, those of `image_folder.scan`, or a TFDS split
        expression such as ``train[:90%]``.
      data_dir: the folder of images, or TFDS's folder of prepared sets; empty or None means
        $TFDS_DATA_DIR or TFDS's default.
      labels: of a folder, as `image_folder.scan` takes them.

    Raises:
      UsageError: unknown set or split, a set that is not prepared, labels out of range.
    """
    if data_dir:
        config_lib.require_local(data_dir, flag="--config.data.dir")
    if name == ARRAYS:
        raise UsageError(
            "These images are arrays that Python handed over, and in no file: give another set by "
            "--config.data.name, or call byol_jax.evaluate.knn(encoder, train, test)."
        )
    if name == "folder":
        return _load_folder(split, data_dir, labels)
    if labels != label_table.FOLDERS:
        raise UsageError(
            f"--config.data.labels={labels} is for images in a folder, not for '{name}': leave it "
            "out, or add --config.data.name=folder."
        )
    if name.startswith("tfds:"):
        return _load_tfds(name.removeprefix("tfds:"), split, data_dir)
    if name not in DATASETS:
        hint = config_lib.suggest(name, DATASETS)
        raise UsageError(f"Unknown data.name: '{name}'.{hint} Other TFDS sets: tfds:<name>.")
    return DATASETS[name](name, split, data_dir)


def class_names(data: Dataset, name: str, data_dir: str | None) -> list[str]:
    """What the classes of a set are called; by number if nobody has named them.

    Args:
      data: a split of it.
      name: as in `load`.
      data_dir: as in `load`.
    """
    num_classes = data.num_classes or getattr(data, "num_labels", 0)
    if data.class_names:
        names = data.class_names
    elif name == "patterns":
        names = patterns.CLASS_NAMES
    elif DATASETS.get(name, _load_tfds) is not _load_tfds or name == ARRAYS:
        names = ()
    else:
        names = tfds_source.open_set(name.removeprefix("tfds:"), data_dir).class_names
    if len(names) != num_classes:
        return [str(number) for number in range(num_classes)]
    return [str(class_name) for class_name in names]


def _as_text(names: Iterable[str]) -> tuple[str, ...]:
    """Names of folders can be bytes that are no text; what is shown cannot."""
    return tuple(os.fsencode(name).decode("utf-8", "backslashreplace") for name in names)


def _load_patterns(name: str, split: str, data_dir: str | None) -> ArrayDataset:
    del name, data_dir
    return ArrayDataset(*patterns.load(split), len(patterns.CLASS_NAMES))


def _load_folder(
    split: str, data_dir: str | None, labels: str = label_table.FOLDERS
) -> RecordDataset:
    return of_listing(image_folder.scan(data_dir or "", split, labels))


def of_listing(listing: image_folder.Listing) -> RecordDataset:
    """The images of a folder."""
    return RecordDataset(
        image_folder.Files(listing),
        len(listing.files),
        len(listing.classes),
        listing.fingerprint,
        about=listing.about,
        class_names=_as_text(listing.classes),
    )


def _load_tfds(name: str, split: str, data_dir: str | None) -> Dataset:
    tfds_set = tfds_source.open_set(name, data_dir)
    records = tfds_source.Records(tfds_set, split)
    shape, num_classes = tfds_set.image_shape, tfds_set.num_classes
    if None in shape or not num_classes or len(records) * math.prod(shape) > MEMORY_LIMIT:
        return RecordDataset(records, len(records), num_classes, num_labels=tfds_set.num_labels)
    _require_memory(len(records) * math.prod(shape), f"{name} ({split})")
    try:
        return ArrayDataset(*tfds_source.load(tfds_set, split), num_classes)
    except ValueError as error:
        raise UsageError(f"{name} ({split}): {error}") from None


def _require_memory(needed: int, what: str) -> None:
    available = machine.available_memory()
    if available is not None and needed > available:
        raise UsageError(
            f"The images of {what} take {needed / 2**30:.1f} GiB in memory, of which this process "
            f"may have {available / 2**30:.1f} GiB: give it more, or a smaller split, such as "
            "--config.data.train_split='train[:10%]'."
        )


# TFDS's sets are those that an error message should suggest; all others work as 'tfds:<name>'.
DATASETS: dict[str, Callable[[str, str, str | None], Dataset]] = {
    "patterns": _load_patterns,
    "folder": lambda name, split, data_dir: _load_folder(split, data_dir),
    "imagenet2012": _load_tfds,
    "imagenette/160px-v2": _load_tfds,
    "cifar10": _load_tfds,
    "cifar100": _load_tfds,
    "svhn_cropped": _load_tfds,
    "mnist": _load_tfds,
    "fashion_mnist": _load_tfds,
    "stl10": _load_tfds,
}


def hold_out(data: Dataset, every: int = 10) -> tuple[Dataset, Dataset]:
    """All images but every tenth, and those.

    Raises:
      UsageError: there are too few, or they are mapped from a file, of which all would be read.
    """
    if isinstance(getattr(data, "images", None), np.memmap):
        raise UsageError("Give test=, too: holding images out of a memmap would read all of it.")
    is_test = np.arange(len(data)) % every == every - 1
    if not is_test.any():
        raise UsageError(f"{len(data)} images are too few to hold some out: give test=, too.")
    return data.select(np.flatnonzero(~is_test)), data.select(np.flatnonzero(is_test))
