"""mIoU against values of two independent computations, and against wrong answers."""

import numpy as np
import pytest

from byol_jax.metrics import segmentation
from tests.support import golden_data

GOLDEN = golden_data.load("dense")
CASES = sorted({key.split("|")[1] for key in GOLDEN if key.startswith("iou|")})


def golden(case):
    prefix = f"iou|{case}|"
    return {key[len(prefix) :]: value for key, value in GOLDEN.items() if key.startswith(prefix)}


def confusions(case):
    classes = int(case["classes"])
    pairs = zip(case["truth"], case["pred"], strict=True)
    return np.stack([segmentation.confusion(truth, pred, classes) for truth, pred in pairs])


@pytest.mark.parametrize("name", CASES)
def test_confusion_and_iou_equal_the_golden_values(name):
    case = golden(name)
    pooled = confusions(case).sum(axis=0)
    np.testing.assert_array_equal(pooled, case["confusion"])
    found = {
        "iou": segmentation.iou(pooled),
        "miou_present": segmentation.mean_iou(pooled),
        "class_accuracy": segmentation.class_accuracy(pooled),
        "pixel_accuracy": segmentation.pixel_accuracy(pooled),
    }
    for key, value in found.items():
        np.testing.assert_allclose(value, case[key], atol=1e-12, err_msg=key)


def test_an_absent_class_is_left_out_and_not_counted_as_0():
    case = golden("absent")
    found = segmentation.mean_iou(confusions(case).sum(axis=0))
    assert abs(found - case["miou_absent_as_zero"]) > 0.01 and np.isnan(case["miou_devkit"])


def test_iou_is_of_the_set_and_not_a_mean_over_images():
    case = golden("all_present")
    found = segmentation.mean_iou(confusions(case).sum(axis=0))
    assert abs(found - case["control_mean_of_images"]) > 1e-4


TRUTH = np.repeat(np.arange(4), 16).reshape(8, 8)


def test_a_perfect_prediction_scores_1():
    assert segmentation.mean_iou(segmentation.confusion(TRUTH, TRUTH, 4)) == 1


def test_a_class_that_is_never_predicted_costs_its_part():
    wrong = np.where(TRUTH == 3, 0, TRUTH)
    assert segmentation.mean_iou(segmentation.confusion(TRUTH, wrong, 4)) == (0.5 + 1 + 1 + 0) / 4


def test_what_is_predicted_on_ignored_pixels_does_not_matter():
    truth = np.where(TRUTH == 3, segmentation.IGNORED, TRUTH)
    for label in range(4):
        wrong = np.where(TRUTH == 3, label, TRUTH)
        assert segmentation.mean_iou(segmentation.confusion(truth, wrong, 4)) == 1


def test_what_a_network_that_diverged_gives_is_never_right():
    nothing = np.full_like(TRUTH, segmentation.IGNORED)
    assert segmentation.mean_iou(segmentation.confusion(TRUTH, nothing, 4)) == 0


def test_the_interval_holds_the_value_and_equal_images_leave_no_width():
    matrices = confusions(golden("all_present"))
    value = segmentation.mean_iou(matrices.sum(axis=0))
    low, high = segmentation.bootstrap(matrices, seed=0, resamples=200)["miou"]
    assert low < value < high
    one = np.repeat(matrices[:1], 5, axis=0)
    low, high = segmentation.bootstrap(one, seed=0, resamples=20)["miou"]
    assert low == pytest.approx(high) == segmentation.mean_iou(matrices[0])
