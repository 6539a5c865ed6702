"""Votes of neighbors against scikit-learn and against a loop."""

import numpy as np
import pytest
import sklearn.neighbors

from byol_jax.metrics import knn, representation
from tests.training.online_eval_test import clusters

UNWEIGHTED = 1e6  # a temperature at which all neighbors weigh the same
KnnParams = knn.KnnParams


def bank(n=300, spread=2.0):
    features, labels = clusters(n, spread=spread)
    return knn.Bank(features, labels, 4)


def peer_votes(k, found, queries):
    peer = sklearn.neighbors.KNeighborsClassifier(k, metric="cosine")
    return peer.fit(found.features, found.labels).predict_proba(queries)


def is_decided(votes):
    """Where no two classes lead with equal votes; who wins there depends on rounding."""
    return np.sort(votes)[:, -1] > np.sort(votes)[:, -2] + 1e-6


@pytest.mark.parametrize("k", [1, 7, 20])
def test_ranks_agree_with_scikit_learn_on_unweighted_votes(k):
    found = bank()
    queries, labels = clusters(200, seed=1, spread=2.0)
    votes = peer_votes(k, found, queries)
    rank = knn.label_ranks(found, queries, labels, [KnnParams(k, UNWEIGHTED)])[0]
    decided = is_decided(votes)
    np.testing.assert_array_equal((rank == 0)[decided], (votes.argmax(1) == labels)[decided])
    assert 0.5 < decided.mean() and 0 < (rank == 0).mean() < 1


@pytest.mark.parametrize("k", [1, 7])
def test_leave_one_out_agrees_with_scikit_learn_fitted_without_each_image(k):
    found = bank(60)
    own = np.arange(60)
    setting = [KnnParams(k, UNWEIGHTED)]
    rank = knn.label_ranks(found, found.features, found.labels, setting, own=own)[0]
    for i in own:
        kept = np.delete(own, i)
        rest = knn.Bank(found.features[kept], found.labels[kept], 4)
        votes = peer_votes(k, rest, found.features[i : i + 1])
        if is_decided(votes)[0]:
            assert (rank[i] == 0) == (votes.argmax() == found.labels[i])


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_many_settings_at_once_agree_with_a_loop(temperature):
    found = bank(50)
    queries, labels = clusters(20, seed=1)
    settings = [KnnParams(k, temperature) for k in (1, 5, 200)]
    ranks = knn.label_ranks(found, queries, labels, settings)
    for setting, row in zip(settings, ranks, strict=True):
        for query, label, rank in zip(queries, labels, row, strict=True):
            lengths = np.linalg.norm(found.features, axis=1) * np.linalg.norm(query)
            cosine = found.features @ query / lengths
            votes = np.zeros(4)
            for i in np.argsort(-cosine)[: setting.k]:
                votes[found.labels[i]] += np.exp((cosine[i] - cosine.max()) / temperature)
            assert rank == ((votes > votes[label]).sum() if votes[label] else 4)


def test_chunks_change_nothing(monkeypatch):
    found = bank(50)
    queries, labels = clusters(40, seed=1)
    own = np.arange(40)
    settings = [KnnParams(3, 0.1)]
    whole = knn.label_ranks(found, queries, labels, settings, own=own)
    monkeypatch.setattr(knn, "TABLE_SIZE", 350)  # seven queries at a time
    parts = knn.label_ranks(found, queries, labels, settings, own=own)
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_of_equal_neighbors_the_first_are_the_nearest(k, monkeypatch):
    """Whatever they look like to a product of floats, and however many queries share it."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((6, 37)).astype(np.float32)[rng.integers(0, 6, 203)]
    labels = rng.integers(0, 50, 203)
    tied = knn.Bank(features * rng.choice([1, 2, 4], (203, 1)), labels, 50)
    queries = rng.standard_normal((40, 37)).astype(np.float32)
    exact = (
        representation.unit(queries.astype(np.float64))
        @ representation.unit(features.astype(np.float64)).T
    )
    expected = np.stack([np.lexsort([np.arange(203), -row]) for row in exact.round(9)])[:, :k]
    for size in (1 << 25, 203, 7 * 203):
        monkeypatch.setattr(knn, "TABLE_SIZE", size)
        votes = np.concatenate(
            [v[0] for v in knn._votes(tied, queries, [KnnParams(k, UNWEIGHTED)])]
        )
        counts = np.stack([np.bincount(labels[row], minlength=50) for row in expected])
        np.testing.assert_allclose(votes, counts, atol=1e-4)


def test_a_class_without_a_vote_is_not_found_even_if_there_are_few_classes():
    found = knn.Bank(np.eye(3, dtype=np.float32), np.array([0, 1, 1]), 3)
    ranks = knn.label_ranks(found, np.eye(3)[:1], np.array([2]), [KnnParams(3, 0.1)])
    assert ranks.tolist() == [[3]]


def test_a_tiny_temperature_still_counts_the_nearest():
    found = knn.Bank(-np.eye(2, dtype=np.float32), np.array([0, 1]), 2)
    query = np.array([[0.1, 0.9]])  # similarity to the nearest is negative
    assert knn.predict(found, query, KnnParams(2, 1e-4)) == [0]


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_images_without_labels_do_not_vote_and_are_never_found(leave_one_out):
    whole, rng = bank(), np.random.default_rng(1)
    missing = rng.random(len(whole.labels)) < 0.6
    partly = whole._replace(labels=np.where(missing, -1, whole.labels))
    kept = np.flatnonzero(~missing)
    smaller = whole._replace(features=whole.features[kept], labels=whole.labels[kept])
    settings = [knn.KnnParams(k, 0.1) for k in (1, 7, 1000)]
    queries, labels = whole.features[::3], whole.labels[::3]
    own = [None, None]
    if leave_one_out:
        queries, labels = smaller.features, smaller.labels
        own = [kept, np.arange(len(kept))]
    found, expected = (
        knn.label_ranks(b, queries, labels, settings, own=o)
        for b, o in zip((partly, smaller), own, strict=True)
    )
    np.testing.assert_array_equal(found, expected)
    ranks = knn.label_ranks(whole, queries, np.full(len(queries), -1), settings)
    assert (ranks == whole.num_classes).all()
    np.testing.assert_array_equal(
        knn.predict(partly, queries, settings[1]),
        knn.predict(smaller, queries, settings[1]),
    )
