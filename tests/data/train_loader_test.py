"""Order, crops, shards and resumption of training batches; bad images."""

import itertools
import json
import threading

import numpy as np
import pytest

from byol_jax.data import datasets, image_decoding, train_loader
from tests.support.samples import encode
from tests.support.streams import FILES, Encoded, N, numbered, stream, with_bad

SIZE = 12  # of the views


def take(batches, n):
    """The next n batches, as one."""
    parts = list(itertools.islice(batches, n))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def labels_of(batches, n):
    return take(batches, n)["labels"]


OPEN = []


@pytest.fixture(autouse=True)
def close_batches():
    """Ends the threads of a test before the next one."""
    yield
    while OPEN:
        OPEN.pop().close()


def train_batches(data, **options):
    OPEN.append(train_loader.TrainBatches(data, **options))
    return OPEN[-1]


def make(n=50, batch_size=5, seed=1, **options):
    return train_batches(numbered(n), batch_size=batch_size, seed=seed, **options)


# Images in memory.


def test_every_epoch_shows_every_image_in_another_order():
    labels = labels_of(make(), 20).reshape(2, 50)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(50), (2, 1)))
    assert (labels[0] != labels[1]).sum() > 25


def test_images_and_labels_belong_together():
    batch = next(make())
    assert batch.keys() == {"images", "labels", "place"}
    np.testing.assert_array_equal(batch["images"][:, 0, 0, 0], batch["labels"])
    assert batch["images"].dtype == np.uint8 and batch["images"].shape == (5, 2, 2, 3)


def test_the_seed_decides_the_order():
    np.testing.assert_array_equal(labels_of(make(), 10), labels_of(make(), 10))
    assert (labels_of(make(), 10) != labels_of(make(seed=2), 10)).any()


def test_nothing_is_dropped_when_the_batch_does_not_divide_the_epoch():
    labels = labels_of(make(n=50, batch_size=7), 15)[:100].reshape(2, 50)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(50), (2, 1)))


@pytest.mark.parametrize("stop", [1, 9, 10, 23])
def test_a_restored_iterator_goes_on_where_the_other_was(stop):
    whole = make()
    labels_of(whole, stop)
    state = json.loads(json.dumps(whole.get_state()))
    expected = labels_of(whole, 12)
    resumed = make()
    resumed.set_state(state)
    np.testing.assert_array_equal(labels_of(resumed, 12), expected)


def test_processes_share_an_epoch_without_overlap():
    shards = [
        labels_of(make(n=50, batch_size=5, process_index=i, process_count=2), 5) for i in (0, 1)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), np.arange(50))


def test_processes_whose_number_does_not_divide_the_images_take_turns():
    shards = [
        labels_of(make(n=50, batch_size=5, process_index=i, process_count=3), 20) for i in range(3)
    ]
    np.testing.assert_array_equal(np.stack(shards, 1).ravel(), labels_of(make(n=50), 60))


# Encoded images.


def make_streamed(files=FILES, batch_size=5, seed=1, area_range=(0.08, 1.0), threads=2, **options):
    return train_batches(
        stream(files),
        batch_size=batch_size,
        seed=seed,
        crop=train_loader.Crop(SIZE, area_range),
        reading=train_loader.Reading(threads),
        **options,
    )


def assert_same(batch, expected):
    assert batch.keys() == expected.keys()
    for key in expected:
        np.testing.assert_array_equal(batch[key], expected[key], err_msg=key)


def test_streamed_batches_have_two_views_of_the_image_that_their_label_names():
    colors = np.random.RandomState(0).randint(0, 256, (N, 3))
    files = [encode(np.full((20, 30, 3), color, np.uint8)) for color in colors]
    batch = next(make_streamed(files))
    assert batch.keys() == {"view1", "view2", "labels", "place"}
    assert batch["labels"].shape == (5,) and batch["labels"].dtype == np.int32
    for view in (batch["view1"], batch["view2"]):
        assert view.shape == (5, SIZE, SIZE, 3) and view.dtype == np.uint8
        np.testing.assert_array_equal(view[:, 5, 7], colors[batch["labels"]])


