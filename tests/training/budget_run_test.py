"""What is measured of a folder and a machine, and what a run that goes on is given."""

import json

import numpy as np
import PIL.Image
import pytest

from byol_jax import config as config_lib
from byol_jax.data import datasets
from byol_jax.training import budget, budget_run
from configs import byol


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve gray images of different sizes, one of them damaged."""
    root = tmp_path_factory.mktemp("gray")
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(100, 256, (70 + number, 120), np.uint8)
        PIL.Image.fromarray(pixels).save(root / f"{number}.png")
    (root / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


@pytest.fixture
def config(folder):
    config = byol.get_config("folder")
    config.data.dir = str(folder)
    return config


@pytest.fixture
def timed(monkeypatch):
    """A step takes a fifth of a second, and everything before the first one 20 seconds."""
    calls = []

    def measure(config, seconds, **_):
        calls.append(seconds)
        return 0.2, 20.0

    monkeypatch.setattr(budget_run, "_time_of_a_step", measure)
    monkeypatch.setattr(budget_run.resource_estimate, "matmul_speed", lambda dtype: 1e11)
    return calls


def test_sizes_colors_and_brightness_are_those_of_the_images(config):
    train = datasets.load("folder", "train", data_dir=config.data.dir)
    facts = budget_run.measure(train)
    assert facts.num_images == 12 and facts.is_gray and not facts.is_accelerator
    assert 70 <= facts.side <= 81 and facts.brightness == pytest.approx(0.7, abs=0.02)


def test_gray_of_twelve_bits_is_as_bright_as_its_range_makes_it(tmp_path):
    for number in range(3):
        pixels = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
        PIL.Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    train = datasets.load("folder", "all", data_dir=str(tmp_path))
    assert budget_run.measure(train).brightness == pytest.approx(0.5, abs=0.02)


def test_arrays_are_measured_as_they_are():
    images = np.zeros((5, 24, 40, 3), np.uint8)
    images[..., 0] = 255
    facts = budget_run.measure(datasets.ArrayDataset(images))
    assert (facts.side, facts.is_in_memory, facts.is_gray) == (24, True, False)
    assert facts.brightness == pytest.approx(1 / 3)


def test_images_that_cannot_be_used_at_all_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    train = datasets.load("folder", "all", data_dir=str(tmp_path))
    with pytest.raises(config_lib.UsageError, match="None of the first"):
        budget_run.measure(train)


def test_texture_is_what_smaller_images_lose():
    rng = np.random.default_rng(0)
    noise = np.repeat(rng.integers(0, 256, (128, 128, 1)), 3, -1).astype(np.uint8)
    slope = np.repeat(np.broadcast_to(np.arange(128)[:, None], (128, 128))[..., None], 3, -1)
    assert budget_run.texture(noise) == pytest.approx(0.75, abs=0.02)  # of 2 x 2 only the mean
    assert budget_run.texture(slope.astype(np.uint8)) < 0.01
    assert budget_run.texture(np.full((128, 128, 3), 7, np.uint8)) == 0
    assert budget_run.texture(noise[:64, :64]) == 0


def test_the_steps_fill_the_time_that_is_left_after_a_step_was_measured(config, timed, tmp_path):
    config.budget_minutes = 10.0
    filled = budget_run.fill(config, tmp_path)
    assert timed == [600 * budget_run.MEASURED] and budget.is_complete(filled)
    left = 600 - 20 - budget_run.IMPORTS
    assert filled.total_steps == pytest.approx(left * (1 - budget.RESERVE) / 0.2, rel=0.02)
    assert filled.optimizer.warmup_steps == filled.total_steps // 10
    assert config.total_steps is None and not any(tmp_path.iterdir())


def test_a_typed_length_needs_no_measurement(config, timed, tmp_path):
    config.total_steps = 7
    assert budget_run.fill(config, tmp_path).total_steps == 7
    assert not timed


def test_what_was_chosen_is_printed_with_reasons(config, timed, tmp_path, capsys):
    config.budget_minutes, config.batch_size = 5.0, 8
    budget_run.fill(config, tmp_path)
    text = capsys.readouterr().err
    assert "12 gray images" in text and "5 minutes (budget_minutes)" in text
    assert "  model.encoder = micro_resnet  # about " in text
    assert "  augment.view[12].hue = 0  # the images are gray" in text
    assert "batch_size =" not in text and "view2.hue" not in text


def test_a_run_that_goes_on_takes_the_numbers_it_began_with(config, timed, tmp_path):
    config.budget_minutes = 10.0
    began = budget_run.fill(config, tmp_path)
    (tmp_path / "config.json").write_text(config_lib.to_json(began.to_dict()))
    timed.clear()
    resumed = budget_run.fill(config, tmp_path)
    assert not timed and resumed.to_dict() == began.to_dict()


def test_a_run_of_an_earlier_version_goes_on_as_it_was(config, timed, tmp_path):
    stored = budget_run.fill(config, tmp_path).to_dict()
    del stored["budget_minutes"]
    stored["model"]["encoder"], stored["total_steps"] = "resnet18", None
    stored["total_epochs"], stored["optimizer"]["warmup_epochs"] = 300.0, 10.0
    stored["optimizer"]["warmup_steps"] = None
    (tmp_path / "config.json").write_text(json.dumps(stored))
    resumed = budget_run.fill(config, tmp_path).to_dict()
    assert resumed == stored | {"budget_minutes": None}


def test_a_typed_length_is_not_overruled_by_the_stored_one(config, timed, tmp_path):
    began = budget_run.fill(config, tmp_path)
    (tmp_path / "config.json").write_text(config_lib.to_json(began.to_dict()))
    config.total_epochs = 3.0
    resumed = budget_run.fill(config, tmp_path)
    assert resumed.total_epochs == 3.0 and resumed.total_steps is None


def test_another_budget_for_a_run_that_has_begun_is_refused(config, timed, tmp_path):
    config.budget_minutes = 10.0
    began = budget_run.fill(config, tmp_path).to_dict()
    (tmp_path / "config.json").write_text(config_lib.to_json(began))
    config.budget_minutes, config.accept_changes = 20.0, True
    with pytest.raises(config_lib.UsageError, match=r"add --config.total_steps=N"):
        budget_run.fill(config, tmp_path)


def test_other_presets_are_left_alone():
    for preset in ("patterns", "imagenette", "imagenet-300"):
        config = byol.get_config(preset)
        assert budget_run.fill(config) is config
