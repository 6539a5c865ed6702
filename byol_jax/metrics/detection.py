"""Average precision of detected boxes by the rules of PASCAL VOC and of COCO.

Shapes: M boxes of the truth, D detections, K classes, T thresholds. A box is [left, top, right,
bottom] in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())  # of IoU
_RECALLS = np.linspace(0, 1, 101)  # COCO's
_AREAS = {  # COCO's, in pixels
    "all": (0, 1e10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}


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


def box_iou(a: np.ndarray, b: np.ndarray, *, inclusive: bool = False) -> np.ndarray:
    """Intersection over union [m, n] of boxes [m, 4] and [n, 4].

    Args:
      a: boxes.
      b: boxes.
      inclusive: right and bottom belong to the box, as in VOC's devkit, which adds 1 to sides.
    """
    shared, area_a, area_b = _overlap(a, b, inclusive)
    return _ratio(shared, area_a[:, None] + area_b[None] - shared)


def _overlap(
    a: np.ndarray, b: np.ndarray, inclusive: bool
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
    found = np.full((num_classes, len(thresholds)), np.nan)
    for label in range(num_classes):
        asked = _of_class(truth, label)
        if not np.sum(~asked.difficult):
            continue
        given = _of_class(detections, label)
        given = _rows(given, np.argsort(-given.score, kind="stable"))
        overlaps, nearest = _nearest(asked, given, inclusive)
        for t, threshold in enumerate(thresholds):
            right, wrong = _judge(asked, overlaps, nearest, threshold)
            found[label, t] = _average(right, wrong, int(np.sum(~asked.difficult)), points)
    return found


def _of_class(boxes, label):
    return _rows(boxes, boxes.label == label)


def _rows(boxes, which):
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


def _average(right: np.ndarray, wrong: np.ndarray, count: int, points: int | None) -> float:
    found, missed = np.cumsum(right), np.cumsum(wrong)
    precision = found / np.maximum(found + missed, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or above
    if points is None:
        steps = np.diff(found, prepend=0) / count
        return float((steps * best).sum())
    # Recall r / 10 in whole numbers: a float would miss a tenth that is met exactly.
    first = np.searchsorted((points - 1) * found, np.arange(points) * count)
    return float(np.append(best, 0)[first].sum() / points)


def coco_ap(
    truth: Truth, detections: Detections, *, num_classes: int, difficult_as_crowd: bool = True
) -> tuple[dict[str, float], np.ndarray]:
    """The twelve numbers of COCO's evaluation, and AP [K, T] of classes at `THRESHOLDS`.

    Args:
      truth: of all images.
      detections: on all images.
      num_classes: K.
      difficult_as_crowd: treat difficult boxes as COCO treats crowds, which any number of
        detections may meet and none has to; else they count as all others.

    Returns:
      Fractions by name; NaN where there is nothing to find.
    """
    if not difficult_as_crowd:
        truth = truth._replace(difficult=np.zeros(len(truth.difficult), bool))
    curves = {
        area: [
            [_coco_class(_of_class(truth, label), _of_class(detections, label), area, most)
             for label in range(num_classes)]
            for most in ((1, 10, 100) if area == "all" else (100,))
        ]
        for area in _AREAS
    }  # fmt: skip
    precision = {area: np.array([p for p, _ in rows[-1]]) for area, rows in curves.items()}
    recall = {
        area: np.array([[r for _, r in row] for row in rows]) for area, rows in curves.items()
    }
    by_class = precision["all"]
    stats = {
        "AP": _mean(by_class),
        "AP50": _mean(by_class[:, 0]),
        "AP75": _mean(by_class[:, 5]),
        **{f"AP{area}": _mean(precision[area]) for area in ("small", "medium", "large")},
        **{f"AR{most}": _mean(recall["all"][i]) for i, most in enumerate((1, 10, 100))},
        **{f"AR{area}": _mean(recall[area]) for area in ("small", "medium", "large")},
    }
    return stats, by_class


def _mean(values: np.ndarray) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def _coco_class(
    asked: Truth, given: Detections, area: str, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision [T] and recall [T] of a class, of boxes of a range of areas.

    Args:
      asked: boxes of the class.
      given: detections of the class.
      area: a key of `_AREAS`.
      most: so many detections of an image count, the surest.
    """
    parts = [
        _coco_image(_rows(asked, asked.image == image), _rows(given, given.image == image), area,
                    most)
        for image in np.union1d(asked.image, given.image)
    ]  # fmt: skip
    count = sum(part[3] for part in parts)
    if not count:
        return np.full((2, len(THRESHOLDS)), np.nan)
    scores = np.concatenate([part[0] for part in parts])
    order = np.argsort(-scores, kind="stable")
    right, wrong = (np.concatenate([p[i] for p in parts], axis=1)[:, order] for i in (1, 2))
    found, missed = np.cumsum(right, axis=1), np.cumsum(wrong, axis=1)
    precision = found / np.maximum(found + missed, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.pad(best, [(0, 0), (0, 1)])
    first = [np.searchsorted(row / count, _RECALLS) for row in found]
    averages = [row[where].mean() for row, where in zip(best, first, strict=True)]
    reached = found[:, -1] / count if found.shape[1] else np.zeros(len(THRESHOLDS))
    return np.array(averages), reached


def _coco_image(
    asked: Truth, given: Detections, area: str, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Scores, right and wrong [T, D] of an image's detections, and how many boxes are asked for."""
    given = _rows(given, np.argsort(-given.score, kind="stable")[:most])
    shared, areas, boxes = _overlap(given.box, asked.box, False)
    crowd = np.asarray(asked.difficult, bool)
    union = np.where(crowd, areas[:, None], areas[:, None] + boxes - shared)
    overlaps = _ratio(shared, union)
    low, high = _AREAS[area]
    ignored = crowd | (boxes < low) | (boxes > high)
    outside = (areas < low) | (areas > high)
    order = np.argsort(ignored, kind="stable")  # boxes that count come first
    right, wrong = np.zeros((2, len(THRESHOLDS), len(given.score)), bool)
    for t, threshold in enumerate(THRESHOLDS):
        taken = _match(overlaps[:, order], crowd[order], ignored[order], threshold)
        is_ignored = np.append(ignored[order], False)[taken]
        right[t] = (taken >= 0) & ~is_ignored
        wrong[t] = (taken < 0) & ~outside
    return given.score, right, wrong, int(np.sum(~ignored))


def _match(
    overlaps: np.ndarray, crowd: np.ndarray, ignored: np.ndarray, threshold: float
) -> np.ndarray:
    """Which box each detection, best first, takes; -1: none.

    The free box of highest IoU, the last of equal ones; a box that is ignored only if no other
    reaches the threshold.
    """
    taken, free = np.full(len(overlaps), -1), np.ones(overlaps.shape[1], bool)
    for d, row in enumerate(overlaps):
        reaches = (row >= threshold) & (free | crowd)
        for group in (reaches & ~ignored, reaches & ignored):
            if group.any():
                candidates = np.flatnonzero(group)
                taken[d] = candidates[::-1][row[candidates][::-1].argmax()]
                free[taken[d]] = False
                break
    return taken


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)