def test_views_are_cut_in_the_range_of_areas_that_was_asked_for():
    ramp = np.repeat(np.repeat(np.arange(60) * 4, 3).reshape(1, 60, 3), 60, axis=0)
    files = [encode(ramp.astype(np.uint8))] * N
    spans = {}
    for fraction in (0.05, 1.0):
        batch = take(make_streamed(files, area_range=(fraction, fraction)), 5)
        views = np.concatenate([batch["view1"], batch["view2"]]).astype(int)
        spans[fraction] = np.ptp(views[:, 5, :, 0], axis=1)  # in levels, 4 of them a pixel
    # Width: the root of share x aspect, of 60 px; pixels at the border count half at the most.
    assert spans[0.05].max() <= 4 * 60 * np.sqrt(0.05 * 4 / 3) + 4
    assert spans[1.0].min() >= 4 * 60 * np.sqrt(3 / 4) * (1 - 1 / SIZE) - 4


def test_both_views_of_an_image_are_cut_from_one_reading_and_differ(monkeypatch):
    decoded = []
    decode = image_decoding.EncodedImage.decode

    def counted(self, **options):
        if threading.current_thread() is threading.main_thread():
            decoded.append(self)
        return decode(self, **options)

    monkeypatch.setattr(image_decoding.EncodedImage, "decode", counted)
    records = Encoded(FILES)
    data = datasets.RecordDataset(records, N, N)
    loaded = train_loader._load_group(
        np.array([[0, 3]]), data=data, crop=train_loader.Crop(SIZE), seed=0, max_bad=0
    )
    assert records.reads == [0, 0, 0, 1] + [0] * (N - 4) and len(decoded) == 1
    assert np.abs(loaded["view1"].astype(int) - loaded["view2"]).max() > 5


def test_streamed_epochs_hold_every_image_in_another_order_and_in_other_crops():
    epochs = take(make_streamed(batch_size=6), 20)  # three epochs; batches cross their borders
    labels = epochs["labels"].reshape(3, N)
    np.testing.assert_array_equal(np.sort(labels), np.tile(np.arange(N), (3, 1)))
    assert len({tuple(row) for row in labels.tolist()}) == 3
    views = epochs["view1"].reshape(3, N, -1)[np.arange(3)[:, None], np.argsort(labels)]
    for first, second in itertools.combinations(views, 2):
        assert (first != second).any(axis=1).all()


def test_the_seed_decides_order_and_crops_of_streamed_batches():
    first, again, other = (take(make_streamed(seed=seed), 5) for seed in (1, 1, 2))
    assert_same(again, first)
    assert (first["labels"] != other["labels"]).any() and (first["view1"] != other["view1"]).any()


@pytest.mark.parametrize("stop", [0, 1, 8, 9])
def test_streamed_batches_resume_bit_for_bit(stop):
    whole = make_streamed()
    for _ in range(stop):
        next(whole)
    state = json.loads(json.dumps(whole.get_state()))
    expected = take(whole, 6)
    resumed = make_streamed()
    if stop % 2:
        next(resumed)  # where it was before does not matter
    resumed.set_state(state)
    assert_same(take(resumed, 6), expected)
    assert json.loads(json.dumps(resumed.get_state())) == json.loads(json.dumps(whole.get_state()))


@pytest.mark.parametrize(("processes", "batch_size"), [(2, 5), (3, 4)])
def test_processes_take_turns_in_what_one_would_see(processes, batch_size):
    """Also where neither images nor batches divide: disjoint, together all, with the same crops."""
    count = 10
    shards = [
        take(make_streamed(batch_size=batch_size, process_index=i, process_count=processes), count)
        for i in range(processes)
    ]
    expected = take(make_streamed(batch_size=1), processes * batch_size * count)
    whole = processes * batch_size
    expected["place"] = np.tile(np.arange(whole), count)
    for key in expected:
        together = np.stack([shard[key] for shard in shards], 1)
        np.testing.assert_array_equal(together.reshape(expected[key].shape), expected[key])


@pytest.mark.parametrize("threads", [1, 0])
def test_the_number_of_threads_changes_no_batch(threads):
    assert_same(take(make_streamed(threads=threads), 6), take(make_streamed(threads=2), 6))


