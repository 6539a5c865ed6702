"""From a data set to batches: shuffle, shard, decode, crop, batch, prefetch, resume (Grain).

Images in memory leave as they are and are cropped on the device; encoded ones are decoded once
and both views are cut here. Shapes: b images of a batch, g of a group, S image size.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from byol_jax.data import datasets, host_crops, image_decoding
from byol_jax.host import machine, processes

EPOCHS = 1 << 20  # in place of infinity, for which Grain cannot make batches of one image
GROUP = 64  # images that a thread takes on at a time, if batches can be made of such groups


class TooManyBadImagesError(RuntimeError):
    """More of the training images cannot be used than is allowed."""


class Crop(NamedTuple):
    """How views are cut on the host.

    Attributes:
      size: S.
      area_range: fraction of the image's area, least and most; None: the largest square.
      views: of each image, each with a window of its own.
    """

    size: int
    area_range: tuple[float, float] | None = (0.08, 1.0)
    views: int = 2


class Reading(NamedTuple):
    """How many work at once; decides the speed and never the batches.

    Attributes:
      threads: threads that read and decode, in each worker; 0: as many as there are processors.
      workers: processes of their own to read and decode in; 0: none, only threads.
    """

    threads: int = 0
    workers: int = 0


THREADS_ONLY = Reading()


class TrainBatches:
    """Endless shuffled batches, and the images that could not be used so far.

    Every epoch has its own order, batches cross the borders of epochs, and no image is dropped.
    Processes take turns in one global order, so that their images are disjoint within an epoch
    and together make up all of it. A bad image is replaced by another one, drawn at random. The
    batches depend on the data, the seed and the processes alone, and so do the crops.

    Args:
      data: the split.
      batch_size: images in a batch of this process.
      seed: decides order and crops.
      crop: how to cut views of encoded images; images in memory are not cut.
      reading: threads and processes.
      max_bad_share: of the split's images may be bad before the batches end in an error.
      max_bad: in place of the share, so many of them.
      process_index: which of the processes this is.
      process_count: how many processes share the data.

    Yields:
      In memory: ``{'images': uint8 [b, H, W, 3], 'labels': int32 [b]}``; encoded:
      ``{'view1': uint8 [b, S, S, 3], 'view2': ..., 'labels': ...}``, as many views as the crop has.
      Both have ``'place': int32 [b]``, where each image is in the batch of all processes together.

    Raises:
      TooManyBadImagesError: naming three of them.
      processes.WorkerError: one of the workers is gone.
    """

    def __init__(
        self,
        data: datasets.Dataset,
        *,
        batch_size: int,
        seed: int,
        crop: Crop | None = None,
        reading: Reading = THREADS_ONLY,
        max_bad_share: float = 0.01,
        max_bad: int | None = None,
        process_index: int = 0,
        process_count: int = 1,
    ):
        self._data = data
        self._max_bad = int(max_bad_share * data.num_images) if max_bad is None else max_bad
        self.bad_images: dict[int, str] = {}  # index: reason, in the order they were met
        self._batch_size, self._reading = batch_size, reading
        self._process_index, self._process_count = process_index, process_count
        self._load = functools.partial(
            _load_group, data=data, crop=crop, seed=seed, max_bad=self._max_bad
        )
        self._order = grain.MapDataset.range(data.num_images).seed(seed).shuffle().repeat(EPOCHS)
        self._position = 0  # in the global order
        self._batches = self._start()

    def _start(self) -> Iterator[dict[str, Any]]:
        """Batches from the current position on, as if all before had been drawn."""
        # Every process takes every n-th image of one global order, so that a checkpoint holds a
        # position alone, and any other number of processes can resume from it.
        shard = slice(self._position + self._process_index, None, self._process_count)
        if isinstance(self._data, datasets.ArrayDataset):
            batches = self._order[shard].batch(self._batch_size)
            options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
            gather = functools.partial(_gather, self._data)
            return iter(batches.map(gather).to_iter_dataset(options))
        size = math.gcd(self._batch_size, GROUP)
        numbered = self._order.map_with_index(_with_position)
        groups = numbered[shard].batch(size).map(self._load)
        return iter(_streamed(groups, self._batch_size // size, self._reading))

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        # Grain starts its threads and processes with the first batch.
        born = processes.deaf_children if self._reading.workers else contextlib.nullcontext
        try:
            with born():
                batch = next(self._batches)
        except RuntimeError as error:
            if str(error).startswith("Worker process"):  # Grain's
                raise processes.WorkerError(error) from None
            raise
        self._position += self._batch_size * self._process_count
        for index, reason in batch.pop("bad", ()):
            self.bad_images.setdefault(index, reason)
        if len(self.bad_images) > self._max_bad:
            raise too_many(self._data, self.bad_images)
        place = np.arange(self._batch_size, dtype=np.int32) * self._process_count
        return batch | {"place": place + self._process_index}

    def close(self) -> None:
        """Ends threads and processes."""
        self._batches.close()

    def bad_image_name(self, index: int) -> str:
        """What to call one of ``bad_images``."""
        return self._data.records.name(index)

    def get_state(self) -> dict[str, Any]:
        """Where the batches of all processes stand, to be written as JSON.

        However many processes there were, any other number of them can go on from it.
        """
        return {"images": self._position, "bad": list(self.bad_images.items())}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where ``get_state`` was called."""
        self._batches.close()
        self._position = state["images"]
        self._batches = self._start()
        self.bad_images = dict(map(tuple, state["bad"]))


