"""Colors and shapes of the classes on a map: classes near each other differ in color."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLORS, SHAPES = 8, 4


def choose(content: Mapping[str, Any]) -> list[tuple[int, int]]:
    """A (color, shape) for each class of a map; no two alike up to 32 classes.

    Of the least used colors each class takes the one whose classes are farthest from it on the
    newest map; its shape tells it from them.

    Args:
      content: of a sound ``gallery/atlas.json``, as `pictures.is_sound_map` says.
    """
    centers = _centers(content)
    members: list[list[int]] = [[] for _ in range(COLORS)]
    looks = []
    for number, center in enumerate(centers):
        fewest = min(map(len, members))
        free = [color for color in range(COLORS) if len(members[color]) == fewest]
        color = max(free, key=lambda c: _distance(center, centers[members[c]]))  # first of equals
        looks.append((color, (color + len(members[color])) % SHAPES))
        members[color].append(number)
    return looks


def _centers(content: Mapping[str, Any]) -> np.ndarray:
    """Means of the points of each class, [C, 2]; those of a class without a point are NaN."""
    points = np.array(content["now"] if "now" in content else content["start"], float).T
    labels = np.array(content["labels"], int)
    nowhere = np.full(2, np.nan)
    classes = range(len(content["classes"]))
    found = [points[labels == c].mean(0) if (labels == c).any() else nowhere for c in classes]
    return np.array(found).reshape(-1, 2)


def _distance(center: np.ndarray, others: Sequence[np.ndarray] | np.ndarray) -> float:
    if not len(others):
        return 0.0
    distances = np.linalg.norm(np.asarray(others) - center, axis=-1)
    return float(np.min(np.nan_to_num(distances)))
