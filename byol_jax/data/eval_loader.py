"""From a data set to batches that are to be measured: every image once, none augmented.

Shapes: b images of a batch, S image size.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import grain
import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets, gray, host_crops, image_decoding
from byol_jax.distributed import multihost
from byol_jax.host import machine
from byol_jax.workdir import console

UsageError = config_lib.UsageError

GRAY_SAMPLE = 1000  # images that the range of grayscale of more than 8 bits is measured on
LEAST_STD = 1e-3  # of a channel: it is divided by it


class BadLimit:
    """Counts images that cannot be used, each once, over all splits that a task measures.

    Args:
      splits: all of them, since the fraction is one of the whole set.
      max_share: of their images may be bad.

    Attributes:
      most: so many may be bad.
      found: names and reasons.
    """

    def __init__(self, splits: Sequence[datasets.Dataset], max_share: float):
        self._num_images = sum(split.num_images for split in splits)
        self.most = int(max_share * self._num_images)
        self.found: dict[str, str] = {}

    def note(self, name: str, reason: str) -> None:
        """Adds an image.

        Raises:
          UsageError: these are more than may be.
        """
        self.found[name] = reason
        self._check()

    def share(self) -> None:
        """Adds what the other processes have found; to be called by all."""
        for other in multihost.gather_json(self.found, what="counting bad images"):
            self.found |= other
        self._check()

    def _check(self) -> None:
        if len(self.found) <= self.most:
            return
        lines = [f"\n  {name}: {reason}" for name, reason in self.found.items()]
        raise UsageError(
            f"More of the {self._num_images:,} images to be measured cannot be used than "
            f"data.max_bad_share allows ({self.most:,}). Such as:{''.join(lines[:3])}\n"
            "Mend or remove them, or allow more: the same command with a larger "
            "--config.data.max_bad_share (a share, such as 0.05)."
        )


class EvalBatch(NamedTuple):
    """Some images of a split; what is missing in the last batch is padding.

    Attributes:
      images: uint8 [b, H, W, 3].
      labels: int32 [b]; -1 without labels.
      mask: bool [b], False for padding.
      indices: int64 [b], where in the split each image is; 0 for padding.
    """

    images: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    indices: np.ndarray


def eval_batches(
    data: datasets.Dataset,
    *,
    batch_size: int,
    image_size: int,
    bad: BadLimit | None = None,
    fraction: float = host_crops.CENTER_SHARE,
) -> Iterator[EvalBatch]:
    """Every image once, in order, in batches of one size: the last is padded with zeros.

    Args:
      data: the split.
      batch_size: b.
      image_size: of the center crops of encoded images; images in memory keep their size.
      bad: notes images that cannot be used, which are left out; None: nobody needs to know.
      fraction: of the shorter side that is cropped from encoded images.

    Raises:
      UsageError: more images cannot be used than may be.
    """
    if isinstance(data, datasets.ArrayDataset):
        for start in range(0, data.num_images, batch_size):
            part = slice(start, start + batch_size)
            pixels = data.images[part]
            indices = np.arange(start, start + len(pixels))
            yield _pad(pixels, data.labels[part], indices, batch_size)
        return
    pending: list[tuple[np.ndarray, int, int]] = []
    for index, example in enumerate(_center_crops(data, image_size, fraction)):
        if isinstance(example, image_decoding.BadImageError):
            if bad is not None:
                bad.note(data.records.name(index), str(example))
            continue
        pending.append((*example, index))
        if len(pending) == batch_size:
            yield _pad(*_columns(pending), batch_size)
            pending = []
    if pending:
        yield _pad(*_columns(pending), batch_size)


def _center_crops(
    data: datasets.RecordDataset, image_size: int, fraction: float
) -> Iterator[tuple[np.ndarray, int] | image_decoding.BadImageError]:
    """Crop and label of every image, or why there is none."""
    threads = machine.processors()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4 * threads, 16))
    load = functools.partial(_load_center, data=data, size=image_size, fraction=fraction)
    return iter(grain.MapDataset.range(data.num_images).map(load).to_iter_dataset(options))


def _load_center(
    index: int, *, data: datasets.RecordDataset, size: int, fraction: float
) -> tuple[np.ndarray, int] | image_decoding.BadImageError:
    try:
        encoded, label = data.records.read(index)
        image = image_decoding.EncodedImage(encoded, data.grey_ranges)
        crop = host_crops.center_crop(image, size, fraction=fraction, is_reduced=data.is_reduced)
        return crop, label
    except image_decoding.BadImageError as error:
        return error


def _columns(examples: list[tuple[np.ndarray, int, int]]) -> tuple[np.ndarray, ...]:
    pixels, labels, indices = zip(*examples, strict=True)
    return np.stack(pixels), np.array(labels, np.int32), np.array(indices)


def _pad(pixels: np.ndarray, labels: np.ndarray, indices: np.ndarray, size: int) -> EvalBatch:
    padding = size - len(pixels)
    mask = np.arange(size) < len(pixels)
    pixels = np.pad(pixels, [(0, padding), (0, 0), (0, 0), (0, 0)])
    return EvalBatch(pixels, np.pad(labels, (0, padding)), mask, np.pad(indices, (0, padding)))


def channel_stats(
    data: datasets.Dataset, *, image_size: int, num_images: int = 1000
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of red, green and blue in [0, 1], over the first images.

    Encoded images are measured in their center crops; bad ones are left out. Of a channel that is
    the same everywhere, the std is taken as `LEAST_STD`.

    Raises:
      UsageError: no image can be used.
    """
    moments = _moments(data, image_size, num_images)
    if moments is None:
        raise UsageError(f"None of the first {num_images} images can be used.")
    mean, square = moments
    std = np.sqrt(np.maximum(square - mean**2, 0))
    _warn_of_constants(std)
    return tuple(mean.round(4).tolist()), tuple(np.maximum(std, LEAST_STD).round(4).tolist())


