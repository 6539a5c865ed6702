"""Average precision of detected boxes by the rules of PASCAL VOC.

Shapes: M boxes of the truth, D detections, K classes, T thresholds. A box is [left, top, right,
bottom] in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())  # of IoU


class Truth(NamedTuple):
    """What there is to find; arrays of M rows."""

    image: np.ndarray  # int
    label: np.ndarray  # int
    box: np.ndarray  # [M, 4]
    difficult: np.ndarray  # bool: neither asked for nor wrong


class Detections(NamedTuple):
    """What was found; arrays of D rows."""

    image: np.ndarray  # int
    label: np.ndarray  # int
    box: np.ndarray  # [D, 4]
    score: np.ndarray  # the higher the surer


Boxes = TypeVar("Boxes", Truth, Detections)


def box_iou(a: np.ndarray, b: np.ndarray, *, inclusive: bool = False) -> np.ndarray:
    """Intersection over union [m, n] of boxes [m, 4] and [n, 4].

    Args:
      a: boxes.
      b: boxes.
      inclusive: right and bottom belong to the box, as in VOC's devkit, which adds 1 to sides.
    """
    shared, area_a, area_b = overlap(a, b, inclusive)
    return ratio(shared, area_a[:, None] + area_b[None] - shared)


def overlap(
    a: np.ndarray, b: np.ndarray, inclusive: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Areas [m, n] of intersections, and areas [m] and [n] of the boxes."""
    a, b = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (a, b))
    corners = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(corners[1] - corners[0] + inclusive, 0), axis=-1)
    return (
        shared,
        *(np.prod(boxes[:, 2:] - boxes[:, :2] + inclusive, axis=-1) for boxes in (a, b)),
    )


def voc_ap(
    truth: Truth,
    detections: Detections,
    *,
    num_classes: int,
    thresholds: Sequence[float] = (0.5,),
    points: int | None = 11,
    inclusive: bool = True,
) -> np.ndarray:
    """Average precision [K, T] by VOC's devkit (Everingham et al. 2010, section 4.2).

    A detection takes the box of its image and class that it overlaps most. Where that is enough, it
    is right, or wrong if the box is taken, and does not count if the box is difficult.

    Args:
      truth: of all images.
      detections: on all images.
      num_classes: K.
      thresholds: T values that IoU has to reach.
      points: 11: the mean of the best precision at recalls 0, 0.1, ..., 1, as VOC2007; None: the
        area under the curve, as since VOC2010.
      inclusive: as in `box_iou`.

    Returns:
      Fractions; NaN for a class without a box that counts.
    """
    curves = voc_curves(
        truth, detections, num_classes=num_classes, thresholds=thresholds, inclusive=inclusive
    )
    return np.array([[average(curve, t, points) for t in range(len(thresholds))]
                     for curve in curves]).reshape(num_classes, len(thresholds))  # fmt: skip


class Curve(NamedTuple):
    """The detections of a class, best first, and how they were judged.

    Attributes:
      image: int [D].
      right: bool [T, D].
      wrong: bool [T, D]; a detection that is neither does not count.
      asked: int, images of the boxes that are to be found, one entry a box.
    """

    image: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    asked: np.ndarray


def voc_curves(
    truth: Truth,
    detections: Detections,
    *,
    num_classes: int,
    thresholds: Sequence[float] = (0.5,),
    inclusive: bool = True,
) -> list[Curve]:
    """What `voc_ap` averages, of each class; arguments as there."""
    curves = []
    for label in range(num_classes):
        asked = of_class(truth, label)
        given = of_class(detections, label)
        given = rows(given, np.argsort(-given.score, kind="stable"))
        overlaps, nearest = _nearest(asked, given, inclusive)
        judged = [_judge(asked, overlaps, nearest, threshold) for threshold in thresholds]
        right, wrong = (np.array(part, bool) for part in zip(*judged, strict=True))
        curves.append(Curve(given.image, right, wrong, asked.image[~asked.difficult]))
    return curves


def of_class(boxes: Boxes, label: int) -> Boxes:
    """Those of one class."""
    return rows(boxes, boxes.label == label)


def rows(boxes: Boxes, which: np.ndarray) -> Boxes:
    """Some of the rows."""
    return type(boxes)(*(np.asarray(column)[which] for column in boxes))


def _nearest(asked: Truth, given: Detections, inclusive: bool) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the highest IoU with a box of its image, and which box that is."""
    overlaps, nearest = np.zeros(len(given.score)), np.full(len(given.score), -1)
    for image in np.unique(given.image):
        boxes, mine = np.flatnonzero(asked.image == image), np.flatnonzero(given.image == image)
        if boxes.size:
            table = box_iou(given.box[mine], asked.box[boxes], inclusive=inclusive)
            overlaps[mine], nearest[mine] = table.max(axis=1), boxes[table.argmax(axis=1)]
    return overlaps, nearest


def _judge(
    asked: Truth, overlaps: np.ndarray, nearest: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which detections, best first, are right and which wrong; the others do not count."""
    hits = (nearest >= 0) & (overlaps >= threshold)
    easy = hits & ~asked.difficult[nearest] if len(asked.difficult) else hits
    right, candidates = np.zeros(len(hits), bool), np.flatnonzero(easy)
    _, first = np.unique(nearest[candidates], return_index=True)
    right[candidates[first]] = True
    return right, ~right & (~hits | easy)


def average(curve: Curve, t: int, points: int | None, times: np.ndarray | None = None) -> float:
    """Average precision at threshold t; NaN without a box to find.

    Args:
      curve: of a class.
      t: number of the threshold.
      points: as of `voc_ap`.
      times: [N] how often each image counts; None: once.
    """
    if times is None:
        count, weights = len(curve.asked), 1
    else:
        count, weights = int(times[curve.asked].sum()), times[curve.image]
    if not count:
        return float("nan")
    found, missed = np.cumsum(weights * curve.right[t]), np.cumsum(weights * curve.wrong[t])
    precision = found / np.maximum(found + missed, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or above
    if points is None:
        steps = np.diff(found, prepend=0) / count
        return float((steps * best).sum())
    # Recall r / 10 in whole numbers: a float would miss a tenth that is met exactly.
    first = np.searchsorted((points - 1) * found, np.arange(points) * count)
    return float(np.append(best, 0)[first].sum() / points)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; 0 where whole is."""
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)
