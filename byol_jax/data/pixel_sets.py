"""Sets that know something of every pixel: which there are, and an image with what is known of it.

Shapes: H x W pixels of an image.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import grain
import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets, eval_loader, image_decoding, nyu, pixel_folder, tfds_pixels, voc
from byol_jax.host import machine


class Place(NamedTuple):
    """Where a set is.

    Attributes:
      dir: of sets with a layout of their own.
      images: folder of images.
      targets: folder of masks or depth maps.
      num_classes: of masks in a folder.
    """

    dir: str = ""
    images: str = ""
    targets: str = ""
    num_classes: int = 0


Load = Callable[[Place, str], datasets.RecordDataset]


def _masks(place: Place, split: str) -> datasets.RecordDataset:
    return pixel_folder.load_masks(
        place.images, place.targets, split, num_classes=place.num_classes
    )


LABELED: Mapping[str, Load] = {  # sets of labels, by name
    "voc2012": lambda place, split: voc.load(place.dir, split, year=2012),
    "voc2007": lambda place, split: voc.load(place.dir, split, year=2007),
    "folder": _masks,
}
DEPTHS: Mapping[str, Load] = {  # sets of depth, by name
    "nyu": lambda place, split: nyu.load_labeled(place.dir, split),
    "nyu_h5": lambda place, split: nyu.load_files(place.dir, split),
    "folder": lambda place, split: pixel_folder.load_depths(place.images, place.targets, split),
}


def find(sets: Mapping[str, Load], name: str) -> Load:
    """How a set of `LABELED` or `DEPTHS` is loaded; ``tfds:NAME`` is one of TFDS.

    Raises:
      UsageError: there is none of that name.
    """
    if not name.startswith(tfds_pixels.PREFIX):
        return config_lib.lookup(sets, name, key="data.name")
    tfds_name = name.removeprefix(tfds_pixels.PREFIX)
    if sets is DEPTHS:
        return lambda place, split: tfds_pixels.load_depths(tfds_name, split, data_dir=place.dir)
    return lambda place, split: tfds_pixels.load_masks(
        tfds_name, split, data_dir=place.dir, num_classes=place.num_classes
    )


class Example(NamedTuple):
    """An image with what is known of its pixels.

    Attributes:
      index: in its set.
      pixels: uint8 [H, W, 3].
      target: [H, W]: labels, or depth in meters.
    """

    index: int
    pixels: np.ndarray
    target: np.ndarray


def read_example(data: datasets.RecordDataset, index: int) -> Example:
    """Reads and decodes an image and its target.

    Raises:
      BadImageError: one of them cannot be used, or they are of different sizes.
    """
    encoded, _ = data.records.read(index)
    pixels = image_decoding.EncodedImage(encoded, data.grey_ranges).decode()
    target = data.records.target(index)
    if target.shape != pixels.shape[:2]:
        (height, width), (rows, columns) = pixels.shape[:2], target.shape
        raise image_decoding.BadImageError(
            f"{width} x {height} px, but what is known of its pixels is {columns} x {rows}"
        )
    return Example(index, pixels, target)


def examples(
    data: datasets.RecordDataset,
    bad: eval_loader.BadLimit | None = None,
    read: Callable[[datasets.RecordDataset, int], Any] = read_example,
) -> Iterator[Any]:
    """Every image once, in order, read ahead by threads.

    Args:
      data: the split.
      bad: notes those that cannot be used, which are left out.
      read: gives an `Example`, or one of another kind.

    Raises:
      UsageError: more images cannot be used than may be.
    """
    threads = machine.processors()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    load = functools.partial(_try, read, data)
    stream = grain.MapDataset.range(data.num_images).map(load).to_iter_dataset(options)
    for index, found in enumerate(stream):
        if not isinstance(found, image_decoding.BadImageError):
            yield found
        elif bad is not None:
            bad.note(data.records.name(index), str(found))


def _try(read: Callable[..., Any], data: datasets.RecordDataset, index: int) -> Any:
    """An example, or why there is none."""
    try:
        return read(data, index)
    except image_decoding.BadImageError as error:
        return error
