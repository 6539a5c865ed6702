"""Intervals of what is measured on a set of images, by drawing images anew with replacement.

Shapes: N images, K numbers of each.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

LIMITS = (2.5, 97.5)  # percentiles: 95 % lie between them


def draws(size: int, *, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each of ``size`` images is drawn, [N] of each resample."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(size, size=size), minlength=size)


def of_pooled(
    rows: np.ndarray,
    measure: Callable[[np.ndarray], Mapping[str, float]],
    *,
    seed: int,
    resamples: int,
) -> dict[str, tuple[float, float]]:
    """95 % intervals, by name, of measures of a sum over images; NaN of a resample is left out.

    Args:
      rows: [N, ...], what each image adds to the sum.
      measure: a sum [...] -> measures by name.
      seed: of the draws.
      resamples: their number.
    """
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    found = [
        measure((counts @ flat).reshape(rows.shape[1:]))
        for counts in draws(len(rows), seed=seed, resamples=resamples)
    ]
    return {
        name: tuple(np.nanpercentile([row[name] for row in found], LIMITS).tolist())
        for name in found[0]
    }
