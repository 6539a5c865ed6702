"""Depth measures against values of two independent computations, and against wrong answers."""

import numpy as np
import pytest

from byol_jax.metrics import depth
from tests.support import golden_data

GOLDEN = golden_data.load("dense")
NAMES = {"pct_1.25": "delta1", "pct_1.25^2": "delta2", "pct_1.25^3": "delta3"}


def rows():
    pairs = zip(GOLDEN["depth|truth"], GOLDEN["depth|pred"], strict=True)
    return np.stack([depth.sums(*pair, floor=float(GOLDEN["depth|floor"])) for pair in pairs])


def test_measures_are_pooled_over_all_pixels_and_equal_the_golden_values():
    found = depth.pooled(rows().sum(axis=0))
    assert rows().sum(axis=0)[-1] == GOLDEN["depth|valid"]
    for name, value, control in zip(
        GOLDEN["depth|names"], GOLDEN["depth|pooled"], GOLDEN["depth|control_mean_of_images"],
        strict=True,
    ):  # fmt: skip
        scale = 100 if name.startswith("pct") else 1
        mine = found[NAMES.get(str(name), str(name))] * scale
        assert mine == pytest.approx(value, rel=1e-6), name
        assert value == control or mine != pytest.approx(control, rel=1e-6), name


def test_a_perfect_prediction_has_no_error():
    truth = np.random.default_rng(0).uniform(1, 5, (6, 8))
    found = depth.pooled(depth.sums(truth, truth))
    assert found["delta1"] == 1 and found["rms"] == found["rel"] == 0


def test_a_prediction_at_twice_the_depth_is_beyond_every_ratio():
    truth = np.random.default_rng(0).uniform(1, 5, (6, 8))
    found = depth.pooled(depth.sums(truth, 2 * truth))
    assert (
        found["delta3"] == 0 and found["rel"] == 1 and found["log10"] == pytest.approx(np.log10(2))
    )


@pytest.mark.parametrize("unknown", [0.0, np.nan, np.inf, -1.0])
def test_pixels_of_unknown_depth_do_not_count(unknown):
    truth = np.full((4, 5), 2.0)
    truth[1, 2] = unknown
    guess = np.full((4, 5), 2.0)
    guess[1, 2] = 9
    found = depth.sums(truth, guess)
    assert found[-1] == 19 and depth.pooled(found)["rms"] == 0


def test_eigens_crop_is_that_of_480_x_640():
    kept = depth.crop(np.ones((480, 640)), depth.EIGEN)
    assert kept[45:471, 41:601].all() and kept.sum() == 426 * 560


def test_without_a_known_pixel_measures_are_no_numbers():
    assert np.isnan(depth.pooled(depth.sums(np.zeros((3, 3)), np.ones((3, 3))))["delta1"])


def test_the_interval_holds_the_value():
    many = np.concatenate([rows()] * 5)
    for name, (low, high) in depth.bootstrap(many, seed=0, resamples=100).items():
        assert low <= depth.pooled(many.sum(axis=0))[name] <= high
