"""The task that says what a run will take before it is started; it writes nothing."""

import copy
import math
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import jax

from byol_jax import config as config_lib
from byol_jax.data import datasets
from byol_jax.distributed import pmap
from byol_jax.training import (
    accelerators,
    budget,
    budget_plan,
    budget_run,
    build,
    completion,
    precision,
    resource_estimate,
    time_estimate,
)
from byol_jax.training import settings as settings_lib
from byol_jax.workdir import console

MINUTES = (10, 60, 480)  # the table of budgets
_HALF = 0.5  # bytes of bfloat16 for each of float32


class Measured(NamedTuple):
    """What a run was found to take.

    Attributes:
      settings: of the run.
      num_images: of its training split.
      forecast: of a step.
      step_seconds: of a step with its input, on this machine.
    """

    settings: settings_lib.PretrainSettings
    num_images: int
    forecast: resource_estimate.Forecast
    step_seconds: float


def run(config: Any, workdir: pathlib.Path, *, typed: Collection[str] = ()) -> None:
    """Prints steps, operations, memory, disk and time of a run, here and on named accelerators.

    Raises:
      UsageError: a mistake in the config, a set that cannot be read, a step that does not fit.
    """
    del workdir  # nothing is written
    config_lib.require_positive(config, "estimate.seconds")
    config = completion.begin(config, typed).config
    config.model.dtype = config.model.dtype or precision.default()
    data = config_lib.freeze(settings_lib.Data, config.data, prefix="data.")
    train = datasets.load(data.name, data.train_split, data_dir=data.dir, labels=data.labels)
    if budget.is_complete(config):
        measured = _measure(config, train)
        console.say(describe(measured))
        return
    facts, estimate = budget_run.look(config, train)
    plan = budget_run.choose(config, facts, estimate)
    measured = _measure(budget_run.with_a_length(plan.config), train)
    allowed = None if budget.has_length(plan.config) else budget.minutes(config, facts)
    steps = None
    if allowed is not None:
        steps = _steps(allowed[0], measured.step_seconds, plan.config.batch_size, facts)
    budget.offer_length(plan, facts, steps=steps)
    console.say(budget_run.describe(plan.choices, facts, allowed))
    settings = settings_lib.resolve(plan.config, num_images=train.num_images)
    console.say(describe(measured._replace(settings=settings)))
    per_image = measured.step_seconds / plan.config.batch_size
    slower = per_image / estimate(plan.config)  # than the estimate
    console.say("\n".join(budgets(config, facts, lambda trial: slower * estimate(trial))))


def _measure(config: Any, train: datasets.Dataset) -> Measured:
    """Compiles a step, and measures some."""
    job = build.build(config, train=train)
    update, state = pmap.pmap_update(job.update), pmap.replicate(job.state)
    console.say("Compiling and measuring a step...")
    forecast = resource_estimate.make_forecast(job, update, state)
    seconds, _ = budget_run.step_seconds(job, update, state, config.estimate.seconds)
    return Measured(job.settings, train.num_images, forecast, seconds)


def _steps(minutes: float, step: float, batch_size: int, facts: budget_plan.Facts) -> int:
    left = 60 * minutes * (1 - budget_run.MEASURED) - budget_run.IMPORTS
    epoch = facts.num_images / batch_size
    return budget.steps_within(left, step_seconds=step, epoch_steps=epoch)


def describe(measured: Measured) -> str:
    """What a run takes, for people."""
    settings, forecast, step = measured.settings, measured.forecast, measured.step_seconds
    steps, batch = settings.total_steps, settings.batch_size
    flops = forecast.formula_flops * jax.device_count()
    here = _time(steps * step)
    return "\n".join(
        [
            f"{steps:,} steps of {batch:,} images ({steps * batch / measured.num_images:,.1f} "
            f"epochs): {_amount(flops)}FLOP a step, {_amount(flops * steps)}FLOP in all.",
            resource_estimate.describe(forecast, settings),
            _disk(settings, forecast),
            f"Here, on {pmap.describe_devices()}: {here}, by steps that were measured with their "
            f"input ({step:.3g} s a step, {batch / step:,.0f} images/s); probes come on top.",
            *_elsewhere(settings, forecast),
        ]
    )


def _disk(settings: settings_lib.PretrainSettings, forecast: resource_estimate.Forecast) -> str:
    kept = settings.keep_checkpoints + 1  # one more while the newest is written
    kept += settings.total_steps // settings.keep_every_steps if settings.keep_every_steps else 0
    size = console.format_size(forecast.state_bytes)
    return (
        f"On disk: {size} a checkpoint, {console.format_size(kept * forecast.state_bytes)} in all."
    )


def _elsewhere(
    settings: settings_lib.PretrainSettings, forecast: resource_estimate.Forecast
) -> Iterator[str]:
    """The table of named accelerators."""
    count, steps = jax.device_count(), settings.total_steps
    flops = count * forecast.formula_flops
    scale = _HALF if settings.model.dtype == "float32" else 1.0
    moved = forecast.compiled_bytes
    moved = moved and scale * count * moved * forecast.loop_rounds
    kept = forecast.activation_bytes
    kept = kept and count * (scale * kept + forecast.batch_bytes) + forecast.state_bytes
    yield (
        "On one chip, in bfloat16, the whole run takes at least the larger of two times (peak "
        "numbers of the makers; small networks take several times as long):"
    )
    yield f"  {'':<20}{'by computing':>14}{'by memory':>14}   the batch"
    for name, chip in accelerators.ACCELERATORS.items():
        bound = accelerators.bounds(chip, flops=flops, moved=moved, kept=kept)
        memory = "unknown" if bound.memory is None else _time(steps * bound.memory)
        computing = _time(steps * bound.computing)
        room = "fits" if bound.fits else f"needs {math.ceil(kept / chip.memory)} chips"
        yield f"  {name:<20}{computing:>14}{memory:>14}   {room}"
    yield (
        "Bytes are those of the step as it was compiled here, halved where it was in float32; "
        "another compiler moves fewer or more."
    )


def budgets(
    config: Any, facts: budget_plan.Facts, seconds_per_image: Callable[[Any], float]
) -> Iterator[str]:
    """The table of what would be trained in `MINUTES`.

    Args:
      config: whose unset keys are chosen for each time.
      facts: about images and machine.
      seconds_per_image: of a config, as measured here.
    """
    yield "What --config.budget_minutes would choose here:"
    yield f"  {'':<10}{'encoder':<14}{'image':>8}{'batch':>7}{'steps':>10}{'epochs':>9}"
    for minutes in MINUTES:
        trial = copy.deepcopy(config)
        trial.budget_minutes = float(minutes)
        chosen = budget_run.choose(trial, facts, seconds_per_image).config
        batch = chosen.batch_size
        name = f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"
        try:
            steps = _steps(minutes, batch * seconds_per_image(chosen), batch, facts)
        except config_lib.UsageError:
            yield f"  {name:<10}too little time"
            continue
        size = f"{chosen.data.image_size} px"
        epochs = steps * batch / facts.num_images
        yield (
            f"  {name:<10}{chosen.model.encoder:<14}{size:>8}{batch:>7}{steps:>10,}{epochs:>9,.0f}"
        )


def _time(seconds: float) -> str:
    return time_estimate.duration(seconds) if seconds >= 2 else "under 2 s"


def _amount(value: float) -> str:
    """Such as ``1.2 T``."""
    for letter, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value / 1e6:.3g} M"
