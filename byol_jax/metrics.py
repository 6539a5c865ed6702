"""Per-example scores, means over a batch, and measures of collapse."""

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
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    unit = features / np.maximum(lengths, 1e-12)
    return float(unit.std(axis=0).mean() * np.sqrt(features.shape[-1]))


def effective_rank(features: np.ndarray) -> float:
    """How many directions the features [n, F] use, between 1 and min(n, F).

    The exponential of the entropy of the normalised singular values (RankMe, Garrido et al. 2023,
    equation 1).
    """
    singular_values = np.linalg.svd(np.asarray(features, np.float64), compute_uv=False)
    share = singular_values / max(singular_values.sum(), 1e-12) + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))
