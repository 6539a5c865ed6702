"""What is said of a run's length before it begins."""

import pytest

from byol_jax.data import datasets
from byol_jax.training import build, resource_estimate, time_estimate
from tests.conftest import make_settings

SPEED = resource_estimate.Speed(5e10)


@pytest.fixture(autouse=True)
def slow_device(monkeypatch):
    monkeypatch.setattr(resource_estimate, "speed", lambda dtype: SPEED)


def long_settings(**overrides):
    changes = {
        "batch_size": 256,
        "total_steps": None,
        "total_epochs": 300.0,
        "data.image_size": 224,
        "model.encoder": "resnet18",
        "model.stem": "imagenet",
    }
    return make_settings(num_images=3000, **changes | overrides)


def make_job(settings):
    """As much of a run as the estimate looks at."""
    data = datasets.RecordDataset(records=None, num_images=3000, num_classes=0)
    return build.Job(settings, build.Images(data, data, None), None, None, None)


def test_a_run_of_days_says_so_with_smaller_settings_that_take_less():
    settings = long_settings(**{"model.encoder": "resnet50"})
    text = time_estimate.describe_time(make_job(settings), 0)
    assert " days to go" in text and "smaller settings" in text.lower()
    found = list(time_estimate.smaller(settings, SPEED, is_streamed=True))
    flags, seconds = zip(*found, strict=True)
    assert flags[-1][:2] == ["--config.model.encoder=resnet18", "--config.data.image_size=96"]
    assert flags[-1][2].startswith("--config.total_epochs=")
    assert list(seconds) == sorted(seconds, reverse=True)
    assert seconds[-1] == pytest.approx(time_estimate.NIGHT, rel=0.1)


def test_images_in_memory_are_not_advised_to_be_smaller():
    settings = long_settings(**{"model.encoder": "resnet50"})
    found = list(time_estimate.smaller(settings, SPEED, is_streamed=False))
    assert found and "image_size" not in str(found)


def test_a_short_run_says_only_how_long():
    small = {"data.image_size": 32, "model.encoder": "micro_resnet", "total_steps": 10}
    job = make_job(long_settings(**small))
    assert len(time_estimate.describe_time(job, 0).splitlines()) == 1


def test_what_is_left_counts_when_a_run_goes_on():
    settings = long_settings()
    whole, half = (time_estimate.seconds(settings, n, SPEED) for n in (3000, 1500))
    assert whole == pytest.approx(2 * half)


def test_bytes_bound_a_resnet50_on_a_gpu_and_are_those_of_the_compiled_program(monkeypatch):
    """XLA counts 49.2 GB for 64 images in the program for an H100 (experiments/accelerators)."""
    settings = long_settings(**{"model.encoder": "resnet50", "model.dtype": "bfloat16"})
    assert resource_estimate.bytes_of_an_image(settings) == pytest.approx(49.2e9 / 64, rel=0.1)
    h100 = resource_estimate.Speed(flops=700e12, bytes=3e12)
    taken = time_estimate.seconds(settings, 1, h100)
    devices = time_estimate._devices()
    assert taken == pytest.approx(256 * 0.8e9 / 3e12 / devices, rel=0.1)
    monkeypatch.setattr(resource_estimate, "speed", lambda dtype: h100)
    text = time_estimate.describe_time(make_job(settings), 0)
    assert "by what a step reads and writes and the speed of the device's memory" in text


def test_what_is_computed_again_is_read_and_written_again():
    plain, again = (
        resource_estimate.bytes_of_an_image(long_settings(**{"model.remat": remat}))
        for remat in (False, True)
    )
    assert 1.2 < again / plain < 1.4


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "2 seconds"),
        (100, "100 seconds"),
        (600, "10 minutes"),
        (9000, "2 hours"),
        (3e5, "3 days"),
    ],
)
def test_durations_are_in_a_unit_that_fits(seconds, text):
    assert time_estimate.duration(seconds) == text
