"""Probes against scikit-learn, and against formulas."""

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.neighbors
import sklearn.preprocessing

from byol_jax.data import datasets, eval_loader
from byol_jax.training import online_eval
from tests.support.samples import drawn_picture, encode


def clusters(n, *, classes=4, size=16, seed=0, spread=1.0):
    rng = np.random.RandomState(seed)
    labels = rng.randint(classes, size=n)
    centers = np.random.RandomState(9).standard_normal((classes, size))
    features = centers[labels] + spread * rng.standard_normal((n, size))
    return features.astype(np.float32), labels.astype(np.int32)


def knn(train, labels, test, *, k, temperature=0.1):
    return online_eval.knn_predict(train, labels, test, num_classes=4, k=k, temperature=temperature)


@pytest.mark.parametrize("k", [1, 7])
def test_knn_agrees_with_scikit_learn_on_unweighted_votes(k):
    train, labels = clusters(300)
    test, _ = clusters(200, seed=1)
    peer = sklearn.neighbors.KNeighborsClassifier(k, metric="cosine").fit(train, labels)
    votes = peer.predict_proba(test)
    decided = (np.sort(votes)[:, -1] > np.sort(votes)[:, -2]) | (k == 1)  # ties go either way
    actual = knn(train, labels, test, k=k, temperature=1e6)
    np.testing.assert_array_equal(actual[decided], votes.argmax(1)[decided])
    assert decided.mean() > 0.8


def test_knn_weighs_by_similarity():
    train = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6]], np.float32)
    labels = np.array([0, 1, 1], np.int32)
    query = np.array([[1, 0]], np.float32)
    # exp(1 / t) against 2 exp(0.8 / t): the near one wins below t = 0.2 / ln 2 = 0.289.
    assert knn(train, labels, query, k=3, temperature=0.28) == [0]
    assert knn(train, labels, query, k=3, temperature=0.30) == [1]


def test_knn_takes_all_neighbors_when_there_are_fewer_than_k():
    train, labels = clusters(5)
    assert knn(train, labels, train, k=20).shape == (5,)


def test_linear_probe_agrees_with_scikit_learn():
    train, labels = clusters(200, spread=2.0)
    test, _ = clusters(100, seed=1, spread=2.0)
    scaler = sklearn.preprocessing.StandardScaler().fit(train)
    peer = sklearn.linear_model.LogisticRegression(max_iter=1000)
    peer.fit(scaler.transform(train), labels)
    expected = peer.predict(scaler.transform(test))
    assert (online_eval.linear_predict(train, labels, test) == expected).mean() > 0.98


@pytest.mark.parametrize("n", [1, 4, 7])
def test_features_come_in_order_and_without_padding(n):
    images = np.random.RandomState(0).randint(0, 256, (n, 2, 2, 3)).astype(np.uint8)
    data = datasets.ArrayDataset(images, np.arange(n, dtype=np.int32), n)
    features, labels, indices = online_eval.extract_features(
        lambda batch: batch.reshape(len(batch), -1),
        eval_loader.eval_batches(data, batch_size=4, image_size=2),
    )
    np.testing.assert_array_equal(features, images.reshape(n, -1))
    np.testing.assert_array_equal(labels, np.arange(n))
    np.testing.assert_array_equal(indices, np.arange(n))


def make_probe(train, test, encoder, *, max_bad_share=0.1):
    bad = eval_loader.BadLimit([train, test], max_bad_share)
    return online_eval.Probe(
        train, test, encoder, batch_size=16, image_size=8, k=3, temperature=0.1, bad=bad
    )


class Encoded:
    """Files in memory with their labels."""

    def __init__(self, files, labels):
        self.files, self.labels = files, labels

    def __len__(self):
        return len(self.files)

    def read(self, index):
        return self.files[index], self.labels[index]

    def name(self, index):
        return f"file {index}"


def stream(pixels, labels, *, bad=()):
    files = [b"text" if i in bad else encode(image) for i, image in enumerate(pixels)]
    is_labeled = labels is not None
    records = Encoded(files, labels if is_labeled else [-1] * len(files))
    return datasets.RecordDataset(records, len(files), 4 if is_labeled else 0)


def color(params, state, batch):
    """An encoder that tells classes by the brightness of the middle."""
    return np.eye(4)[batch[:, 4, 4, 0]]


PIXELS = [np.full((10, 10, 3), number % 4, np.uint8) for number in range(40)]
LABELS = [number % 4 for number in range(40)]


def test_encoded_images_are_scored_as_those_in_memory_and_have_no_pixels_to_compare_with():
    memory = datasets.ArrayDataset(np.stack(PIXELS), np.array(LABELS, np.int32), 4)
    encoded = stream(PIXELS, LABELS)
    expected = make_probe(memory, memory, color).score(None, None, linear=True)
    assert make_probe(encoded, encoded, color).score(None, None, linear=True) == expected
    assert expected["probe/knn_top1"] == expected["probe/linear_top1"] == 1
    assert make_probe(encoded, encoded, color).score_raw_pixels() == {}


