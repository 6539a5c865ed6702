"""Average precision against values of two independent computations, and against wrong answers."""

import numpy as np
import pytest

from byol_jax.metrics import detection, detection_coco, detection_intervals
from tests.support import golden_data

GOLDEN = golden_data.load("dense")


def truth():
    table = GOLDEN["ap|truth_image_class_box_difficult"]
    image, label = table[:, :2].astype(int).T
    return detection.Truth(image, label, table[:, 2:6], table[:, 6] > 0)


def detections():
    table = GOLDEN["ap|detections_image_class_box_score"]
    image, label = table[:, :2].astype(int).T
    return detection.Detections(image, label, table[:, 2:6], table[:, 6])


CLASSES = int(GOLDEN["ap|classes"])
THRESHOLDS = GOLDEN["ap|thresholds"].tolist()


def test_iou_equals_the_golden_values():
    boxes = GOLDEN["box|a"], GOLDEN["box|b"]
    np.testing.assert_allclose(detection.box_iou(*boxes), GOLDEN["box|iou"], atol=4e-7)
    found = detection.box_iou(*boxes, inclusive=True)
    np.testing.assert_allclose(found, GOLDEN["box|iou_devkit_plus_one"], atol=4e-7)


@pytest.mark.parametrize("rules, inclusive", [("voc_devkit", True), ("voc_continuous", False)])
@pytest.mark.parametrize("key, points", [("area", None), ("eleven_exact", 11)])
def test_vocs_average_precision_equals_the_golden_values(rules, inclusive, key, points):
    found = detection.voc_ap(
        truth(), detections(), num_classes=CLASSES, thresholds=THRESHOLDS, points=points,
        inclusive=inclusive,
    )  # fmt: skip
    np.testing.assert_allclose(found, GOLDEN[f"ap|{rules}|{key}"], atol=1e-12)


def test_difficult_objects_do_not_count():
    found = detection.voc_ap(truth(), detections(), num_classes=CLASSES, points=None).mean()
    assert found == pytest.approx(GOLDEN["ap|voc_devkit|AP50_area"], abs=1e-12)
    counted = truth()._replace(difficult=np.zeros(len(truth().label), bool))
    other = detection.voc_ap(counted, detections(), num_classes=CLASSES, points=None).mean()
    assert other == pytest.approx(GOLDEN["ap|control_difficult_counted|AP50_area"], abs=1e-12)


@pytest.mark.parametrize("key, is_crowd", [("difficult_as_crowd", True), ("all_counted", False)])
def test_cocos_numbers_equal_the_golden_values(key, is_crowd):
    stats, table = detection_coco.coco_ap(
        truth(), detections(), num_classes=CLASSES, difficult_as_crowd=is_crowd
    )
    names = map(str, GOLDEN["ap|coco_stat_names"])
    expected = dict(zip(names, GOLDEN[f"ap|coco_{key}|stats"], strict=True))
    assert stats == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(table, GOLDEN[f"ap|coco_{key}|per_class_threshold"], atol=1e-12)


def perfect():
    real = truth()
    score = np.linspace(0.9, 0.1, len(real.label))
    return detection.Detections(real.image, real.label, real.box, score)


def test_a_perfect_prediction_scores_1():
    for points in (None, 11):
        found = detection.voc_ap(truth(), perfect(), num_classes=CLASSES, points=points)
        np.testing.assert_allclose(found, 1)
    assert detection_coco.coco_ap(truth(), perfect(), num_classes=CLASSES)[0]["AP"] == 1


def test_boxes_beside_the_objects_score_0():
    box = perfect().box + 10_000
    shifted = perfect()._replace(box=box)
    assert not detection.voc_ap(truth(), shifted, num_classes=CLASSES).any()
    assert detection_coco.coco_ap(truth(), shifted, num_classes=CLASSES)[0]["AP50"] == 0


def test_a_class_that_is_never_found_costs_its_part():
    label = perfect().label
    kept = detection.Detections(*(column[label != 2] for column in perfect()))
    found = detection.voc_ap(truth(), kept, num_classes=CLASSES)[:, 0]
    assert found[2] == 0 and np.delete(found, 2).min() == pytest.approx(1)


def test_a_second_detection_of_an_object_is_wrong():
    once = perfect()
    twice = detection.Detections(*(np.concatenate([column, column]) for column in once))
    twice = twice._replace(score=np.concatenate([once.score, once.score + 1]))
    found = detection.voc_ap(truth(), twice, num_classes=CLASSES, points=None)
    assert found.max() < 1.0001 and found.mean() == pytest.approx(1)  # the surer ones come first
    early = twice._replace(score=np.tile(once.score, 2))
    assert detection.voc_ap(truth(), early, num_classes=CLASSES, points=None).mean() < 0.9


def test_a_class_without_an_object_has_no_precision():
    assert np.isnan(detection.voc_ap(truth(), perfect(), num_classes=CLASSES + 1)[-1, 0])


def test_the_interval_of_average_precision_is_that_of_images_drawn_anew():
    """The measure of a resample equals that of a set in which drawn images stand several times."""
    real, given, count = truth(), detections(), int(truth().image.max()) + 1
    values, intervals, by_class = detection_intervals.summary(
        real, given, num_classes=CLASSES, num_images=count, seed=0, resamples=3
    )
    assert values["AP50"] == pytest.approx(np.nanmean(by_class))
    coco, _ = detection_coco.coco_ap(real, given, num_classes=CLASSES)
    assert values["coco_AP"] == pytest.approx(coco["AP"], abs=1e-12)
    rng, found = np.random.default_rng(0), []
    for _ in range(3):
        drawn = rng.integers(count, size=count)
        again = [_drawn(boxes, drawn) for boxes in (real, given)]
        stats, _ = detection_coco.coco_ap(*again, num_classes=CLASSES)
        again = [boxes._replace(box=boxes.box + [1, 1, 0, 0]) for boxes in again]
        area = detection.voc_ap(*again, num_classes=CLASSES, points=None)
        found.append((stats["AP"], np.nanmean(area)))
    for name, column in zip(("coco_AP", "AP50_area"), zip(*found, strict=True), strict=True):
        # Copies of an image have equal scores, whose order may differ.
        np.testing.assert_allclose(intervals[name], np.percentile(column, (2.5, 97.5)), atol=0.02)


def _drawn(boxes, images):
    rows = [np.flatnonzero(boxes.image == image) for image in images]
    again = type(boxes)(*(np.concatenate([column[r] for r in rows]) for column in boxes))
    return again._replace(image=np.repeat(np.arange(len(images)), [len(r) for r in rows]))
