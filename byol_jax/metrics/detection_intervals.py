"""What is said of detections on a set of images, with intervals by drawing images anew.

Shapes: K classes, N images.
"""

import numpy as np

from byol_jax.metrics import bootstrap, detection, detection_coco


def summary(
    truth: detection.Truth,
    detections: detection.Detections,
    *,
    num_classes: int,
    num_images: int,
    seed: int,
    resamples: int,
) -> tuple[dict[str, float], dict[str, tuple[float, float]], np.ndarray]:
    """Measures of detections, their 95 % intervals, and VOC2007's AP50 of each class [K].

    ``AP50`` has VOC2007's eleven points, ``AP50_area`` the area since VOC2010; ``coco_*`` are
    COCO's, to whose rules difficult objects are crowds. A class without a box that counts is left
    out of the mean.

    Args:
      truth: of all images, 0 to N - 1.
      detections: on all images.
      num_classes: K.
      num_images: N.
      seed: of the bootstrap.
      resamples: of the bootstrap.
    """
    voc = detection.voc_curves(_from_1(truth), _from_1(detections), num_classes=num_classes)
    coco = detection_coco.curves(truth, detections, num_classes)

    def measure(times: np.ndarray | None) -> dict[str, float]:
        table = np.array([detection_coco.averages(curve, times)[0] for curve in coco])
        by_points = {
            points: [detection.average(curve, 0, points, times) for curve in voc]
            for points in (11, None)
        }
        return {
            "AP50": _mean(by_points[11]),
            "AP50_area": _mean(by_points[None]),
            "coco_AP": _mean(table),
            "coco_AP50": _mean(table[:, 0]),
            "coco_AP75": _mean(table[:, 5]),
        }

    rows = [measure(times) for times in bootstrap.draws(num_images, seed=seed, resamples=resamples)]
    values = measure(None)
    intervals = {name: _interval([row[name] for row in rows]) for name in values}
    by_class = np.array([detection.average(curve, 0, 11) for curve in voc])
    return values, intervals, by_class


def _from_1(boxes: detection.Boxes) -> detection.Boxes:
    """Boxes as VOC's devkit has them: pixels counted from 1, the last one in the box."""
    return boxes._replace(box=np.asarray(boxes.box, np.float64).reshape(-1, 4) + [1, 1, 0, 0])


def _mean(values: np.ndarray | list[float]) -> float:
    found = np.asarray(values, np.float64)
    return float("nan") if np.isnan(found).all() else float(np.nanmean(found))


def _interval(values: list[float]) -> tuple[float, float]:
    found = [value for value in values if not np.isnan(value)]
    return tuple(np.percentile(found, bootstrap.LIMITS).tolist()) if found else (np.nan, np.nan)
