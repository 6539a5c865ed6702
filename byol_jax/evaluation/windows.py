"""Windows of one size that a picture of any size is predicted in.

Shapes: H x W pixels of a picture, S side of a window.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.metrics import segmentation

# Windows of a picture advance by this much of their side, at most.
ADVANCE = 2 / 3


class Window(NamedTuple):
    """Where a window begins in the padded picture, in pixels."""

    top: int
    left: int


def central(shape: tuple[int, int], size: int) -> list[Window]:
    """The one in the middle of a picture; a small one is padded at the right and bottom."""
    top, left = ((max(side, size) - size) // 2 for side in shape)
    return [Window(top, left)]


def sliding(shape: tuple[int, int], size: int) -> list[Window]:
    """As few as cover the picture, evenly spread, that overlap by a third or more."""
    rows, columns = (_starts(side, size) for side in shape)
    return [Window(top, left) for top in rows for left in columns]


def _starts(side: int, size: int) -> list[int]:
    room = max(side - size, 0)
    count = 1 + int(np.ceil(room / max(1, int(ADVANCE * size))))
    return np.linspace(0, room, count).round().astype(int).tolist()


def cut(pixels: np.ndarray, window: Window, size: int, fill: np.ndarray) -> np.ndarray:
    """uint8 [S, S, 3] of a picture [H, W, 3]; what is beyond its sides has the color ``fill``."""
    part = pixels[window.top : window.top + size, window.left : window.left + size]
    found = np.empty((size, size, 3), np.uint8)
    found[:] = np.rint(fill)
    found[: part.shape[0], : part.shape[1]] = part
    return found


def in_batches(items: Sequence[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Arrays of one shape, stacked by so many, the last filled up; and how many are real."""
    for start in range(0, len(items), size):
        part = np.stack(items[start : start + size])
        yield np.pad(part, [(0, size - len(part)), *[(0, 0)] * (part.ndim - 1)]), len(part)


def paste(
    shape: tuple[int, int], windows: Sequence[Window], labels: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [H, W] of a window's [S, S], 0 beyond it, and which pixels are in it."""
    ((top, left),), (found,) = windows, labels
    whole, seen = np.zeros(shape, found.dtype), np.zeros(shape, bool)
    rows, columns = (slice(start, start + len(found)) for start in (top, left))
    whole[rows, columns] = found[: shape[0] - top, : shape[1] - left]
    seen[rows, columns] = True
    return whole, seen


def average(
    shape: tuple[int, int], windows: Sequence[Window], scores: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [H, W] by the mean of the scores [S, S, C] of all windows of a pixel; all are seen."""
    total = np.zeros((*shape, scores[0].shape[-1]), np.float32)
    count = np.zeros((*shape, 1), np.float32)
    for (top, left), score in zip(windows, scores, strict=True):
        rows, columns = (slice(start, start + len(score)) for start in (top, left))
        total[rows, columns] += score[: shape[0] - top, : shape[1] - left]
        count[rows, columns] += 1
    return np.asarray(best(total / count)), np.ones(shape, bool)


def best(scores: jax.Array) -> jax.Array:
    """Labels [...], uint8, of the highest of scores [..., C]; `IGNORED` where one is no number."""
    are_numbers = jnp.isfinite(scores).all(axis=-1)
    labels = jnp.argmax(scores, axis=-1)
    return jnp.where(are_numbers, labels, segmentation.IGNORED).astype(jnp.uint8)


class Mode(NamedTuple):
    """How a picture is predicted.

    Attributes:
      windows: of (shape, S).
      reduce: what is kept of scores [b, S, S, C] on the device.
      join: labels [H, W] and which pixels are seen, of (shape, windows, what was kept of each).
    """

    windows: Callable[[tuple[int, int], int], list[Window]]
    reduce: Callable[[jax.Array], jax.Array]
    join: Callable[..., tuple[np.ndarray, np.ndarray]]


MODES = {
    "crop": Mode(central, best, paste),
    "slide": Mode(sliding, lambda scores: scores, average),
}
