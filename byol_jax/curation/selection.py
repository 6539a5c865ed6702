"""Which images are unlike the others, which are alike, and which stand for all.

Shapes: N images, F embedding size.
"""

import numpy as np
import sklearn.cluster
import threadpoolctl

from byol_jax.curation import neighbors

NEIGHBORS = 10  # that an outlier is far from
MOST_CLUSTERS = 50


def outlier_scores(similarity: np.ndarray) -> np.ndarray:
    """How far each image is from its nearest, float32 [N]: the mean of 1 - cosine.

    The distance to near neighbors (Ramaswamy et al. 2000), their mean, so that two outliers that
    are alike are still some.

    Args:
      similarity: [N, k] to the k nearest.
    """
    return 1 - similarity.mean(axis=1)


def k_center(features: np.ndarray, k: int) -> np.ndarray:
    """k images such that none is far from all of them, int [k], in the order they were found.

    The greedy algorithm (Gonzalez 1985), at most twice as far as the best choice: the image nearest
    to the mean first, then always the one that is farthest from those before.

    Args:
      features: [N, F].
      k: at most N.
    """
    points = neighbors.unit(features)
    chosen = np.empty(k, np.int64)
    nearest = np.full(len(points), -np.inf, np.float32)  # the similarity to the closest chosen one
    new = int((points @ points.mean(axis=0)).argmax())
    for number in range(k):
        chosen[number] = new
        nearest = np.maximum(nearest, points @ points[new])
        nearest[new] = np.inf
        new = int(nearest.argmin())
    return chosen


def clusters(features: np.ndarray, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """k-means on the sphere's points: cluster of each image, int [N], and its distance, [N].

    Clusters are numbered by size, the largest first.

    Args:
      features: [N, F].
      count: of the clusters; 0: the square root of half of N, at most 50.
      seed: of the start.
    """
    points = neighbors.unit(features)
    count = count or min(MOST_CLUSTERS, max(1, round((len(points) / 2) ** 0.5)))
    with threadpoolctl.threadpool_limits(None):
        model = sklearn.cluster.KMeans(count, n_init=1, random_state=seed, max_iter=30)
        labels = model.fit_predict(points)
    sizes = np.bincount(labels, minlength=count)
    number = np.empty(count, np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(count)
    distance = np.linalg.norm(points - model.cluster_centers_[labels], axis=1)
    return number[labels], distance
