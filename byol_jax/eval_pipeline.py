"""From a data set to batches that are to be measured: every image once, none augmented.

Shapes: b images of a batch, S image size.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import grain
import numpy as np

from byol_jax import config as config_lib
from byol_jax import datasets, host_views, images, machine, records

UsageError = config_lib.UsageError


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
    skip_bad: bool = False,
    share: float = host_views.CENTER_SHARE,
) -> Iterator[EvalBatch]:
    """Every image once, in order, in batches of one size: the last is padded with zeros.

    Args:
      data: the split.
      batch_size: b.
      image_size: of the centre crops of encoded images; images in memory keep their size.
      skip_bad: leave out images that cannot be used.
      share: of the shorter side that is cropped from encoded images.

    Raises:
      UsageError: an image cannot be used, unless they are to be skipped.
    """
    if isinstance(data, datasets.Images):
        for start in range(0, data.num_images, batch_size):
            part = slice(start, start + batch_size)
            pixels = data.images[part]
            indices = np.arange(start, start + len(pixels))
            yield _pad(pixels, data.labels[part], indices, batch_size)
        return
    pending: list[tuple[np.ndarray, int, int]] = []
    for index, example in enumerate(_center_crops(data, image_size, share)):
        if isinstance(example, str):
            if not skip_bad:
                raise UsageError(f"An image that is to be evaluated is bad: {example}.")
            continue
        pending.append((*example, index))
        if len(pending) == batch_size:
            yield _pad(*_columns(pending), batch_size)
            pending = []
    if pending:
        yield _pad(*_columns(pending), batch_size)


def _center_crops(
    data: datasets.Stream, image_size: int, share: float
) -> Iterator[tuple[np.ndarray, int] | str]:
    """Crop and label of every image, or why there is none."""
    threads = machine.processors()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4 * threads, 16))
    load = functools.partial(_load_center, data=data, size=image_size, share=share)
    return iter(grain.MapDataset.range(data.num_images).map(load).to_iter_dataset(options))


def _load_center(
    index: int, *, data: datasets.Stream, size: int, share: float
) -> tuple[np.ndarray, int] | str:
    try:
        encoded, label = data.records.read(index)
        return host_views.center_crop(images.EncodedImage(encoded), size, share=share), label
    except images.BadImageError as error:
        return f"{data.records.name(index)}: {error}"


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

    Encoded images are measured in their centre crops; bad ones are left out.
    """
    moments = np.zeros((2, 3))
    count = 0
    batches = eval_batches(
        data.take(num_images), batch_size=50, image_size=image_size, skip_bad=True
    )
    total = min(num_images, data.num_images)
    title = "mean and standard deviation of the channels"
    with records.progress_bar(total=total, unit="img", title=title, delay=2) as bar:
        for batch in batches:
            pixels = batch.images[batch.mask].reshape(-1, 3) / 255
            moments += pixels.sum(axis=0), (pixels**2).sum(axis=0)
            count += len(pixels)
            bar.update(int(batch.mask.sum()))
    if not count:
        raise UsageError(f"None of the first {num_images} images can be used.")
    mean, square = moments / count
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(mean.round(4).tolist()), tuple(np.maximum(std, 1e-3).round(4).tolist())
