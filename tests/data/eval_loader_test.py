"""Evaluation batches, and statistics of the channels."""

import numpy as np
import pytest

from byol_jax.data import datasets, eval_loader, host_crops, image_decoding
from tests.support.streams import FILES, Encoded, N, numbered, stream, with_bad

SIZE = 12  # of the center crops


def evaluate(data, batch_size=5, **options):
    return list(eval_loader.eval_batches(data, batch_size=batch_size, image_size=SIZE, **options))


def kept(batches):
    """Images and labels without padding."""
    return (
        np.concatenate([batch.images[batch.mask] for batch in batches]),
        np.concatenate([batch.labels[batch.mask] for batch in batches]),
    )


def center_crops(files):
    return np.stack(
        [host_crops.center_crop(image_decoding.EncodedImage(file), SIZE) for file in files]
    )


@pytest.mark.parametrize("batch_size", [1, 4, 5, 10, 16])
def test_eval_batches_hold_every_image_once_and_mark_padding(batch_size):
    data = numbered(10)
    batches = evaluate(data, batch_size)
    assert {batch.images.shape for batch in batches} == {(batch_size, 2, 2, 3)}
    assert {batch.labels.shape for batch in batches} == {(batch_size,)}
    pixels, labels = kept(batches)
    np.testing.assert_array_equal(pixels, data.images)
    np.testing.assert_array_equal(labels, data.labels)
    assert all((batch.images[~batch.mask] == 0).all() for batch in batches)


@pytest.mark.parametrize("batch_size", [7, 8, 64])
def test_encoded_images_are_evaluated_in_order_in_their_center_crops(batch_size):
    batches = evaluate(stream(FILES), batch_size)
    assert {batch.images.shape for batch in batches} == {(batch_size, SIZE, SIZE, 3)}
    assert len(batches) == -(-N // batch_size)
    pixels, labels = kept(batches)
    np.testing.assert_array_equal(labels, np.arange(N))
    np.testing.assert_array_equal(pixels, center_crops(FILES))
    assert pixels.dtype == np.uint8 and labels.dtype == np.int32


def test_a_bad_image_to_evaluate_is_an_error_that_names_it():
    data = stream(with_bad(7))
    with pytest.raises(eval_loader.UsageError, match="file 7: not an image"):
        evaluate(data, bad=eval_loader.BadLimit([data], 0.01))


def test_a_constant_channel_is_named(capsys):
    pixels = np.full((3, 8, 8, 3), 7, np.uint8)
    pixels[:, :4, :, :2] = 200
    data = datasets.ArrayDataset(pixels, np.zeros(3, np.int32), 1)
    _, std = eval_loader.channel_stats(data, image_size=8)
    assert std[2] == 0.001 and "blue is the same in all pixels" in capsys.readouterr().err


def test_an_image_that_is_met_again_counts_once():
    data = stream(with_bad(7))
    limit = eval_loader.BadLimit([data, data], 0.02)
    for _ in range(2):
        evaluate(data, bad=limit)
    assert limit.most == 1 and limit.found == {"file 7": limit.found["file 7"]}


@pytest.mark.parametrize("bad", [(7,), (0, N - 1), tuple(range(N))])
def test_bad_images_can_be_left_out_of_an_evaluation(bad):
    batches = evaluate(stream(with_bad(*bad)))
    good = [index for index in range(N) if index not in bad]
    assert [batch.mask.sum() for batch in batches] == [
        min(5, len(good) - start) for start in range(0, len(good), 5)
    ]
    if good:
        pixels, labels = kept(batches)
        np.testing.assert_array_equal(labels, good)
        np.testing.assert_array_equal(pixels, center_crops([FILES[index] for index in good]))


def test_images_without_labels_are_evaluated_with_minus_one():
    records = Encoded(FILES)
    records.read = lambda index: (FILES[index], -1)
    _, labels = kept(evaluate(datasets.RecordDataset(records, N, 0)))
    np.testing.assert_array_equal(labels, np.full(N, -1))


# Statistics of the channels.


def test_channel_stats_equal_numpy():
    pixels = np.random.RandomState(0).randint(0, 256, (120, 6, 6, 3)).astype(np.uint8)
    pixels[..., 1] //= 2
    data = datasets.ArrayDataset(pixels, np.zeros(120, np.int32), 1)
    mean, std = eval_loader.channel_stats(data, image_size=SIZE)
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)) / 255, atol=1e-4)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)) / 255, atol=1e-4)
    first, _ = eval_loader.channel_stats(data, image_size=SIZE, num_images=7)
    np.testing.assert_allclose(first, pixels[:7].mean((0, 1, 2)) / 255, atol=1e-4)


def test_channel_stats_of_encoded_images_are_those_of_their_good_center_crops():
    mean, std = eval_loader.channel_stats(stream(with_bad(2, 3)), image_size=SIZE)
    crops = center_crops(FILES[:2] + FILES[4:])
    np.testing.assert_allclose(mean, crops.mean((0, 1, 2)) / 255, atol=1e-4)
    np.testing.assert_allclose(std, crops.std((0, 1, 2)) / 255, atol=1e-4)


def test_channels_that_are_constant_do_not_get_a_std_of_zero():
    data = datasets.ArrayDataset(np.full((3, 4, 4, 3), 9, np.uint8), np.zeros(3, np.int32), 1)
    mean, std = eval_loader.channel_stats(data, image_size=SIZE)
    assert min(std) > 0 and mean == pytest.approx([9 / 255] * 3, abs=1e-4)


def test_channel_stats_of_bad_images_alone_are_an_error():
    with pytest.raises(eval_loader.UsageError, match="None of the first"):
        eval_loader.channel_stats(stream([b"text"] * N), image_size=SIZE)