def first_indices(num_images: int, *, seed: int, count: int, process_count: int = 1) -> list[int]:
    """Which images the first batch of the first process begins with, if none of them is bad."""
    order = grain.MapDataset.range(num_images).seed(seed).shuffle()
    return [int(order[i * process_count % num_images]) for i in range(count)]


def _gather(data: datasets.ArrayDataset, indices: np.ndarray) -> dict[str, np.ndarray]:
    return {"images": data.images[indices], "labels": data.labels[indices]}


def _streamed(
    groups: "grain.MapDataset", groups_in_batch: int, reading: Reading
) -> "grain.IterDataset":
    threads = reading.threads or machine.processors()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    stream = groups.to_iter_dataset(options)
    if reading.workers:
        options = grain.MultiprocessingOptions(num_workers=reading.workers)
        stream = stream.mp_prefetch(options, worker_init_fn=processes.prepare_worker)
    batches = stream.batch(groups_in_batch, batch_fn=_join)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=2)


def _with_position(position: int, index: int) -> np.ndarray:
    return np.array([position, index])


def _load_group(
    numbers: np.ndarray, *, data: datasets.RecordDataset, crop: Crop, seed: int, max_bad: int
) -> dict[str, Any]:
    """The views of each of g images, or of others drawn in place of bad ones.

    Args:
      numbers: [g, 2]: positions in the global order of all epochs, and images there.
      data: where to read.
      crop: how to cut.
      seed: decides, with the position alone, what is drawn for an image.
      max_bad: so many bad images are replaced.
    """
    views = np.empty((crop.views, len(numbers), crop.size, crop.size, 3), np.uint8)
    labels = np.empty(len(numbers), np.int32)
    bad: dict[int, str] = {}
    rng = np.random.Generator(np.random.Philox())
    start = np.random.Philox(key=[seed, 0]).state
    for i, (position, index) in enumerate(numbers.tolist()):
        start["state"]["key"][1] = position
        rng.bit_generator.state = start  # Philox(key=[seed, position]), in a quarter of the time
        uniforms = rng.random((crop.views, 4))
        while True:
            try:
                labels[i] = _load_views(data, index, uniforms, crop, views[:, i])
                break
            except image_decoding.BadImageError as error:
                bad[index] = str(error)
                if len(bad) > max_bad or len(bad) == data.num_images:
                    raise too_many(data, bad) from None
                index = int(rng.integers(data.num_images))
    named = {f"view{number}": view for number, view in enumerate(views, 1)}
    return named | {"labels": labels, "bad": list(bad.items())}


def _load_views(
    data: datasets.RecordDataset, index: int, uniforms: np.ndarray, crop: Crop, out: np.ndarray
) -> int:
    """Writes the views of an image to [views, S, S, 3]; gives its label."""
    encoded, label = data.records.read(index)
    image = image_decoding.EncodedImage(encoded, data.grey_ranges)
    windows = host_crops.draw_windows(uniforms, image, area_range=crop.area_range)
    host_crops.train_views(image, windows, out)
    return label


def _join(groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(groups) == 1:
        return groups[0]
    batch = {
        key: np.concatenate([group[key] for group in groups]) for key in groups[0].keys() - {"bad"}
    }
    return batch | {"bad": [item for group in groups for item in group["bad"]]}


def too_many(data: datasets.RecordDataset, bad: dict[int, str]) -> TooManyBadImagesError:
    """The error that more images are bad than may be, with three of them."""
    examples = bad if len(bad) >= 3 else bad | _find_bad(data)
    lines = [f"\n  {data.records.name(index)}: {reason}" for index, reason in examples.items()]
    return TooManyBadImagesError(
        f"More of the {data.num_images:,} training images cannot be used than data.max_bad_share "
        f"allows. Such as:{''.join(lines[:3])}\n"
        "Mend them, or allow more: rerun the command with a larger --config.data.max_bad_share (a "
        "share, such as 0.05) to resume."
    )


def _find_bad(data: datasets.RecordDataset) -> dict[int, str]:
    """The first five bad ones of the first 1,000 images, to say what is wrong with the data."""
    found: dict[int, str] = {}
    for index in range(min(data.num_images, 1000)):
        if len(found) == 5:  # two of them may be known already
            break
        try:
            image_decoding.EncodedImage(data.records.read(index)[0], data.grey_ranges).decode()
        except image_decoding.BadImageError as error:
            found[index] = str(error)
    return found
