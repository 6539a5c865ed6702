"""What a run is and how long it will take, said before anything long begins."""

import copy
import pathlib
from collections.abc import Iterator
from typing import Any

import haiku as hk
import jax

from byol_jax import config as config_lib
from byol_jax.data import datasets
from byol_jax.distributed import pmap
from byol_jax.training import build, resource_estimate, summary

DAY = 86_400.0
NIGHT = 10 * 3600.0  # what a run is shortened to at last
SMALL_ENCODER, SMALL_SIZE = "resnet18", 96


def describe_run(config: Any, job: build.Job, workdir: pathlib.Path) -> str:
    """One paragraph: what will run, on what, for how long."""
    size = hk.data_structures.tree_size(job.state.online_params) / 1e6
    epochs = job.total_steps * config.batch_size / job.train.num_images
    source = config.data.dir if config.data.name == "folder" else config.data.name
    rate = job.settings.base_learning_rate * config.batch_size / 256
    warmup = f"optimizer.{config_lib.length_key(config.optimizer, 'warmup')}"
    unset = f"Unset in the config: {job.settings_source}.\n" if job.settings_source else ""
    about = "".join(f"{split.about}\n" for split in (job.train, job.test) if split.about)
    return (
        f"{about}Pretraining {config.model.encoder} ({size:.2f} M parameters with its heads) by "
        f"{config.objective.name} on {job.train.num_images:,} images of {source} at "
        f"{config.data.image_size} px; {summary.of_labels(job.train, job.test)}.\n"
        f"{job.total_steps:,} steps of {config.batch_size} images ({epochs:,.1f} epochs, by "
        f"{config_lib.length_key(config, 'total')}) on {pmap.describe_devices()}; "
        f"{config.optimizer.name}, learning rate up to {rate:.4g} "
        f"after {job.warmup_steps:,} steps (by {warmup}), tau from "
        f"{job.settings.base_target_ema:.6g}.\n"
        f"{unset}"
        f"Everything goes to {workdir}, the whole config to its config.json. Ctrl-C saves; rerun "
        "the same command to resume."
    )


def seconds(config: Any, steps: int, *, flops_per_second: float) -> float:
    """What so many steps take, from their operations by formula and the speed of a product.

    Args:
      config: of the run.
      steps: of it.
      flops_per_second: of a matrix product on one device.
    """
    speed = resource_estimate.USUAL_SHARE * flops_per_second * _devices()
    return steps * config.batch_size * resource_estimate.flops_of_an_image(config) / speed


def _devices() -> int:
    """How many devices work beside each other; those of one CPU share its processors."""
    return jax.process_count() if jax.default_backend() == "cpu" else jax.device_count()


def describe_time(config: Any, job: build.Job, first_step: int) -> str:
    """The time that is left, by estimate; if it is days, smaller settings and their times."""
    speed = resource_estimate.matmul_speed(config.model.dtype)
    left = seconds(config, job.total_steps - first_step, flops_per_second=speed)
    text = (
        f"About {duration(left)} to go, by the operations of a step and the speed of a matrix "
        "product here; the time left is shown as soon as steps have been measured."
    )
    if left < DAY:
        return text
    lines = [f"{text}\nThat is long. Smaller settings, each in a --workdir of its own:"]
    for flags, shorter in smaller(config, job, flops_per_second=speed):
        lines.append(f"  {' '.join(flags)}  (about {duration(shorter)})")
    return "\n".join(lines)


def describe_bound(config: Any, steps: int, forecast: resource_estimate.Forecast) -> str:
    """What is left by the compiled step, if memory bounds it, which operations do not tell."""
    if not forecast.is_bound_by_memory:
        return ""
    left = steps * config.batch_size / forecast.images_per_second
    return f"By memory at least {duration(left)} to go, which counts instead of the first estimate."


def smaller(
    config: Any, job: build.Job, *, flops_per_second: float
) -> Iterator[tuple[list[str], float]]:
    """Flags that make a run shorter, each time with those before them, and what it then takes."""
    config = copy.deepcopy(config)
    changes: dict[str, Any] = {}

    def taken(steps: int = job.total_steps) -> float:
        return seconds(config, steps, flops_per_second=flops_per_second)

    before = taken()
    for key, value in (("model.encoder", SMALL_ENCODER), ("data.image_size", SMALL_SIZE)):
        old = config_lib.get(config, key)
        config.update_from_flattened_dict({key: value})
        is_of_use = key != "data.image_size" or isinstance(job.train, datasets.RecordDataset)
        if is_of_use and taken() < 0.7 * before:
            changes[key], before = value, taken()
            yield _flags(changes), before
        else:
            config.update_from_flattened_dict({key: old})
    if before > NIGHT:
        fraction = NIGHT / before
        steps = max(int(job.total_steps * fraction), 1)
        if config.total_steps is None:
            changes["total_epochs"] = float(f"{config.total_epochs * fraction:.2g}")
        else:
            changes["total_steps"] = steps
        yield _flags(changes), taken(steps)


def _flags(changes: dict[str, Any]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in changes.items()]


def duration(seconds: float) -> str:
    """A time for people to read, in one unit."""
    for unit, length in (("days", DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(seconds, 2):.0f} seconds"
