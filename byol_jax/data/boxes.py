"""Sets that know where the objects of an image are: which there are, and what is read of an image.

Shapes: M objects of an image. A box is [left, top, right, bottom] in pixels, of which the first
begins at 0.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from byol_jax.data import datasets, eval_loader, image_decoding, image_files
from byol_jax.host import machine

BadImageError = image_decoding.BadImageError

OVERHANG = 1.0  # px that a box may reach out of its image, which rounding does; it is cut off


class Annotation(NamedTuple):
    """The objects of an image.

    Attributes:
      box: float32 [M, 4].
      label: int64 [M], from 0.
      difficult: bool [M]: neither asked for nor wrong when it is tested; COCO's crowds.
      is_learned: bool [M]: whether a detector learns from it.
    """

    box: np.ndarray
    label: np.ndarray
    difficult: np.ndarray
    is_learned: np.ndarray


class Example(NamedTuple):
    """An image with its objects.

    Attributes:
      index: in its set.
      pixels: uint8 [H, W, 3].
      target: inside of the image.
    """

    index: int
    pixels: np.ndarray
    target: Annotation


class Place(NamedTuple):
    """An image and where its objects are read from."""

    image: str
    name: str
    read: Callable[[], Annotation]


class AnnotatedFiles:
    """Images in files, each with the objects in it.

    Args:
      places: of all images.
    """

    def __init__(self, places: Sequence[Place]):
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, index: int) -> tuple[bytes, int]:
        """The bytes of an image, and -1: it has no label as a whole."""
        return image_files.read(self._places[index].image), -1

    def target(self, index: int) -> Annotation:
        """The objects of an image.

        Raises:
          BadImageError: the annotation is missing, damaged, or means nothing; names the file.
        """
        return self._places[index].read()

    def label(self, index: int) -> int:
        """-1."""
        return -1

    def file_name(self, index: int) -> str:
        """The image's name."""
        return self._places[index].name

    def name(self, index: int) -> str:
        """The path of an image."""
        return self._places[index].image


class BoxSplit(NamedTuple):
    """A split and the names of its classes."""

    data: datasets.RecordDataset
    classes: tuple[str, ...]


def make_annotation(rows: Sequence[tuple], *, learns_difficult: bool) -> Annotation:
    """Objects from rows (box, label, difficult)."""
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in rows], np.int64)
    difficult = np.array([is_difficult for *_, is_difficult in rows], bool)
    return Annotation(boxes, labels, difficult, learns_difficult | ~difficult)


def inside(target: Annotation, height: int, width: int) -> Annotation:
    """The same objects, cut to the image.

    Raises:
      BadImageError: a box has no area, or is not of this image.
    """
    box = target.box
    is_empty = ~((box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]))
    edge = np.array([width, height, width, height], np.float32)
    is_outside = ((box < -OVERHANG) | (box > edge + OVERHANG)).any(axis=1)
    cut = np.clip(box, 0, edge)
    is_outside |= ~is_empty & ((cut[:, 2:] <= cut[:, :2]).any(axis=1))
    for wrong, what in ((is_empty, "has no area"), (is_outside, "lies outside of the image")):
        if wrong.any():
            found = ", ".join(f"{value:g}" for value in box[wrong][0])
            raise BadImageError(f"the box [{found}] {what} of {width} x {height} px")
    return target._replace(box=cut)


def read_example(data: datasets.RecordDataset, index: int) -> Example:
    """Reads and decodes an image, and reads its objects.

    Raises:
      BadImageError: one of them cannot be used, or they do not belong together.
    """
    encoded, _ = data.records.read(index)
    pixels = image_decoding.EncodedImage(encoded, data.grey_ranges).decode()
    return Example(index, pixels, inside(data.records.target(index), *pixels.shape[:2]))


def check(data: datasets.RecordDataset, bad: eval_loader.BadLimit) -> dict[int, Annotation]:
    """The objects of every image that can be used, whose header alone is read.

    Args:
      data: the split.
      bad: notes images that cannot be used, which are left out.

    Raises:
      UsageError: these are more than may be.
    """

    def look(index: int) -> Annotation | BadImageError:
        try:
            encoded, _ = data.records.read(index)
            image = image_decoding.EncodedImage(encoded, data.grey_ranges)
            return inside(data.records.target(index), image.height, image.width)
        except BadImageError as error:
            return error

    found = {}
    with futures.ThreadPoolExecutor(machine.processors()) as pool:
        for index, target in enumerate(pool.map(look, range(data.num_images))):
            if isinstance(target, Annotation):
                found[index] = target
            else:
                bad.note(data.records.name(index), str(target))
    return found


Load = Callable[[str, str], BoxSplit]
Sets = Mapping[str, Load]
