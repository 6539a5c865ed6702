"""Spread, rank, alignment and uniformity of representations."""

import numpy as np


def feature_std(features: np.ndarray) -> float:
    """Spread of features [n, F]: near 1 when they fill the sphere, 0 when they collapsed.

    The mean over dimensions of the standard deviation of the length-normalized features, times
    sqrt(F) (SimSiam, Chen and He 2021, section 4.1).
    """
    return float(unit(features).std(axis=0).mean() * np.sqrt(features.shape[-1]))


def unit(features: np.ndarray) -> np.ndarray:
    """Features [..., F] at length 1."""
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def effective_rank(features: np.ndarray) -> float:
    """How many directions the features [n, F] use, between 1 and min(n, F).

    The exponential of the entropy of the normalized singular values (RankMe, Garrido et al. 2023,
    equation 1).
    """
    wide = np.asarray(features if len(features) < features.shape[1] else features.T, np.float64)
    # From the smaller Gram matrix: many times quicker than the features' own decomposition.
    singular_values = np.sqrt(np.maximum(np.linalg.eigvalsh(wide @ wide.T), 0))
    fraction = singular_values / max(singular_values.sum(), 1e-12) + 1e-7
    return float(np.exp(-(fraction * np.log(fraction)).sum()))


def alignment(features1: np.ndarray, features2: np.ndarray) -> float:
    """Mean squared distance, on the unit sphere, of two views of the same images [n, F] each.

    From 0 (views agree) to 4 (Wang and Isola 2020, section 4.1.1, alpha = 2).
    """
    difference = unit(features1.astype(np.float64)) - unit(features2.astype(np.float64))
    return float((difference**2).sum(axis=-1).mean())


def uniformity(features: np.ndarray, *, t: float = 2.0) -> float:
    """Logarithm of the mean Gaussian potential of all pairs of features [n, F], n at least 2.

    On the unit sphere, from about -2t (spread out) to 0 (all of them one point) (Wang and Isola
    2020, section 4.1.2).
    """
    points = unit(features.astype(np.float64))
    distances = np.maximum(2 - 2 * points @ points.T, 0)[np.triu_indices(len(points), 1)]
    return float(np.log(np.exp(-t * distances).mean()))
