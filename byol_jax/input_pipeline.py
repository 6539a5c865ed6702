"""From a data set to batches: shuffle, shard by process, batch, prefetch, resume (Grain)."""

from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from byol_jax import datasets


def make_train_iterator(
    data: datasets.Images,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> "grain.DatasetIterator":
    """Endless shuffled batches; every epoch has its own order, and no image is dropped.

    Batches cross the borders of epochs. Processes take turns in one global order, so that their
    images are disjoint within an epoch and together make up all of it.

    Args:
      data: the split, in memory.
      batch_size: images in a batch of this process.
      seed: decides the order.
      process_index: which of the processes this is.
      process_count: how many processes share the data.

    Returns:
      An iterator over ``{'images': uint8 [b, H, W, 3], 'labels': int32 [b]}`` with
      ``get_state()`` and ``set_state()``; the state is small and can be written as JSON.
    """

    def gather(indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"images": data.images[indices], "labels": data.labels[indices]}

    order = grain.MapDataset.range(len(data.images)).seed(seed).shuffle().repeat()
    batches = order[process_index::process_count].batch(batch_size).map(gather)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def eval_batches(images: np.ndarray, *, batch_size: int) -> Iterator[tuple[np.ndarray, Any]]:
    """Every image once, in order, in batches of one size: the last is padded with zeros.

    Yields:
      ([b, H, W, 3] images, [b] bool mask that is False for padding).
    """
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padding = batch_size - len(batch)
        mask = np.arange(batch_size) < len(batch)
        yield np.pad(batch, [(0, padding), (0, 0), (0, 0), (0, 0)]), mask
