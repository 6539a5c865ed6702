"""How well a labeling of pixels agrees with the truth: confusion matrices and IoU.

Conventions of PASCAL VOC (Everingham et al. 2010, section 4.3): pixels of the truth that are
`IGNORED` do not count, and a confusion matrix is summed over all images before IoU is taken.

Shapes: N images of H x W pixels, C classes.
"""

import numpy as np

from byol_jax.metrics import bootstrap as bootstrap_lib

IGNORED = 255  # label of pixels that are neither learned from nor counted


def confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts pixels by class.

    Args:
      truth: [H, W] integers below C, or `IGNORED`.
      predicted: [H, W] integers below C, or `IGNORED` where a network gave no number, which is
        never right.
      num_classes: C.

    Returns:
      int64 [C, C]; rows are classes of the truth, columns those of the prediction.
    """
    counted = truth != IGNORED
    truth, predicted = truth[counted].astype(np.int64), predicted[counted]
    predicted = np.where(predicted == IGNORED, (truth + 1) % num_classes, predicted)
    pairs = truth * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union [..., C] of confusion matrices [..., C, C].

    A class that is neither in the truth nor predicted has none: NaN, as in VOC's devkit.
    """
    found = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = confusion.sum(axis=-1) + confusion.sum(axis=-2) - found
    return _ratio(found, union)


def mean_iou(confusion: np.ndarray) -> np.ndarray:
    """Mean IoU [...] over the classes that occur; NaN if no pixel counts.

    VOC's devkit gives NaN where a class is in neither truth nor prediction, which cannot happen on
    its validation set; here such a class is left out of the mean.
    """
    values = iou(confusion)
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0).sum(axis=-1), present.sum(axis=-1))


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Fraction [..., C] of the pixels of each class that are found; NaN for an absent class."""
    found = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(found, confusion.sum(axis=-1))


def pixel_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Fraction [...] of all counted pixels that are right; NaN if no pixel counts."""
    found = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(found.sum(axis=-1), confusion.sum(axis=(-2, -1)))


def bootstrap(
    confusions: np.ndarray, *, seed: int, resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """95 % intervals of `mean_iou` and `pixel_accuracy`, images drawn anew with replacement.

    Args:
      confusions: [N, C, C], one matrix an image.
      seed: of the bootstrap.
      resamples: of the bootstrap.
    """

    def measure(pooled: np.ndarray) -> dict[str, float]:
        return {
            "miou": float(mean_iou(pooled)),
            "pixel_accuracy": float(pixel_accuracy(pooled)),
        }

    return bootstrap_lib.of_pooled(confusions, measure, seed=seed, resamples=resamples)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
