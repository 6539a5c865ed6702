"""One temperature for all logits."""

import numpy as np
import pytest

from byol_jax.metrics import calibration


def drawn(count, classes, scale, seed=0):
    """Logits that are right as often as their softmax says once they are divided by ``scale``."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((count, classes))
    labels = np.array([rng.choice(classes, p=p) for p in calibration.softmax(logits)])
    return scale * logits, labels


@pytest.mark.parametrize("scale", [0.2, 1, 8])
def test_the_temperature_is_what_the_logits_were_scaled_by(scale):
    logits, labels = drawn(3000, 5, scale)
    found = calibration.temperature(logits, labels)
    assert found == pytest.approx(scale, rel=0.1)
    best = calibration.log_loss(logits / found, labels)
    for other in (0.8, 1.25):
        assert best < calibration.log_loss(logits / (found * other), labels)


def test_a_few_images_that_are_all_right_do_not_make_it_certain():
    logits = np.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    found = calibration.temperature(logits, np.array([0, 1, 0]))
    assert calibration.softmax(logits / found).max() == pytest.approx(4 / 5, abs=1e-3)


def test_classes_that_nobody_has_learned_do_not_count():
    logits = np.array([[1.0, 0.0, -np.inf], [0.0, 1.0, -np.inf], [0.0, 1.0, -np.inf]])
    with_them = calibration.temperature(logits, np.array([0, 1, 2]))
    assert with_them == calibration.temperature(logits[:2], np.array([0, 1]))
    assert calibration.temperature(logits[:1], np.array([2])) == 1.0
