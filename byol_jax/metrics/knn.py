"""Votes of the nearest neighbors in cosine similarity, for many settings in one search.

Shapes: N train features, M queries, m queries of a chunk, F embedding size, C classes.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from byol_jax.metrics import representation
from byol_jax.workdir import console

TABLE_SIZE = 1 << 25  # similarities held at once, which bounds the memory
# Equal images are equally similar wherever they are in a product: float64 is exact to some 1e-15.
DECIMALS = 10


class KnnParams(NamedTuple):
    """How neighbors vote.

    Attributes:
      k: number of neighbors; above N it means all of them.
      temperature: a neighbor weighs exp(similarity / temperature); the smaller, the more the
        nearest ones count.
    """

    k: int
    temperature: float


class Bank(NamedTuple):
    """What is searched.

    Attributes:
      features: [N, F], of any length; N at least 1.
      labels: [N] integers in [0, C), or -1: such an image does not vote. At least one has a label.
      num_classes: C.
    """

    features: np.ndarray
    labels: np.ndarray
    num_classes: int


def predict(bank: Bank, queries: np.ndarray, setting: KnnParams) -> np.ndarray:
    """Classes [M] of queries [M, F] by a vote (Wu et al. 2018, section 3.4).

    Of classes with equal votes it is the first, of equally similar neighbors the first in the
    bank.
    """
    chunks = [votes[0].argmax(axis=1) for votes in _votes(bank, queries, [setting])]
    return np.concatenate(chunks)


def label_ranks(
    bank: Bank,
    queries: np.ndarray,
    labels: np.ndarray,
    settings: Sequence[KnnParams],
    *,
    own: np.ndarray | None = None,
) -> np.ndarray:
    """How many classes come before the right one, [settings, M]: top-k is where it is below k.

    Among equal votes the first class ranks first. A class without a single vote was not found: its
    rank is C.

    Args:
      bank: what to search.
      queries: [M, F].
      labels: [M] the right classes; -1 is never found.
      settings: of the votes.
      own: [M] where in the bank each query is itself, to be left out (leave-one-out).
    """
    ranks = np.empty((len(settings), len(queries)), np.int64)
    start = 0
    for votes in _votes(bank, queries, settings, own):
        part = slice(start, start + votes.shape[1])
        ranks[:, part] = _rank(votes, labels[part])
        start = part.stop
    return ranks


def _rank(votes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ranks [settings, m] of labels [m] by votes [settings, m, C]."""
    mine = np.take_along_axis(votes, labels[None, :, None], axis=2)
    is_before = np.arange(votes.shape[2]) < labels[:, None]
    rank = ((votes > mine) | ((votes == mine) & is_before)).sum(axis=2)
    return np.where((mine[..., 0] > 0) & (labels >= 0), rank, votes.shape[2])


def _votes(
    bank: Bank, queries: np.ndarray, settings: Sequence[KnnParams], own: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Votes [settings, m, C] of chunk after chunk of the queries."""
    voters = np.flatnonzero(bank.labels >= 0)
    features = representation.unit(bank.features[voters].astype(np.float64))
    most = min(max(setting.k for setting in settings), len(features) - (own is not None))
    rows = max(1, min(1024, TABLE_SIZE // len(features)))
    starts = range(0, len(queries), rows)
    bar = console.progress_bar(total=len(queries), unit="img", title="neighbors", delay=2)
    for start in console.shown(bar, starts, rows):
        similarity = (
            representation.unit(queries[start : start + rows].astype(np.float64)) @ features.T
        )
        np.round(similarity, DECIMALS, out=similarity)  # [m, N]
        if own is not None:
            _leave_out(similarity, voters, own[start : start + rows])
        nearest, similarity = _nearest(similarity, most)
        labels = bank.labels[voters[nearest]]
        yield np.stack([_vote(labels, similarity, bank.num_classes, s) for s in settings])


def _leave_out(similarity: np.ndarray, voters: np.ndarray, own: np.ndarray) -> None:
    """Takes each query [m], by its number among all images, out of the voters [N] if it is one."""
    column = np.minimum(np.searchsorted(voters, own), len(voters) - 1)
    rows = np.flatnonzero(voters[column] == own)
    similarity[rows, column[rows]] = -np.inf


def _nearest(similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar of [m, N], best first: which, and how similar, [m, k] each.

    Of equal ones the first.
    """
    nearest = np.sort(np.argpartition(similarity, -k, axis=1)[:, -k:], axis=1)
    found = np.take_along_axis(similarity, nearest, axis=1)
    last = found.min(axis=1, keepdims=True)
    for row in np.flatnonzero((similarity >= last).sum(axis=1) > k):  # some were left out
        above = np.flatnonzero(similarity[row] > last[row])
        equal = np.flatnonzero(similarity[row] == last[row])
        nearest[row] = np.sort(np.concatenate([above, equal[: k - len(above)]]))
    found = np.take_along_axis(similarity, nearest, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(found, order, axis=1)


def _vote(
    labels: np.ndarray, similarity: np.ndarray, num_classes: int, setting: KnnParams
) -> np.ndarray:
    """Votes [m, C] of neighbors [m, k], best first; the best weighs 1, so that none overflows."""
    labels, similarity = labels[:, : setting.k], similarity[:, : setting.k].astype(np.float64)
    weights = np.exp((similarity - similarity[:, :1]) / setting.temperature)
    slots = np.arange(len(labels))[:, None] * num_classes + labels
    votes = np.bincount(slots.ravel(), weights.ravel(), minlength=len(labels) * num_classes)
    return votes.reshape(len(labels), num_classes)
