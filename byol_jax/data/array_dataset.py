"""Images in memory, or in an array on disk, as training and evaluation take them.

Shapes: N images of H x W pixels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from byol_jax.data import image_arrays


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Images of one size, and their labels if there are any; `len` is the number of images.

    Args:
      images: uint8 RGB [N, H, W, 3]: a NumPy array; a `numpy.memmap`, which is read batch by batch;
        or any sequence (``__len__`` and ``__getitem__``, as Grain's sources have them) of uint8
        images [H, W, 3] of one size, which is read once, into memory.
      labels: N integers from 0 on, -1 for an image without a label; None: no image has one.
      num_classes: number of classes, also of those absent here; None: as many as there are class
        names, or else as the largest label asks for.
      class_names: what classes 0, 1, 2, ... are called.

    Attributes:
      images: [N, H, W, 3] uint8, RGB.
      labels: [N] int32 in [0, num_classes), or -1 without.
      num_classes: number of classes; 0 if no image has a label.
      class_names: as given; empty if nobody has named them.
      fingerprint: differs if the images do; empty where name and split of a set say it all.

    Raises:
      ValueError: saying what is wrong with the images or labels, and how to convert them.

    >>> import numpy as np
    >>> from byol_jax import ArrayDataset
    >>> data = ArrayDataset(np.zeros((3, 32, 32, 3), np.uint8), labels=[0, 1, -1])
    >>> len(data), data.num_classes
    (3, 2)
    """

    images: np.ndarray
    labels: np.ndarray | Sequence[int] | None = None
    num_classes: int | None = None
    class_names: Sequence[str] = ()
    fingerprint: str = ""

    def __post_init__(self):
        images = _as_images(self.images)
        labels = _as_labels(self.labels, len(images))
        names = tuple(map(str, self.class_names or ()))
        number = self._number_of_classes(labels, names)
        _require_in_range(labels, number)
        labels = labels.astype(np.int32)
        values = {"images": images, "labels": labels, "num_classes": number, "class_names": names}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _number_of_classes(self, labels: np.ndarray, names: tuple[str, ...]) -> int:
        number = self.num_classes
        if number is None:
            number = len(names) or (int(labels.max()) + 1 if len(labels) else 0)
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            raise ValueError(
                f"num_classes must be a whole number, not {number!r}. Names of classes are given "
                "as class_names=[...]."
            )
        if names and len(names) != number:
            raise ValueError(f"{number} classes need as many class_names; there are {len(names)}.")
        return int(number)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.images)

    @property
    def num_labels(self) -> int:
        """Each image has one label."""
        return 0

    @property
    def about(self) -> str:
        """Nothing to tell."""
        return ""

    def replace(self, **changes: Any) -> "ArrayDataset":
        """The same with other values of some attributes."""
        return dataclasses.replace(self, **changes)

    def take(self, n: int) -> "ArrayDataset":
        """The first n images."""
        return self.replace(images=self.images[:n], labels=self.labels[:n])

    def select(self, indices: np.ndarray) -> "ArrayDataset":
        """Some of the images, in the order given."""
        return self.replace(images=self.images[indices], labels=self.labels[indices])


def _as_images(images: Any) -> np.ndarray:
    if not hasattr(images, "dtype") or not hasattr(images, "shape"):
        images = _read_all(images)
    elif not isinstance(images, np.ndarray):  # such as an array of JAX
        images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8 [N, H, W, 3], not {images.dtype} {images.shape}."
            f"{image_arrays.how_to_convert(images)}"
        )
    if 0 in images.shape[1:]:
        raise ValueError(f"images have no pixels: their shape is {list(images.shape)}.")
    return images


def _read_all(images: Any) -> np.ndarray:
    """All images of a sequence; it is read item by item, and each is checked."""
    try:
        count = len(images)
    except TypeError:
        raise ValueError(
            f"images must be an array or a sequence with __len__ and __getitem__, not "
            f"{type(images).__name__}."
        ) from None
    if not count:
        raise ValueError("images is empty: at least one image is needed.")
    whole = None
    for index in range(count):
        image = np.asarray(images[index])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(
                f"Image {index} must be uint8 [H, W, 3], not {image.dtype} {image.shape}."
            )
        if whole is None:
            whole = np.empty((count, *image.shape), np.uint8)
        if image.shape != whole.shape[1:]:
            raise ValueError(
                f"Image {index} is {image.shape}, image 0 {whole.shape[1:]}: resize all to one "
                "size."
            )
        whole[index] = image
    return whole


def _as_labels(labels: Any, count: int) -> np.ndarray:
    if labels is None:
        return np.full(count, -1, np.int32)
    labels = np.asarray(labels)
    if not labels.size:
        labels = labels.astype(np.int32)
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise ValueError(
            f"labels must be {count} integers, -1 for none, not {labels.dtype} {labels.shape}. Of "
            "names make numbers: class_names, labels = np.unique(names, return_inverse=True)."
        )
    if len(labels) != count:
        raise ValueError(f"{count} images need as many labels; there are {len(labels)}.")
    return labels


def _require_in_range(labels: np.ndarray, num_classes: int) -> None:
    bad = np.flatnonzero((labels < -1) | (labels >= num_classes))
    if bad.size:
        raise ValueError(
            f"labels must be in [0, {num_classes}), or -1 for none; {bad.size} of them are out of "
            f"range, such as {labels[bad[0]]} at image {bad[0]}."
        )
