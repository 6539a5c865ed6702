"""How well predicted depth agrees with the truth: errors pooled over all pixels of a set.

The measures of Eigen et al. (2014, section 4.1), as in the paper's appendix D.6. A pixel counts
where its true depth is finite and above 0.

Shapes: N images of H x W pixels.
"""

from typing import NamedTuple

import numpy as np

from byol_jax.metrics import bootstrap as bootstrap_lib

FLOOR = 1e-3  # meters; less cannot be predicted, so that ratios and logarithms exist
FRACTIONS = ("delta1", "delta2", "delta3")  # of pixels with max(p / t, t / p) below 1.25^n
ERRORS = ("rms", "rel", "log10", "rms_log")


class Crop(NamedTuple):
    """The part of a picture that counts, as fractions of its height and width."""

    top: float
    bottom: float
    left: float
    right: float


# Rows 45 to 471 and columns 41 to 601 of 480 x 640 (Eigen et al. 2014, their code).
EIGEN = Crop(45 / 480, 471 / 480, 41 / 640, 601 / 640)
CROPS = {"all": Crop(0, 1, 0, 1), "eigen": EIGEN}


def crop(depth: np.ndarray, part: Crop) -> np.ndarray:
    """A depth map [H, W] in which all pixels outside of the part are 0, which do not count."""
    height, width = depth.shape
    rows = slice(round(part.top * height), round(part.bottom * height))
    columns = slice(round(part.left * width), round(part.right * width))
    kept = np.zeros_like(depth)
    kept[rows, columns] = depth[rows, columns]
    return kept


def sums(truth: np.ndarray, predicted: np.ndarray, *, floor: float = FLOOR) -> np.ndarray:
    """What an image adds to the measures of a set: float64 [8], the last the counted pixels.

    Args:
      truth: [H, W], in meters; 0 or not finite: unknown.
      predicted: [H, W], in meters.
      floor: a prediction below it counts as this much.
    """
    counted = np.isfinite(truth) & (truth > 0)
    true = truth[counted].astype(np.float64)
    guess = np.maximum(predicted[counted].astype(np.float64), floor)
    ratio = np.maximum(guess / true, true / guess)
    logs = np.log(guess) - np.log(true)
    terms = [ratio < 1.25**n for n in (1, 2, 3)]
    terms += [(guess - true) ** 2, np.abs(guess - true) / true, np.abs(logs) / np.log(10), logs**2]
    return np.array([*(term.sum() for term in terms), len(true)], np.float64)


def pooled(totals: np.ndarray) -> dict[str, float]:
    """Measures from sums [8] over all images; NaN if no pixel counts."""
    with np.errstate(invalid="ignore"):
        means = totals[:-1] / totals[-1]
    found = dict(zip(FRACTIONS + ERRORS, means.tolist(), strict=True))
    for name in ("rms", "rms_log"):
        found[name] = float(np.sqrt(found[name]))
    return found


def bootstrap(
    sums: np.ndarray, *, seed: int, resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """95 % intervals of all measures, images drawn anew with replacement.

    Args:
      sums: [N, 8], one row an image.
      seed: of the bootstrap.
      resamples: of the bootstrap.
    """
    return bootstrap_lib.of_pooled(sums, pooled, seed=seed, resamples=resamples)
