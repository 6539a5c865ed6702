"""Order, shards and resumption of the training batches; padding of the others."""

import itertools

import numpy as np
import pytest

from byol_jax import datasets, input_pipeline


def numbered(n):
    """Images whose every pixel, and label, is their number."""
    numbers = np.arange(n)
    images = np.broadcast_to(numbers[:, None, None, None], (n, 2, 2, 3)).astype(np.uint8)
    return datasets.Images(images, numbers.astype(np.int32), n)


def labels_of(iterator, batches):
    return np.concatenate([b["labels"] for b in itertools.islice(iterator, batches)])


def make(n=50, batch_size=5, seed=1, **options):
    return input_pipeline.make_train_iterator(
        numbered(n), batch_size=batch_size, seed=seed, **options
    )


def test_every_epoch_shows_every_image_in_another_order():
    labels = labels_of(make(), 20).reshape(2, 50)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(50), (2, 1)))
    assert (labels[0] != labels[1]).sum() > 25


def test_images_and_labels_belong_together():
    batch = next(make())
    np.testing.assert_array_equal(batch["images"][:, 0, 0, 0], batch["labels"])
    assert batch["images"].dtype == np.uint8 and batch["images"].shape == (5, 2, 2, 3)


def test_the_seed_decides_the_order():
    np.testing.assert_array_equal(labels_of(make(), 10), labels_of(make(), 10))
    assert (labels_of(make(), 10) != labels_of(make(seed=2), 10)).any()


def test_nothing_is_dropped_when_the_batch_does_not_divide_the_epoch():
    labels = labels_of(make(n=50, batch_size=7), 50).reshape(7, 50)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(50), (7, 1)))


@pytest.mark.parametrize("stop", [1, 9, 10, 23])
def test_a_restored_iterator_goes_on_where_the_other_was(stop):
    whole = make()
    labels_of(whole, stop)
    state = whole.get_state()
    expected = labels_of(whole, 12)
    resumed = make()
    resumed.set_state(state)
    np.testing.assert_array_equal(labels_of(resumed, 12), expected)


def test_processes_share_an_epoch_without_overlap():
    shards = [
        labels_of(make(n=50, batch_size=5, process_index=i, process_count=2), 5) for i in (0, 1)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), np.arange(50))


def test_eval_batches_hold_every_image_once_and_mark_padding():
    images = numbered(10).images
    batches = list(input_pipeline.eval_batches(images, batch_size=4))
    assert {batch.shape for batch, _ in batches} == {(4, 2, 2, 3)}
    kept = np.concatenate([batch[mask] for batch, mask in batches])
    np.testing.assert_array_equal(kept, images)