def test_only_the_first_images_are_used_of_a_split_that_was_cut():
    data = stream(FILES).take(4)
    batches = train_batches(data, batch_size=4, seed=0, crop=train_loader.Crop(SIZE))
    np.testing.assert_array_equal(np.sort(labels_of(batches, 3).reshape(3, 4)), [range(4)] * 3)


def test_closing_ends_all_threads():
    others = set(threading.enumerate())
    batches = make_streamed()
    next(batches)
    started = set(threading.enumerate()) - others
    batches.close()
    assert started
    for thread in started:
        thread.join(timeout=5)
        assert not thread.is_alive()


# Bad images.


def test_bad_images_are_replaced_and_told_once():
    batches = make_streamed(with_bad(4, 7), max_bad_share=0.2)
    labels = labels_of(batches, 24)  # three epochs
    assert set(labels) == set(range(N)) - {4, 7} and len(labels) == 120
    assert batches.bad_images.keys() == {4, 7}
    assert "truncated" in batches.bad_images[4] and "not an image" in batches.bad_images[7]
    assert batches.bad_image_name(7) == "file 7"


def test_other_images_come_in_the_same_crops_whether_or_not_some_are_bad():
    good, some = take(make_streamed(), 12), take(make_streamed(with_bad(4, 7), max_bad_share=1), 12)
    kept = ~np.isin(good["labels"], [4, 7])
    for key in good:
        np.testing.assert_array_equal(some[key][kept], good[key][kept])


def test_replacements_are_drawn_from_all_images():
    batches = make_streamed(with_bad(*range(20)), batch_size=40, max_bad_share=0.5)
    counts = np.bincount(labels_of(batches, 25), minlength=N)
    assert counts[:20].sum() == 0
    # 25 as planned, and 1 in 20 of 500 replacements: a standard deviation of 4.9.
    assert np.abs(counts[20:] - 50).max() <= 5 * 4.9


@pytest.mark.parametrize("threads", [1, 3])
def test_replacements_are_always_the_same(threads):
    options = {"max_bad_share": 0.5}
    runs = [make_streamed(with_bad(1, 4, 7), **options, threads=t) for t in (2, threads)]
    assert_same(take(runs[1], 10), take(runs[0], 10))
    assert list(runs[1].bad_images.items()) == list(runs[0].bad_images.items())


@pytest.mark.parametrize("stop", [0, 1, 5])
def test_bad_images_so_far_are_in_the_state(stop):
    whole = make_streamed(with_bad(1, 4, 7), max_bad_share=0.5)
    for _ in range(stop):
        next(whole)
    state, met = json.loads(json.dumps(whole.get_state())), dict(whole.bad_images)
    expected = take(whole, 8)
    resumed = make_streamed(with_bad(1, 4, 7), max_bad_share=0.5)
    take(resumed, 8)
    resumed.set_state(state)
    assert resumed.bad_images == met  # no more and no less, whatever had been read ahead
    assert_same(take(resumed, 8), expected)
    assert resumed.bad_images == whole.bad_images and len(met) <= len(whole.bad_images) == 3


@pytest.mark.parametrize("fraction", [0.0, 0.03, 0.11])  # none, one and four of forty are allowed
def test_too_many_bad_images_are_an_error_that_names_three(fraction):
    batches = make_streamed(with_bad(*range(5)), max_bad_share=fraction)
    with pytest.raises(train_loader.TooManyBadImagesError) as error:
        labels_of(batches, 100)
    text = str(error.value)
    assert f"{N} training images" in text and "--config.data.max_bad_share" in text
    assert text.count("\n  file ") == 3 and text.count("not an image") + text.count("trunc") == 3


def test_as_many_bad_images_as_allowed_are_no_error():
    batches = make_streamed(with_bad(*range(4)), max_bad_share=0.11)
    labels_of(batches, 12)
    assert len(batches.bad_images) == 4


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_a_set_of_bad_images_alone_ends_in_an_error(fraction):
    batches = make_streamed([b"text"] * N, max_bad_share=fraction)
    with pytest.raises(train_loader.TooManyBadImagesError):
        next(batches)
