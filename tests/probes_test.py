"""Probes against scikit-learn, and against formulas."""

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.neighbors
import sklearn.preprocessing

from byol_jax import datasets, probes


def clusters(n, *, classes=4, size=16, seed=0, spread=1.0):
    rng = np.random.RandomState(seed)
    labels = rng.randint(classes, size=n)
    centres = np.random.RandomState(9).standard_normal((classes, size))
    features = centres[labels] + spread * rng.standard_normal((n, size))
    return features.astype(np.float32), labels.astype(np.int32)


def knn(train, labels, test, *, k, temperature=0.1):
    return probes.knn_predict(train, labels, test, num_classes=4, k=k, temperature=temperature)


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


def test_knn_takes_all_neighbours_when_there_are_fewer_than_k():
    train, labels = clusters(5)
    assert knn(train, labels, train, k=20).shape == (5,)


def test_linear_probe_agrees_with_scikit_learn():
    train, labels = clusters(200, spread=2.0)
    test, _ = clusters(100, seed=1, spread=2.0)
    scaler = sklearn.preprocessing.StandardScaler().fit(train)
    peer = sklearn.linear_model.LogisticRegression(max_iter=1000)
    peer.fit(scaler.transform(train), labels)
    expected = peer.predict(scaler.transform(test))
    assert (probes.linear_predict(train, labels, test) == expected).mean() > 0.98


@pytest.mark.parametrize("n", [1, 4, 7])
def test_features_come_in_order_and_without_padding(n):
    images = np.random.RandomState(0).randint(0, 256, (n, 2, 2, 3)).astype(np.uint8)
    features = probes.extract_features(
        lambda batch: batch.reshape(len(batch), -1), images, batch_size=4
    )
    np.testing.assert_array_equal(features, images.reshape(n, -1))


def test_probe_scores_a_perfect_and_a_collapsed_encoder():
    labels = np.arange(40, dtype=np.int32) % 4
    images = np.broadcast_to(labels[:, None, None, None], (40, 2, 2, 3)).astype(np.uint8)
    data = datasets.Images(images, labels, 4)
    encoders = {
        "perfect": lambda params, state, batch: np.eye(4)[batch[:, 0, 0, 0]],
        "collapsed": lambda params, state, batch: np.ones((len(batch), 4)),
    }
    scores = {
        name: probes.Probe(data, data, encode, batch_size=16, k=3, temperature=0.1).score(
            None, None, linear=True
        )
        for name, encode in encoders.items()
    }
    assert scores["perfect"]["probe/knn_top1"] == scores["perfect"]["probe/linear_top1"] == 1
    assert scores["perfect"]["probe/effective_rank"] == pytest.approx(4, rel=1e-3)
    assert scores["collapsed"]["probe/feature_std"] < 1e-6
    assert scores["collapsed"]["probe/linear_top1"] == 0.25
