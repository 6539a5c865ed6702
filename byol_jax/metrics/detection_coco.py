"""Average precision of detected boxes by the rules of COCO.

Shapes: D detections of a class, K classes, T thresholds, N images.
"""

import numpy as np

from byol_jax.metrics import detection
from byol_jax.metrics.detection import THRESHOLDS, Curve, Detections, Truth

_RECALLS = np.linspace(0, 1, 101)
_AREAS = {  # in pixels
    "all": (0, 1e10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}


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
    found = {
        area: [
            [averages(curve) for curve in curves(truth, detections, num_classes, area, most)]
            for most in ((1, 10, 100) if area == "all" else (100,))
        ]
        for area in _AREAS
    }
    precision = {area: np.array([p for p, _ in rows[-1]]) for area, rows in found.items()}
    recall = {area: np.array([[r for _, r in row] for row in rows]) for area, rows in found.items()}
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


def curves(
    truth: Truth, detections: Detections, num_classes: int, area: str = "all", most: int = 100
) -> list[Curve]:
    """The detections of each class, judged at all `THRESHOLDS`.

    Args:
      truth: of all images.
      detections: on all images.
      num_classes: K.
      area: of the boxes that count: all, small, medium, large.
      most: so many detections of an image and class count, the surest.
    """
    return [
        _of_class(detection.of_class(truth, label), detection.of_class(detections, label), area,
                  most)
        for label in range(num_classes)
    ]  # fmt: skip


def _of_class(asked: Truth, given: Detections, area: str, most: int) -> Curve:
    images = np.union1d(asked.image, given.image)
    parts = [
        _of_image(detection.rows(asked, asked.image == image),
                  detection.rows(given, given.image == image), area, most)
        for image in images
    ]  # fmt: skip
    if not parts:
        nothing = np.zeros((len(THRESHOLDS), 0), bool)
        return Curve(np.zeros(0, int), nothing, nothing, np.zeros(0, int))
    scores = np.concatenate([part[0] for part in parts])
    order = np.argsort(-scores, kind="stable")
    right, wrong = (np.concatenate([p[i] for p in parts], axis=1)[:, order] for i in (1, 2))
    image = np.repeat(images, [len(part[0]) for part in parts])[order]
    return Curve(image, right, wrong, np.repeat(images, [part[3] for part in parts]))


def averages(curve: Curve, times: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Average precision [T] and recall [T] of a class; NaN without a box to find.

    Args:
      curve: of the class.
      times: [N] how often each image counts; None: once.
    """
    count = len(curve.asked) if times is None else int(times[curve.asked].sum())
    weights = 1 if times is None else times[curve.image]
    if not count:
        return np.full(len(THRESHOLDS), np.nan), np.full(len(THRESHOLDS), np.nan)
    found = np.cumsum(weights * curve.right, axis=1)
    missed = np.cumsum(weights * curve.wrong, axis=1)
    precision = found / np.maximum(found + missed, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.pad(best, [(0, 0), (0, 1)])
    first = [np.searchsorted(row / count, _RECALLS) for row in found]
    mean = np.array([row[where].mean() for row, where in zip(best, first, strict=True)])
    reached = found[:, -1] / count if found.shape[1] else np.zeros(len(THRESHOLDS))
    return mean, reached


def _of_image(
    asked: Truth, given: Detections, area: str, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Scores, right and wrong [T, D] of an image's detections, and how many boxes are asked for."""
    given = detection.rows(given, np.argsort(-given.score, kind="stable")[:most])
    shared, areas, boxes = detection.overlap(given.box, asked.box)
    crowd = np.asarray(asked.difficult, bool)
    union = np.where(crowd, areas[:, None], areas[:, None] + boxes - shared)
    overlaps = detection.ratio(shared, union)
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