def test_without_labels_only_the_spread_is_measured_and_bad_images_are_left_out():
    pictures = [drawn_picture(12, 12, seed=number) for number in range(40)]

    def flatten(params, state, batch):
        return batch.reshape(len(batch), -1).astype(float)

    bad = stream(pictures, None, bad=(0, 17))
    good = stream([p for i, p in enumerate(pictures) if i not in (0, 17)], None)
    scores = make_probe(bad, bad, flatten).score(None, None, linear=True)
    assert scores.keys() == {"probe/feature_std", "probe/effective_rank"}
    assert scores == make_probe(good, good, flatten).score(None, None, linear=True)


def test_so_many_images_of_both_splits_may_be_bad_and_they_are_left_out():
    some, more = stream(PIXELS, LABELS, bad=(1, 2)), stream(PIXELS, LABELS, bad=(1, 2, 3))
    measured = make_probe(some, some, color, max_bad_share=0.025).measure(None, None, linear=True)
    assert measured.scalars["probe/knn_top1"] == measured.scalars["probe/linear_top1"] == 1
    assert len(measured.labels) == 38
    assert measured.bad.keys() == {"file 1", "file 2"} and "not an image" in measured.bad["file 1"]
    for splits in [(some, more), (more, some)]:
        with pytest.raises(eval_loader.UsageError, match="80 images.*max_bad_share.*\n  file 1"):
            make_probe(*splits, color, max_bad_share=0.025).score(None, None, linear=True)


def missing(labels, *, every):
    return [-1 if i % every else label for i, label in enumerate(labels)]


@pytest.mark.parametrize("is_in_memory", [False, True])
def test_images_without_labels_neither_vote_nor_count(is_in_memory):
    def split(labels):
        if is_in_memory:
            return datasets.ArrayDataset(np.stack(PIXELS), np.array(labels, np.int32), 4)
        return stream(PIXELS, labels)

    train, test = missing(LABELS, every=3), missing(LABELS, every=7)
    whole = make_probe(split(LABELS), split(LABELS), color).score(None, None, linear=True)
    exact = make_probe(split(train), split(test), color).score(None, None, linear=True)
    assert exact == whole and exact["probe/knn_top1"] == 1
    if is_in_memory:
        scores = make_probe(split(train), split(test), color).score_raw_pixels()
        assert 0 < scores["probe/raw_pixels_knn_top1"] <= 1


@pytest.mark.parametrize("which", ["train", "test"])
def test_without_a_label_in_one_split_there_is_no_accuracy(which):
    splits = {name: stream(PIXELS, LABELS) for name in ("train", "test")}
    splits[which] = stream(PIXELS, [-1] * 40)
    measured = make_probe(splits["train"], splits["test"], color).measure(None, None, linear=True)
    assert measured.predicted is None
    assert measured.scalars.keys() == {"probe/feature_std", "probe/effective_rank"}


def test_labels_of_one_class_train_no_linear_probe():
    train = stream(PIXELS, [0 if label == 0 else -1 for label in LABELS])
    scalars = make_probe(train, stream(PIXELS, LABELS), color).score(None, None, linear=True)
    assert scalars["probe/knn_top1"] == 0.25 and "probe/linear_top1" not in scalars


@pytest.mark.parametrize("is_labeled", [False, True])
def test_a_split_of_bad_images_alone_is_an_error_for_the_user(is_labeled):
    labels = LABELS if is_labeled else None
    bad, good = stream(PIXELS, labels, bad=range(40)), stream(PIXELS, labels)
    with pytest.raises(eval_loader.UsageError, match="(?i)no.*image"):
        probe = make_probe(bad, good if is_labeled else bad, color, max_bad_share=1)
        probe.score(None, None, linear=False)


def test_probe_scores_a_perfect_and_a_collapsed_encoder():
    labels = np.arange(40, dtype=np.int32) % 4
    images = np.broadcast_to(labels[:, None, None, None], (40, 2, 2, 3)).astype(np.uint8)
    data = datasets.ArrayDataset(images, labels, 4)
    encoders = {
        "perfect": lambda params, state, batch: np.eye(4)[batch[:, 0, 0, 0]],
        "collapsed": lambda params, state, batch: np.ones((len(batch), 4)),
    }
    scores = {
        name: make_probe(data, data, encoder).score(None, None, linear=True)
        for name, encoder in encoders.items()
    }
    assert scores["perfect"]["probe/knn_top1"] == scores["perfect"]["probe/linear_top1"] == 1
    assert scores["perfect"]["probe/effective_rank"] == pytest.approx(4, rel=1e-3)
    assert scores["collapsed"]["probe/feature_std"] < 1e-6
    assert scores["collapsed"]["probe/linear_top1"] == 0.25


def test_a_cpu_gathers_statistics_of_large_images_in_small_batches():
    """Its first progress comes soon, and a signal is heard between two of them."""
    pixels = np.zeros((online_eval.CPU_BATCH + 1, 1, 1, 3), np.uint8)
    data = datasets.ArrayDataset(pixels, np.zeros(len(pixels), np.int32), 1)
    bad = eval_loader.BadLimit([data], 0.1)
    probe = online_eval.Probe(
        data, data, None, batch_size=256, image_size=224, k=1, temperature=0.1, bad=bad
    )
    assert probe.calibrate(lambda sizes, images: [*sizes, len(images)], []) == [64, 1]