def channel_means(
    data: datasets.Dataset, *, image_size: int, num_images: int
) -> tuple[float, ...] | None:
    """The means of `channel_stats`; None if no image can be used."""
    moments = _moments(data, image_size, num_images)
    return None if moments is None else tuple(moments[0].tolist())


def _moments(data: datasets.Dataset, image_size: int, num_images: int) -> np.ndarray | None:
    """Means of values and of their squares [2, 3], over the first images that can be used."""
    moments = np.zeros((2, 3))
    count = 0
    batches = eval_batches(data.take(num_images), batch_size=50, image_size=image_size)
    total = min(num_images, data.num_images)
    title = "mean and standard deviation of the channels"
    with console.progress_bar(total=total, unit="img", title=title, delay=2) as bar:
        for batch in batches:
            pixels = batch.images[batch.mask].reshape(-1, 3) / 255
            moments += pixels.sum(axis=0), (pixels**2).sum(axis=0)
            count += len(pixels)
            bar.update(int(batch.mask.sum()))
    return moments / count if count else None


def _warn_of_constants(std: np.ndarray) -> None:
    constant = [name for name, x in zip(("red", "green", "blue"), std, strict=True) if x < 1e-4]
    if constant:
        console.say(
            f"Warning: {', '.join(constant)} is the same in all pixels that were looked at, so "
            f"that {LEAST_STD} is taken for its data.std. Look at the images by configs/preview.py."
        )


def grey_ranges(data: datasets.Dataset) -> gray.Ranges | None:
    """What is black and white in a set's grayscale of more than 8 bits; None if it has none.

    By its first images (`GRAY_SAMPLE`) whose files do not say it; see `gray.range_of`.
    """
    if isinstance(data, datasets.ArrayDataset):
        return None
    count = min(data.num_images, GRAY_SAMPLE)
    return measure_gray(lambda index: data.records.read(index)[0], count)


def measure_gray(read: Callable[[int], bytes], count: int) -> gray.Ranges | None:
    """The same of any encoded images.

    Args:
      read: from an index to an encoded image.
      count: so many are read, from the first on; bad ones do not count.
    """
    samples = collections.defaultdict(list)
    with futures.ThreadPoolExecutor(machine.processors()) as pool:
        for found in pool.map(lambda index: _summarize_gray(read, index), range(count)):
            if found:
                samples[found[0]].append(found[1])
    return {kind: gray.range_of(kind, some) for kind, some in sorted(samples.items())} or None


def _summarize_gray(read: Callable[[int], bytes], index: int) -> tuple[str, gray.Summary] | None:
    try:
        found = image_decoding.EncodedImage(read(index)).unstated_gray()
    except image_decoding.BadImageError:
        return None
    return found and (found[0], gray.summarize(found[1]))
