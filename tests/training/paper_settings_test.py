"""Settings of a run of any length: at the authors' own, between them, and beyond."""

import numpy as np
import pytest

from byol_jax.training import paper_settings
from tests.support import golden_data

PRESETS = golden_data.config(golden_data.load("schedules"))
IMAGENET = {"batch_size": 4096, "num_images": 1_281_167}


@pytest.mark.parametrize("epochs", [40, 100, 300, 1000])
def test_the_authors_lengths_have_the_authors_settings(epochs):
    settings, source = paper_settings.settings(epochs=float(epochs), **IMAGENET)
    expected = PRESETS[f"e{epochs}_b4096"]
    for name in ("base_learning_rate", "weight_decay", "base_target_ema"):
        assert getattr(settings, name) == expected[name]
    steps = int(settings.warmup_epochs * IMAGENET["num_images"] // 4096)
    assert steps == expected["warmup_steps"]
    assert source == f"the reference's for {epochs} epochs of ImageNet"


def test_half_way_on_a_logarithmic_scale_is_the_geometric_mean():
    settings, source = paper_settings.settings(epochs=np.sqrt(300 * 1000), **IMAGENET)
    np.testing.assert_allclose(settings.base_learning_rate, np.sqrt(0.3 * 0.2))
    np.testing.assert_allclose(settings.weight_decay, np.sqrt(1e-6 * 1.5e-6))
    np.testing.assert_allclose(1 - settings.base_target_ema, np.sqrt(0.01 * 0.004))
    assert settings.warmup_epochs == 10
    assert "between the reference's for 300 and 1000 epochs" in source


def test_settings_have_no_jumps_and_are_monotonous():
    lengths = np.geomspace(10, 3000, 400)
    rows = np.array([paper_settings.settings(epochs=length, **IMAGENET)[0] for length in lengths])
    rate, decay, tau, warmup = rows.T
    assert (np.diff(rate) <= 0).all() and (np.diff(decay) >= 0).all()
    assert (np.diff(tau) >= 0).all() and (np.diff(warmup) >= 0).all()
    assert np.abs(np.diff(np.log(rows), axis=0)).max() < 0.05


@pytest.mark.parametrize("epochs, nearest", [(5, 40), (5000, 1000)])
def test_beyond_the_authors_lengths_the_nearest_holds(epochs, nearest):
    settings, source = paper_settings.settings(epochs=epochs, **IMAGENET)
    assert settings[:3] == paper_settings.BY_EPOCHS[nearest][:3]
    assert f"for {nearest} epochs, the nearest" in source
    assert settings.warmup_epochs == min(10, epochs / 4)


def test_tau_forgets_as_much_an_image_whatever_the_batch():
    """After as many images, as much is left of the target of before: tau^steps."""
    large, _ = paper_settings.settings(epochs=100, **IMAGENET)
    small, source = paper_settings.settings(epochs=100, **IMAGENET | {"batch_size": 256})
    np.testing.assert_allclose(small.base_target_ema**16, large.base_target_ema)
    assert small.base_learning_rate == large.base_learning_rate
    assert "256 / 4096" in source


def test_the_length_counts_in_images():
    """Ten times fewer images, ten times more epochs: the same run."""
    few, _ = paper_settings.settings(epochs=2000, batch_size=4096, num_images=128_116.7)
    many, _ = paper_settings.settings(epochs=200, **IMAGENET)
    np.testing.assert_allclose(few[:3], many[:3])
    np.testing.assert_allclose(few.warmup_epochs, 10 * many.warmup_epochs)
