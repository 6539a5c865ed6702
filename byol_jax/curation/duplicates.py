"""Near-duplicates: which pairs may be some, how alike they have to be, which images to keep.

An encoder and very small pictures propose pairs, since neither alone finds all: what augmentations
have taught an encoder to ignore may be all that tells two photos of a series apart. Pictures then
decide (`alignment.similarity`), so that a threshold means the same with every encoder.

Shapes: N images, n pairs, F embedding size, T side of a picture.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from byol_jax.curation import alignment, neighbors

PROPOSED = 5  # pairs that an image has by each of both measures
PRIOR = 0.05  # share of images that are expected to be near-duplicates
COARSE = 8  # side of the very small pictures
MARGIN = 0.02  # by which a pair may be less alike than the least of known ones, at half the size


class Threshold(NamedTuple):
    """How alike near-duplicates are, and what that was chosen from.

    Attributes:
      value: from which on two images are near-duplicates.
      found: share of images that are found again as resized, recompressed or cropped.
      near: share of images whose most similar other image is as alike.
      same: [m] similarities of images to what was made of them.
      other: [N] similarities of images to the most similar other one.
    """

    value: float
    found: float
    near: float
    same: np.ndarray
    other: np.ndarray


class Pairs(NamedTuple):
    """Pairs of images and how alike they are.

    Attributes:
      images: int [n, 2], the smaller number first.
      similarity: float32 [n].
    """

    images: np.ndarray
    similarity: np.ndarray


def propose(
    nearest: np.ndarray, pictures: np.ndarray, rows: np.ndarray | None = None
) -> np.ndarray:
    """Pairs int [n, 2] that may be near-duplicates: the nearest by features and by pictures.

    Args:
      nearest: int [N, k] by features, best first.
      pictures: float32 [N, T, T, 3].
      rows: of the images to look at; None: all.
    """
    coarse = alignment.pool(pictures, COARSE).reshape(len(pictures), -1)
    coarse = coarse if rows is None else coarse[rows]
    rows = np.arange(len(pictures)) if rows is None else rows
    if len(rows) < 2:
        return np.zeros((0, 2), np.int64)
    k = min(PROPOSED, len(rows) - 1)
    alike, _ = neighbors.nearest(neighbors.centered(coarse), k, title="near-duplicates")
    found = [
        np.stack([np.repeat(np.arange(len(which)), which.shape[1]), which.ravel()], axis=1)
        for which in (nearest[:, :PROPOSED], rows[alike])
    ]
    found[1][:, 0] = rows[found[1][:, 0]]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


class Known(NamedTuple):
    """Some images beside near-duplicates that were made of them.

    Attributes:
      rows: int [m] of the images.
      variants: float32 [m, T, T, 3].
    """

    rows: np.ndarray
    variants: np.ndarray

    def similarity(self, pictures: np.ndarray) -> np.ndarray:
        """How alike both are, float32 [m], in pictures [N, T, T, 3] or smaller ones."""
        side, count = pictures.shape[1], len(self.rows)
        both = np.concatenate([pictures[self.rows], alignment.pool(self.variants, side)])
        pairs = np.stack([np.arange(count), count + np.arange(count)], axis=1)
        return alignment.similarity(both, pairs)


def compare(pictures: np.ndarray, pairs: np.ndarray, known: Known) -> Pairs:
    """How alike pairs are; those are left out that even half the size tells from known ones."""
    small = alignment.pool(pictures, alignment.SIDE // 2)
    least = known.similarity(small).min() - MARGIN
    pairs = pairs[alignment.similarity(small, pairs) >= least]
    return Pairs(pairs, alignment.similarity(pictures, pairs))


def choose_threshold(pictures: np.ndarray, known: Known, pairs: np.ndarray) -> Threshold:
    """The similarity at which the fewest errors are expected.

    An error is a near-duplicate that is not found, or an image taken for one; `PRIOR` of the images
    are expected to be some. How often an image has another one that is as alike follows from the
    quartiles of the nearest others, as if -log(1 - similarity) were normal: at the very top they
    may be true near-duplicates.

    Args:
      pictures: float32 [N, T, T, 3].
      known: some of them.
      pairs: int [n, 2] that are proposed.
    """
    same = np.sort(known.similarity(pictures))
    pairs = pairs[np.isin(pairs, known.rows).any(axis=1)]
    nearest = np.full(len(pictures), -1, np.float32)
    for column in pairs.T:
        np.maximum.at(nearest, column, alignment.similarity(pictures, pairs))
    other = nearest[known.rows]
    levels = np.unique(np.concatenate([same, np.linspace(0.5, 0.999, 500)]))
    found = _share_above(same, levels)
    errors = PRIOR * (1 - found) + (1 - PRIOR) * _expected_above(other, levels)
    best = np.flatnonzero(errors <= errors.min() + 1e-6)
    return at(float(levels[best[len(best) // 2]]), Threshold(0.0, 0.0, 0.0, same, other))


def _expected_above(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Share of a normal distribution of the same quartiles above levels, by -log(1 - x)."""
    low, middle, high = _stretched(np.quantile(values, (0.25, 0.5, 0.75)))
    spread = max((high - low) / 1.349, 1e-6)
    return scipy.stats.norm.sf((_stretched(levels) - middle) / spread)


