"""Labels that the images speak against, by classifiers that have not seen them.

Confident learning (Northcutt et al. 2021): an image is suspect if another class is likelier than
that class usually is for its own images. cleanlab would bring pandas for these few lines.

Shapes: N images, F embedding size, C classes.
"""

import warnings
from typing import NamedTuple

import numpy as np
import sklearn.discriminant_analysis

from byol_jax.curation import neighbors

FOLDS = 5  # each class needs as many images, to be judged


class Judged(NamedTuple):
    """What classifiers say of labels.

    Attributes:
      margin: float [N], probability of the label less that of the likeliest other class; the lower,
        the more suspect. NaN where nothing can be said: no label, or a class of too few images.
      suggested: int [N], the likeliest class; -1 where nothing can be said.
      is_suspect: bool [N].
    """

    margin: np.ndarray
    suggested: np.ndarray
    is_suspect: np.ndarray


def judge(features: np.ndarray, labels: np.ndarray, *, seed: int) -> Judged:
    """Judges each label by a classifier of four fifths of the other images.

    Args:
      features: [N, F].
      labels: int [N]; -1 without.
      seed: of the folds.
    """
    labels = np.asarray(labels)
    nothing = Judged(
        np.full(len(labels), np.nan), np.full(len(labels), -1), np.zeros(len(labels), bool)
    )
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    classes = classes[counts >= FOLDS]
    rows = np.flatnonzero(np.isin(labels, classes))
    if len(classes) < 2:
        return nothing
    own = np.searchsorted(classes, labels[rows])
    chances = cross_validated(neighbors.centered(features[rows]), own, seed=seed)
    margin, suggested, is_suspect = nothing
    margin[rows], suggested[rows], is_suspect[rows] = _suspect(chances, own)
    suggested[rows] = classes[suggested[rows]]
    return Judged(margin, suggested, is_suspect)


def cross_validated(features: np.ndarray, labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Probabilities [N, C], each by a classifier that was fitted without the image's fold.

    The classifier is linear discriminant analysis with a shrunk covariance (Ledoit and Wolf 2004),
    which has a closed form.

    Args:
      features: [N, F].
      labels: int [N] in [0, C), each class `FOLDS` times at least.
      seed: of the folds.
    """
    folds = np.empty(len(labels), np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds[order] = np.arange(len(labels)) % FOLDS  # of each class about as many in each fold
    chances = np.empty((len(labels), labels.max() + 1))
    for fold in range(FOLDS):
        model = sklearn.discriminant_analysis.LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage="auto"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(features[folds != fold], labels[folds != fold])
            chances[folds == fold] = model.predict_proba(features[folds == fold])
    return chances


def _suspect(chances: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins, likeliest classes and whether labels are suspect, by probabilities [N, C]."""
    rows = np.arange(len(labels))
    own = chances[rows, labels]
    others = chances.copy()
    others[rows, labels] = -1
    usual = np.bincount(labels, own) / np.bincount(labels)
    confident = np.where(chances >= usual, chances, -1)
    likeliest = confident.argmax(axis=1)
    is_suspect = (confident.max(axis=1) >= 0) & (likeliest != labels)
    return own - others.max(axis=1), chances.argmax(axis=1), is_suspect
