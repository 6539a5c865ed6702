"""The most similar of some features, exactly, in blocks on the device.

Shapes: N features, M queries, F embedding size, k neighbors.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.metrics import representation
from byol_jax.workdir import console

BLOCK = 1024  # queries at a time: a block's similarities to 100,000 images take 400 MB


def unit(features: np.ndarray) -> np.ndarray:
    """Features [N, F] at length 1, float32."""
    return representation.unit(np.asarray(features, np.float32))


def centered(features: np.ndarray) -> np.ndarray:
    """Features [N, F] less their mean, at length 1: what all images share tells none apart."""
    features = np.asarray(features, np.float32)
    return unit(features - features.mean(axis=0))


def nearest(
    features: np.ndarray, k: int, *, queries: np.ndarray | None = None, title: str = "neighbors"
) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar features by cosine, best first.

    Args:
      features: float32 [N, F] at length 1.
      k: at most N, or N - 1 without queries.
      queries: float32 [M, F] at length 1; None: the features, each of which leaves itself out.
      title: of the progress line.

    Returns:
      Which, int32 [M, k], and how similar, float32 [M, k].
    """
    is_self = queries is None
    queries = features if is_self else queries
    bank = jnp.asarray(features)
    indices = np.empty((len(queries), k), np.int32)
    similarity = np.empty((len(queries), k), np.float32)
    starts = range(0, len(queries), BLOCK)
    bar = console.progress_bar(total=len(queries), unit="img", title=title, delay=2)
    for start in console.shown(bar, starts, BLOCK):
        part = queries[start : start + BLOCK]
        size = min(BLOCK, 1 << (len(part) - 1).bit_length())  # few sizes are compiled
        padded = np.pad(part, [(0, size - len(part)), (0, 0)])
        best, which = _search(bank, padded, start if is_self else -size, k=k)
        indices[start : start + BLOCK] = np.asarray(which)[: len(part)]
        similarity[start : start + BLOCK] = np.asarray(best)[: len(part)]
    return indices, similarity


@functools.partial(jax.jit, static_argnames="k")
def _search(
    bank: jax.Array, queries: jax.Array, start: int, *, k: int
) -> tuple[jax.Array, jax.Array]:
    """Query i is the feature start + i, which is left out; below 0 it is none of them."""
    similarity = queries @ bank.T
    own = start + jnp.arange(len(queries))
    is_own = jnp.arange(len(bank)) == own[:, None]
    return jax.lax.top_k(jnp.where(is_own, -jnp.inf, similarity), k)