def _stretched(similarity: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(1 - similarity, 1e-6))


def at(value: float, chosen: Threshold) -> Threshold:
    """The same at a value that a person gives."""
    level = np.array([value])
    shares = (float(_share_above(x, level)[0]) for x in (chosen.same, chosen.other))
    return Threshold(value, *shares, chosen.same, chosen.other)


def _share_above(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return 1 - np.searchsorted(ordered, levels, side="left") / len(ordered)


def keepers(pairs: Pairs, order: Sequence[int], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Which image stands for each, and how alike they are.

    In their order, images are kept unless one that is kept already is a near-duplicate of theirs.
    So no chain of small changes makes one of many images.

    Args:
      pairs: of images.
      order: all images, the best first.
      threshold: from which on a pair counts.

    Returns:
      int [N], the image itself where it is kept; float32 [N], 1 there.
    """
    owner, alike = np.arange(len(order)), np.ones(len(order), np.float32)
    rank = np.empty(len(order), np.int64)
    rank[np.asarray(order)] = np.arange(len(order))
    is_pair = pairs.similarity >= threshold
    images, similarity = pairs.images[is_pair], pairs.similarity[is_pair]
    images = np.take_along_axis(images, np.argsort(rank[images], axis=1), axis=1)  # better first
    # By the worse image, and of its better ones the most alike first.
    for row in np.lexsort((-similarity, rank[images[:, 1]])):
        better, worse = images[row]
        if owner[better] == better and owner[worse] == worse:
            owner[worse], alike[worse] = better, similarity[row]
    return owner, alike


def find(
    nearest: np.ndarray,
    pictures: np.ndarray,
    order: Sequence[int],
    pairs: Pairs,
    known: Known,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """`keepers`, also of images that have more near-duplicates than were proposed.

    Args:
      nearest: int [N, k] by features.
      pictures: float32 [N, T, T, 3].
      order: all images, the best first.
      pairs: those of `propose`, compared.
      known: some images beside near-duplicates that were made of them.
      threshold: from which on a pair counts.
    """
    owner, alike = keepers(pairs, order, threshold)
    while True:
        kept = np.flatnonzero(owner == np.arange(len(owner)))
        if len(kept) == len(owner) or not _is_crowded(pairs, threshold, len(owner)):
            return owner, alike
        found = compare(pictures, propose(nearest[:0], pictures, kept), known)
        is_new = found.similarity >= threshold
        if not is_new.any():
            return owner, alike
        pairs = Pairs(*(np.concatenate(both) for both in zip(pairs, found, strict=True)))
        owner, alike = keepers(pairs, order, threshold)


def _is_crowded(pairs: Pairs, threshold: float, count: int) -> bool:
    """Whether an image has so many near-duplicates that there may be more."""
    images = pairs.images[pairs.similarity >= threshold]
    return bool(np.bincount(images.ravel(), minlength=count).max(initial=0) >= PROPOSED)
