"""Training batches of images with what is known of their pixels: shuffle, cut, prefetch, resume.

Shapes: b images of a batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from byol_jax.data import datasets, image_decoding, pixel_sets, train_loader
from byol_jax.host import machine

# What is learned from an example, of arrays whose shapes are always the same; the generator is one
# of the place in the order of all epochs.
Make = Callable[[pixel_sets.Example, np.random.Generator], dict[str, np.ndarray]]
Read = Callable[[datasets.RecordDataset, int], Any]  # an example, or BadImageError


class PixelBatches:
    """Endless shuffled batches, as `train_loader.TrainBatches`, of examples with targets.

    Args:
      data: the split.
      batch_size: b, images in a batch of this process.
      seed: decides order and cuts.
      make: gives the arrays of an example.
      max_bad: so many images may be bad; others, drawn at random, take their places.
      process_index: which of the processes this is.
      process_count: how many processes share the data.
      read: gives an example, to be handed to ``make``.
      is_stacked: whether arrays of a batch have one shape; else they stay in lists.

    Yields:
      What ``make`` gives, stacked or in lists.

    Raises:
      train_loader.TooManyBadImagesError: naming three of them.
    """

    def __init__(
        self,
        data: datasets.RecordDataset,
        *,
        batch_size: int,
        seed: int,
        make: Make,
        max_bad: int,
        process_index: int = 0,
        process_count: int = 1,
        read: Read = pixel_sets.read_example,
        is_stacked: bool = True,
    ):
        self._data, self._batch_size, self._max_bad = data, batch_size, max_bad
        self.bad_images: dict[int, str] = {}  # index: reason
        self._index, self._count = process_index, process_count
        self._load = functools.partial(
            _load, data=data, seed=seed, make=make, max_bad=max_bad, read=read
        )
        self._stack = functools.partial(_stack, join=np.stack if is_stacked else list)
        endless = grain.MapDataset.range(data.num_images).seed(seed).shuffle()
        self._order = endless.repeat(train_loader.EPOCHS).map_with_index(_with_position)
        self._position = 0  # in the order of all processes
        self._batches = self._start()

    def _start(self) -> Any:
        threads = machine.processors()
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=2 * max(self._batch_size, threads)
        )
        mine = self._order[self._position + self._index :: self._count]
        stream = mine.map(self._load).to_iter_dataset(options)
        batches = stream.batch(self._batch_size, batch_fn=self._stack)
        return iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=2))

    def __iter__(self) -> "PixelBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        batch = next(self._batches)
        self._position += self._batch_size * self._count
        for index, reason in batch.pop("bad"):
            self.bad_images.setdefault(index, reason)
        if len(self.bad_images) > self._max_bad:
            raise train_loader.too_many(self._data, self.bad_images)
        return batch

    def close(self) -> None:
        """Ends threads."""
        self._batches.close()

    def get_state(self) -> dict[str, Any]:
        """Where the batches of all processes stand, to be written as JSON."""
        return {"images": self._position, "bad": list(self.bad_images.items())}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where ``get_state`` was called."""
        self._batches.close()
        self._position = state["images"]
        self.bad_images = dict(map(tuple, state["bad"]))
        self._batches = self._start()


def _with_position(position: int, index: int) -> tuple[int, int]:
    return position, index


def _load(
    numbers: tuple[int, int],
    *,
    data: datasets.RecordDataset,
    seed: int,
    make: Make,
    max_bad: int,
    read: Read,
) -> tuple[dict[str, np.ndarray], list[tuple[int, str]]]:
    """The arrays of an example, or of another in place of a bad one, and the bad ones."""
    position, index = int(numbers[0]), int(numbers[1])
    rng = np.random.Generator(np.random.Philox(key=[seed, position]))
    bad: dict[int, str] = {}
    while True:
        try:
            return make(read(data, index), rng), list(bad.items())
        except image_decoding.BadImageError as error:
            bad[index] = str(error)
            if len(bad) > max_bad or len(bad) == data.num_images:
                raise train_loader.too_many(data, bad) from None
            index = int(rng.integers(data.num_images))


def _stack(examples: Any, *, join: Callable[[list[Any]], Any]) -> dict[str, Any]:
    arrays = {key: join([found[key] for found, _ in examples]) for key in examples[0][0]}
    return arrays | {"bad": [item for _, bad in examples for item in bad]}
