"""A map of features: points in the plane, near each other if their features are.

Shapes: n images, F embedding size.
"""

from collections.abc import Mapping
from concurrent import futures

import numpy as np
import threadpoolctl
from sklearn import decomposition, manifold, neighbors

from byol_jax.metrics import representation

COMPONENTS = 50  # that t-SNE starts from; more are slower and bring nothing that a map can show
ITERATIONS = 400
PERPLEXITY = 30
METHOD = f"PCA to {COMPONENTS} dimensions, then t-SNE"


def project(features: np.ndarray) -> np.ndarray:
    """Coordinates [n, 2] of features [n, F], the same ones each time.

    Principal components of the features at length 1, then Barnes-Hut t-SNE (van der Maaten 2014)
    begun at the first two of them. Features that are all the same, as after a collapse, are all
    at 0; of less than five images there are only principal components.
    """
    points = representation.unit(np.asarray(features, np.float32))
    points = points - points.mean(axis=0)
    if not np.isfinite(points).all() or np.abs(points).max(initial=0) < 1e-6:
        return np.zeros((len(points), 2))
    count = min(COMPONENTS, *points.shape)
    # One thread: t-SNE's steps are short, and threads that wait for a busy core cost more.
    with threadpoolctl.threadpool_limits(1):
        pca = decomposition.PCA(count, svd_solver="covariance_eigh", random_state=0)
        points = pca.fit_transform(points)
        if len(points) < 5 or points.shape[1] < 2:
            return np.pad(points, [(0, 0), (0, 2)])[:, :2].astype(np.float64)
        tsne = manifold.TSNE(
            init=points[:, :2] / max(points[:, 0].std(), 1e-12) * 1e-4,
            perplexity=min(PERPLEXITY, (len(points) - 1) / 3),
            max_iter=ITERATIONS,
            angle=0.8,  # as good a map as 0.5 by `purity`, a quarter faster than 0.6
            random_state=0,
        )
        return tsne.fit_transform(points).astype(np.float64)


def project_all(spaces: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps of several sets of features, made at the same time; the same as one by one."""
    # The limit of `project` holds for its own thread's loops, this one for BLAS, which all share.
    with threadpoolctl.threadpool_limits(1), futures.ThreadPoolExecutor(len(spaces)) as pool:
        return dict(zip(spaces, pool.map(project, spaces.values()), strict=True))


def purity(points: np.ndarray, labels: np.ndarray, *, k: int = 5) -> float | None:
    """Fraction of the k nearest points [n, 2] of each that have its label [n]; None without labels.

    Points of the label -1 are left out.
    """
    points, labels = points[labels >= 0], labels[labels >= 0]
    if len(points) <= k or not np.ptp(points):
        return None
    search = neighbors.NearestNeighbors(n_neighbors=k + 1).fit(points)
    nearest = search.kneighbors(points, return_distance=False)
    is_other = nearest != np.arange(len(points))[:, None]
    is_same = labels[nearest] == labels[:, None]
    return float((is_same & is_other).sum() / is_other.sum())
