"""What is said of a run's length before it begins."""

import pytest

from byol_jax.training import build, resource_estimate, time_estimate
from tests.conftest import make_config


@pytest.fixture
def job(monkeypatch):
    """The parts that the estimate looks at, of a long run on large images."""
    from byol_jax.data import datasets

    data = datasets.RecordDataset(records=None, num_images=3000, num_classes=0)
    fields = dict.fromkeys(build.Job._fields) | {"train": data, "total_steps": 3515}
    monkeypatch.setattr(resource_estimate, "matmul_speed", lambda dtype: 5e10)
    return build.Job(**fields)


def long_config(**overrides):
    config = {
        "batch_size": 256,
        "total_steps": None,
        "total_epochs": 300.0,
        "data.image_size": 224,
        "model.encoder": "resnet18",
        "model.stem": "imagenet",
    }
    return make_config(**config | overrides)


def test_a_run_of_days_says_so_with_smaller_settings_that_take_less(job):
    config = long_config(**{"model.encoder": "resnet50"})
    text = time_estimate.describe_time(config, job, 0)
    assert " days to go" in text and "smaller settings" in text.lower()
    found = list(time_estimate.smaller(config, job, flops_per_second=5e10))
    flags, seconds = zip(*found, strict=True)
    assert flags[-1][:2] == ["--config.model.encoder=resnet18", "--config.data.image_size=96"]
    assert flags[-1][2].startswith("--config.total_epochs=")
    assert list(seconds) == sorted(seconds, reverse=True)
    assert seconds[-1] == pytest.approx(time_estimate.NIGHT, rel=0.1)
    assert config.data.image_size == 224


def test_a_short_run_says_only_how_long(job):
    config = long_config(**{"data.image_size": 32, "model.encoder": "micro_resnet"})
    job = job._replace(total_steps=10)
    assert len(time_estimate.describe_time(config, job, 0).splitlines()) == 1


def test_what_is_left_counts_when_a_run_goes_on(job):
    config = long_config()
    whole, half = (time_estimate.seconds(config, n, flops_per_second=1e9) for n in (3000, 1500))
    assert whole == pytest.approx(2 * half)


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
