"""Neighbors, outliers, a subset, clusters: against what a few lines of NumPy give."""

import numpy as np

from byol_jax.curation import neighbors, selection


def drawn(count, size=8, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def test_neighbors_are_those_of_all_similarities(monkeypatch):
    monkeypatch.setattr(neighbors, "BLOCK", 16)
    points = neighbors.unit(drawn(50))
    similarity = points @ points.T
    np.fill_diagonal(similarity, -np.inf)
    which, alike = neighbors.nearest(points, 3)
    np.testing.assert_array_equal(which, np.argsort(-similarity, axis=1)[:, :3])
    np.testing.assert_allclose(alike, -np.sort(-similarity, axis=1)[:, :3], atol=1e-6)


def test_queries_may_find_all_images_themselves_too():
    points = neighbors.unit(drawn(20))
    which, alike = neighbors.nearest(points, 20, queries=points[[7, 3]])
    assert which[:, 0].tolist() == [7, 3] and sorted(which[0]) == list(range(20))
    np.testing.assert_allclose(alike[:, 0], 1, atol=1e-6)


def test_an_image_far_from_all_others_is_the_first_outlier():
    points = drawn(60) * 0.05 + np.eye(8, dtype=np.float32)[0]
    points[13] = -points[13]
    _, similarity = neighbors.nearest(neighbors.unit(points), 10)
    assert selection.outlier_scores(similarity).argmax() == 13


def test_a_subset_takes_an_image_of_each_group_before_a_second_of_any():
    groups = np.repeat(np.arange(6), [50, 3, 3, 3, 2, 1])
    points = np.eye(6, dtype=np.float32)[groups] + 0.01 * drawn(len(groups), 6)
    chosen = selection.k_center(points, 6)
    assert sorted(groups[chosen]) == list(range(6))
    everything = selection.k_center(points, len(points))
    assert sorted(everything) == list(range(len(points)))
    assert everything[:6].tolist() == chosen.tolist()


def test_clusters_are_the_groups_the_largest_first():
    groups = np.repeat([2, 0, 1], [5, 30, 12])
    points = np.eye(8, dtype=np.float32)[groups] + 0.01 * drawn(len(groups))
    found, distance = selection.clusters(points, 3, seed=0)
    assert found.tolist() == [2] * 5 + [0] * 30 + [1] * 12
    assert distance.max() < 0.2
