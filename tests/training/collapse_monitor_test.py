"""When the guard speaks, when it stops a run, and what it advises."""

import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.objectives import byol
from byol_jax.training import collapse_monitor
from tests.conftest import make_settings

LIMITS = collapse_monitor.Measures(0.1, 2.0, 0.995)
SOUND = collapse_monitor.Measures(0.8, 10.0, 0.9)


def guard(*, patience=1, stops=False):
    return collapse_monitor.Guard(LIMITS, patience=patience, stops=stops, advice=["less of this"])


@pytest.mark.parametrize(
    "measures, words",
    [
        (SOUND._replace(feature_std=0.05), "feature std 0.050"),
        (SOUND._replace(effective_rank=1.5), "effective rank 1.50"),
        (SOUND._replace(target_cosine=0.999), "cosine 0.9990"),
    ],
)
def test_each_measure_alone_raises_the_alarm(measures, words):
    text = guard().check(7, measures)
    assert "COLLAPSED at step 7" in text and words in text and "\n  - less of this" in text
    with pytest.raises(collapse_monitor.CollapseError, match=words):
        guard(stops=True).check(7, measures)


def test_a_sound_run_is_left_alone():
    assert guard(stops=True).check(1, SOUND) is None
    assert guard(stops=True).check(2, LIMITS) is None


def test_patience_counts_measurements_in_a_row_and_warns_once():
    bad = SOUND._replace(feature_std=0.0)
    watch = guard(patience=2)
    series = [bad, SOUND, bad, bad, bad, SOUND, bad, bad]
    spoken = [watch.check(step, measures) is not None for step, measures in enumerate(series)]
    assert spoken == [False, False, False, True, False, False, False, True]


def test_advice_fits_the_config():
    sick = {"objective.name": "byol_no_predictor", "accumulate": 2}
    bad = SOUND._replace(feature_std=0.0)
    alert = {"collapse.patience": 1, "total_steps": 1600}
    text = collapse_monitor.make_guard(make_settings(**sick, **alert)).check(1, bad)
    assert "has no predictor" in text and "batch norm sees 4 images" in text
    assert "optimizer.warmup_steps (now 160)" in text and "(now 2)" in text
    text = collapse_monitor.make_guard(make_settings(batch_size=64, **alert)).check(1, bad)
    assert "no predictor" not in text and "batch norm sees" not in text


def test_statistics_of_groups_and_exact_ones_are_counted_right():
    exact = {"batch_size": 64, "accumulate": 4, "accumulate_statistics": "exact"}
    for overrides, images in [
        ({"batch_size": 64, "accumulate": 4}, 16),
        (exact, 64),
        (exact | {"model.bn_group_size": 1}, 16),  # of four devices
    ]:
        assert collapse_monitor._images_of_a_norm(make_settings(**overrides)) == images


def test_the_loss_is_four_minus_four_cosines():
    random = np.random.RandomState(0)
    online, target = (tuple(jnp.asarray(random.randn(5, 3)) for _ in range(2)) for _ in range(2))
    cosine = byol.mean_cosine(online, target)
    loss = byol.byol_loss(online, target)
    np.testing.assert_allclose(loss, 4 - 4 * cosine, rtol=1e-5)
