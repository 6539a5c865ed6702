"""What a run is and how long it will take, said before anything long begins."""

import pathlib
from collections.abc import Iterator
from typing import Any

import haiku as hk
import jax

from byol_jax import config as config_lib
from byol_jax.data import datasets
from byol_jax.distributed import pmap
from byol_jax.objectives import table
from byol_jax.training import build, resource_estimate, summary
from byol_jax.training import settings as settings_lib

DAY = 86_400.0
NIGHT = 10 * 3600.0  # what a run is shortened to at last
# What a step waits for.
_OPERATIONS = "the operations of a step and the speed of a matrix product here"
_BYTES = "what a step reads and writes and the speed of the device's memory"
SMALL_ENCODER, SMALL_SIZE = "resnet18", 96


def describe_run(job: build.Job, workdir: pathlib.Path) -> str:
    """One paragraph: what will run, on what, for how long, and where the numbers are from."""
    settings, (train, test, _) = job.settings, job.images
    size = hk.data_structures.tree_size(job.state.online_params) / 1e6
    source = settings.data.dir if settings.data.name == "folder" else settings.data.name
    about = "".join(f"{split.about}\n" for split in (train, test) if split.about)
    unset = f"Unset in the config: {settings.unset}.\n" if settings.unset else ""
    return (
        f"{about}Pretraining {settings.model.encoder} ({size:.2f} M parameters with its heads) by "
        f"{settings.objective.name} on {train.num_images:,} images of {source} at "
        f"{settings.data.image_size} px; {summary.of_labels(train, test)}.\n"
        f"{_describe_schedules(settings, train.num_images)}\n"
        f"{unset}"
        f"Everything goes to {workdir}, the whole config to its config.json. Ctrl-C saves; rerun "
        "the same command to resume."
    )


def _describe_schedules(settings: settings_lib.PretrainSettings, num_images: int) -> str:
    """Length, learning rate, warm-up and tau, each with the origin of its value."""
    optimizer, origins = settings.optimizer, settings.origins
    epochs = settings.total_steps * settings.batch_size / num_images
    rate = optimizer.base_learning_rate * settings.batch_size / 256
    total = "total_steps" if settings.total_epochs is None else "total_epochs"
    warmup = "warmup_steps" if optimizer.warmup_epochs is None else "warmup_epochs"
    return (
        f"{settings.total_steps:,} steps of {settings.batch_size} images ({epochs:,.1f} epochs, by "
        f"{total}: {origins['total_steps']}) on {pmap.describe_devices()}; {optimizer.name}, "
        f"learning rate up to {rate:.4g} ({origins['optimizer.base_learning_rate']}) after "
        f"{optimizer.warmup_steps:,} steps (by optimizer.{warmup}: "
        f"{origins['optimizer.warmup_steps']}), {_describe_target(settings)}, mean "
        f"and std of the channels {origins['data.mean']}."
    )


def _describe_target(settings: settings_lib.PretrainSettings) -> str:
    section = settings.objective
    if not table.keeps_target(section):
        return "no target network"
    if section.target in ("copy", "frozen"):
        return f"target {section.target}"
    origin = settings.origins["objective.base_target_ema"]
    return f"tau from {section.base_target_ema:.6g} ({origin})"


def seconds(
    settings: settings_lib.PretrainSettings, steps: int, speed: resource_estimate.Speed
) -> float:
    """What so many steps take, by formula: their operations or, where that is longer, their bytes.

    Args:
      settings: of the run.
      steps: of it.
      speed: of one device.
    """
    return steps * settings.batch_size * seconds_per_image(settings, speed)


def seconds_per_image(
    settings: settings_lib.PretrainSettings, speed: resource_estimate.Speed
) -> float:
    """The same of one image of a step; the batch size plays no part."""
    return max(_bounds(settings, speed).values())


def _bounds(
    settings: settings_lib.PretrainSettings, speed: resource_estimate.Speed
) -> dict[str, float]:
    """Seconds an image if nothing else counted, by what is waited for."""
    operations = resource_estimate.flops_of_an_image(settings)
    found = {_OPERATIONS: operations / (resource_estimate.USUAL_SHARE * speed.flops)}
    if speed.bytes:
        found[_BYTES] = resource_estimate.bytes_of_an_image(settings) / speed.bytes
    return {what: time / _devices() for what, time in found.items()}


def _devices() -> int:
    """How many devices work beside each other; those of one CPU share its processors."""
    return jax.process_count() if jax.default_backend() == "cpu" else jax.device_count()


def describe_time(job: build.Job, first_step: int) -> str:
    """The time that is left, by estimate; if it is days, smaller settings and their times."""
    settings = job.settings
    speed = resource_estimate.speed(settings.model.dtype)
    left = seconds(settings, settings.total_steps - first_step, speed)
    bounds = _bounds(settings, speed)
    text = (
        f"About {duration(left)} to go, by {max(bounds, key=bounds.__getitem__)}; the time left is "
        "shown as soon as steps have been measured."
    )
    if left < DAY:
        return text
    lines = [f"{text}\nThat is long. Smaller settings, each in a --workdir of its own:"]
    is_streamed = isinstance(job.images.train, datasets.RecordDataset)
    for flags, shorter in smaller(settings, speed, is_streamed=is_streamed):
        lines.append(f"  {' '.join(flags)}  (about {duration(shorter)})")
    return "\n".join(lines)


def describe_bound(
    settings: settings_lib.PretrainSettings, steps: int, forecast: resource_estimate.Forecast
) -> str:
    """What is left by the compiled step, if memory bounds it, which operations do not tell."""
    if not forecast.is_bound_by_memory:
        return ""
    left = steps * settings.batch_size / forecast.images_per_second
    return f"By memory at least {duration(left)} to go, which counts instead of the first estimate."


def smaller(
    settings: settings_lib.PretrainSettings, speed: resource_estimate.Speed, *, is_streamed: bool
) -> Iterator[tuple[list[str], float]]:
    """Flags that make a run shorter, each time with those before them, and what it then takes."""
    changes: dict[str, Any] = {}
    before = seconds(settings, settings.total_steps, speed)
    for key, value in (("model.encoder", SMALL_ENCODER), ("data.image_size", SMALL_SIZE)):
        other = config_lib.replaced(settings, key, value)
        taken = seconds(other, other.total_steps, speed)
        is_of_use = key != "data.image_size" or is_streamed
        if is_of_use and taken < 0.7 * before:
            settings, changes[key], before = other, value, taken
            yield _flags(changes), before
    if before > NIGHT:
        fraction = NIGHT / before
        steps = max(int(settings.total_steps * fraction), 1)
        if settings.total_epochs is None:
            changes["total_steps"] = steps
        else:
            changes["total_epochs"] = float(f"{settings.total_epochs * fraction:.2g}")
        yield _flags(changes), seconds(settings, steps, speed)


def _flags(changes: dict[str, Any]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in changes.items()]


def duration(seconds: float) -> str:
    """A time for people to read, in one unit."""
    for unit, length in (("days", DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(seconds, 2):.0f} seconds"
