"""Per-example scores, their interval, and what features are worth without labels."""

import jax
import jax.numpy as jnp
import numpy as np


def topk_correct(logits: jax.Array, labels: jax.Array, *, k: int) -> jax.Array:
    """1.0 where the label is among the k largest logits, else 0.0.

    Among equal logits the highest class index ranks first, as in the reference: a constant
    network scores the share of the last class, never a perfect score.

    Args:
      logits: [b, C]; a k above C counts every label as found.
      labels: [b] integers in [0, C).

    Returns:
      [b] float32.
    """
    label_logit = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    classes = jnp.arange(logits.shape[-1])
    ahead = (logits > label_logit) | ((logits == label_logit) & (classes > labels[:, None]))
    return (jnp.sum(ahead, axis=-1) < k).astype(jnp.float32)


def feature_std(features: np.ndarray) -> float:
    """Spread of features [n, F]: near 1 when they fill the sphere, 0 when they collapsed.

    The mean over dimensions of the standard deviation of the length-normalised features, times
    sqrt(F) (SimSiam, Chen and He 2021, section 4.1).
    """
    return float(unit(features).std(axis=0).mean() * np.sqrt(features.shape[-1]))


def unit(features: np.ndarray) -> np.ndarray:
    """Features [..., F] at length 1."""
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def effective_rank(features: np.ndarray) -> float:
    """How many directions the features [n, F] use, between 1 and min(n, F).

    The exponential of the entropy of the normalised singular values (RankMe, Garrido et al. 2023,
    equation 1).
    """
    wide = np.asarray(features if len(features) < features.shape[1] else features.T, np.float64)
    # From the smaller Gram matrix: many times quicker than the features' own decomposition.
    singular_values = np.sqrt(np.maximum(np.linalg.eigvalsh(wide @ wide.T), 0))
    share = singular_values / max(singular_values.sum(), 1e-12) + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


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


def bootstrap_interval(
    scores: np.ndarray, *, seed: int, resamples: int = 1000
) -> tuple[float, float]:
    """95 % interval of the mean of scores [M], each 0 or 1: percentiles of resampled means.

    To draw M of them with replacement is to draw how many are 1, from a binomial distribution.
    """
    count = len(scores)
    rng = np.random.default_rng(seed)
    means = rng.binomial(count, np.mean(scores, dtype=np.float64), resamples) / count
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
