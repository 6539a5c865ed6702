"""Fills in what a config leaves unset: from the run in the workdir, or by the rules of `budget`."""

import copy
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import run_facts, sources
from byol_jax.data import datasets, eval_loader, image_decoding
from byol_jax.distributed import multihost, pmap
from byol_jax.training import (
    budget,
    budget_plan,
    build,
    method_settings,
    resource_estimate,
    time_estimate,
)
from byol_jax.training import settings as settings_lib
from byol_jax.workdir import console

UsageError = config_lib.UsageError

SAMPLE = 64  # images that are looked at
IMPORTS = 10.0  # seconds that a command takes before it comes here
MEASURED = 0.03  # of the time goes into measuring a step
_GRAY_SPREAD = 2.0  # between channels, of 255: what JPEG makes of gray
_STARTED = ("encoder", "width_multiplier", "resnet_v2", "stem", "padding")
_HEADS = ("projector_hidden_size", "projector_output_size", "predictor_hidden_size")


def fill(
    config: Any,
    workdir: pathlib.Path | None = None,
    *,
    train: datasets.Dataset | None = None,
    test: datasets.Dataset | None = None,
) -> Any:
    """The config that `fill_in` gives."""
    stored = stored_config(workdir)
    return fill_in(config, workdir, stored, train=train, test=test).config


def stored_config(workdir: pathlib.Path | None) -> dict[str, Any] | None:
    """The nested config of the run in a workdir, on all processes; None if there is none."""
    return workdir and multihost.on_writer(
        lambda: run_facts.read(workdir, run_facts.CONFIG, warn=lambda _: None),
        what="reading the workdir",
    )


def fill_in(
    config: Any,
    workdir: pathlib.Path | None,
    stored: Mapping[str, Any] | None,
    *,
    train: datasets.Dataset | None = None,
    test: datasets.Dataset | None = None,
) -> method_settings.Filled:
    """A config with nothing left unset, alike on all processes.

    A run that is in the workdir goes on with the numbers that it began with.

    Args:
      config: of a run, which is left as it is.
      workdir: of the run; None: there will be none, and no step is measured.
      stored: what `stored_config` gives of the workdir.
      train: images to train on, in place of those of ``config.data``.
      test: images that probes measure, likewise.

    Raises:
      UsageError: too little time, another budget than the run began with, a mistake in the config.
    """
    if budget.is_complete(config):
        return method_settings.Filled(config, {})
    if stored:
        begun = _as_begun(config, config_lib.flatten(stored))
        origins = dict.fromkeys(_newly_set(config, begun), "as the run began")
        return method_settings.Filled(begun, origins)
    began = time.monotonic()
    if train is None:
        train = multihost.together(
            lambda: datasets.load(
                config.data.name,
                config.data.train_split,
                data_dir=config.data.dir,
                labels=config.data.labels,
            ),
            what="opening the images",
        )
    facts, estimate = look(config, train)
    plan = choose(config, facts, estimate)
    steps = None
    allowed = None if budget.has_length(plan.config) else budget.minutes(plan.config, facts)
    if workdir is None:  # nothing is trained: any length will do
        steps = None if budget.has_length(plan.config) else budget.FEWEST_STEPS
    elif allowed is not None:
        steps = _steps(plan.config, facts, 60 * allowed[0], began, train=train, test=test)
    budget.offer_length(plan, facts, steps=steps)
    console.say(describe(plan.choices, facts, allowed))
    return method_settings.Filled(plan.config, _origins(plan, facts))


def _origins(plan: budget_plan.Plan, facts: budget_plan.Facts) -> dict[str, str]:
    """A label for each key that was chosen."""
    allowed = budget.minutes(plan.config, facts)
    time_limit = f"{allowed[0]:g} minutes" if allowed else "no limit of time"
    label = f"{plan.config.preset} preset: {facts.num_images:,} images, {time_limit}"
    return {key: choice.origin or label for key, choice in plan.choices.items()}


def _newly_set(config: Any, filled: Any) -> list[str]:
    before, after = (config_lib.flatten(c.to_dict()) for c in (config, filled))
    return [key for key, value in after.items() if before[key] is None and value is not None]


def look(config: Any, train: datasets.Dataset) -> tuple[budget_plan.Facts, Callable[[Any], float]]:
    """Facts about images and machine, and what estimates the seconds of an image of a config."""
    known, speed = multihost.on_writer(  # times differ between processes
        lambda: [measure(train)._asdict(), resource_estimate.speed(config.model.dtype)],
        what="looking at images and machine",
    )
    facts = budget_plan.Facts(**known)

    def estimate(trial: Any) -> float:
        found = settings_lib.resolve(with_a_length(trial), num_images=facts.num_images)
        return time_estimate.seconds_per_image(found, resource_estimate.Speed(*speed))

    return facts, estimate


def choose(
    config: Any, facts: budget_plan.Facts, estimate: Callable[[Any], float]
) -> budget_plan.Plan:
    """What `budget.choose` does with facts and estimate of `look`."""
    start = multihost.together(lambda: _start(config.checkpoint), what="reading the checkpoint")
    return budget.choose(config, facts, seconds_per_image=estimate, start=start)


def _as_begun(config: Any, stored: Mapping[str, Any]) -> Any:
    """The config with the numbers of its run wherever it has none."""
    had = stored.get("budget_minutes")
    if config.accept_changes and config.budget_minutes not in (None, had):
        raise UsageError(
            f"--config.budget_minutes={config.budget_minutes:g} decides only when a run begins, "
            f"and this one began with {had or 'none'}: to change its length, leave it as it was "
            "and add --config.total_steps=N."
        )
    config = copy.deepcopy(config)
    groups = [(key,) for key in budget.KEYS] + [budget.LENGTH, budget.WARMUP]
    for keys in groups:
        if all(config_lib.get(config, key) is None for key in keys):
            config.update_from_flattened_dict({key: stored.get(key) for key in keys})
    return config


def measure(train: datasets.Dataset) -> budget_plan.Facts:
    """Looks at some of the images, and at the machine.

    Raises:
      UsageError: none of them can be used.
    """
    is_in_memory = isinstance(train, datasets.ArrayDataset)
    if is_in_memory:
        found = [(min(train.images.shape[1:3]), image) for image in train.images[:SAMPLE]]
    else:
        ranges = eval_loader.grey_ranges(train.take(SAMPLE))
        found = list(_sample(datasets.with_grey_ranges(train, ranges)))
    if not found:
        raise UsageError(f"None of the first {SAMPLE} images can be used.")
    sides, images = zip(*found, strict=True)
    spread = [float(np.ptp(image.astype(np.int16), axis=-1).mean()) for image in images]
    return budget_plan.Facts(
        num_images=train.num_images,
        side=int(np.median(sides)),
        is_in_memory=is_in_memory,
        is_gray=float(np.mean(np.array(spread) < _GRAY_SPREAD)) > 0.95,
        brightness=float(np.mean([image.mean() / 255 for image in images])),
        texture=float(np.median([texture(image) for image in images])),
        is_accelerator=jax.default_backend() != "cpu",
        devices=jax.device_count(),
    )


def _sample(train: datasets.RecordDataset) -> Iterator[tuple[int, np.ndarray]]:
    """Shorter side and pixels of the first usable files, whose order means nothing in folders."""
    for index in range(min(SAMPLE, train.num_images)):
        try:
            image = image_decoding.EncodedImage(train.records.read(index)[0], train.grey_ranges)
            side = min(image.height, image.width)
            shrink = next((n for n in (8, 4, 2) if side >= 256 * n), 1)
            yield side, image.decode(shrink=shrink, fast=True)
        except image_decoding.BadImageError:
            continue


def texture(image: np.ndarray) -> float:
    """Fraction of the variance of an image [H, W, 3] that is gone at `TEXTURE_SIZE` px.

    Blocks of pixels are averaged, and what differs inside them is lost.
    """
    gray = image.mean(axis=-1)
    block = max(min(gray.shape) // budget_plan.TEXTURE_SIZE, 1)
    if block == 1 and min(gray.shape) >= 1.5 * budget_plan.TEXTURE_SIZE:
        block = 2
    height, width = (size // block * block for size in gray.shape)
    gray = gray[:height, :width]
    means = gray.reshape(height // block, block, width // block, block).mean((1, 3))
    variance = gray.var()
    return float(1 - means.var() / variance) if variance > 1 else 0.0


def _start(path: str) -> dict[str, Any] | None:
    """Keys of what a run continues from."""
    if not path:
        return None
    found = sources.open_weights(path)
    start = {f"model.{key}": getattr(found.card, key) for key in _STARTED}
    if found.config is not None:
        start |= {f"model.{key}": found.config.model[key] for key in _HEADS}
    return start


def _steps(
    config: Any,
    facts: budget_plan.Facts,
    seconds: float,
    began: float,
    *,
    train: datasets.Dataset,
    test: datasets.Dataset | None,
) -> int:
    """How many steps fit into the time, by some that are measured; process 0's number counts."""
    step, setup = _time_of_a_step(config, MEASURED * seconds, train=train, test=test)
    left = seconds - IMPORTS - (time.monotonic() - began) - setup

    def count() -> int:
        epoch = facts.num_images / config.batch_size
        return budget.steps_within(left, step_seconds=step, epoch_steps=epoch)

    return multihost.on_writer(count, what="choosing the number of steps")


def with_a_length(config: Any) -> Any:
    """A config whose length and batch size are any: they do not change what an image takes."""
    config = copy.deepcopy(config)
    config.total_steps, config.optimizer.warmup_steps = 1000, 100
    if config.batch_size is None:
        config.batch_size = 64
    return config


def _time_of_a_step(
    config: Any, seconds: float, *, train: datasets.Dataset, test: datasets.Dataset | None
) -> tuple[float, float]:
    """Seconds of a training step with its input, and of everything before the first one."""
    config = with_a_length(config)
    start = time.monotonic()
    console.say("Measuring the time of a step...")
    job = multihost.together(
        lambda: build.build(config, train=train, test=test), what="building the run"
    )
    update, state = pmap.pmap_update(job.update), pmap.replicate(job.state)
    step, first = step_seconds(job, update, state, seconds)
    return step, first - start


def step_seconds(job: build.Job, update: Any, state: Any, seconds: float) -> tuple[float, float]:
    """Seconds of a training step with its input, and when the first measured one began.

    Args:
      job: the run.
      update: as `pmap.pmap_update` gives it.
      state: as `pmap.replicate` gives it; it is given away.
      seconds: that steps are measured for; three at least.
    """
    batches = build.make_train_batches(job.settings, job.images.train)
    try:
        for _ in range(2):
            state, *_ = jax.block_until_ready(update(state, pmap.shard(next(batches))))
        first, count = time.monotonic(), 0
        # Of several processes all make the same number of steps.
        while count < 3 or multihost.on_writer(
            lambda: time.monotonic() - first < seconds, what="measuring a step"
        ):
            state, *_ = jax.block_until_ready(update(state, pmap.shard(next(batches))))
            count += 1
        return (time.monotonic() - first) / count, first
    finally:
        batches.close()


def describe(
    choices: Mapping[str, budget_plan.Choice],
    facts: budget_plan.Facts,
    allowed: tuple[float, str] | None,
) -> str:
    """What was chosen and why, a line for each key; of both views in one where they agree."""
    kind = "gray" if facts.is_gray else "color"
    time_limit = f", {allowed[0]:g} minutes ({allowed[1]})" if allowed else ""
    lines = [
        f"Chosen for {facts.num_images:,} {kind} images of about {facts.side} px on "
        f"{pmap.describe_devices()}{time_limit}; a value that is typed wins:"
    ]
    for key, choice in choices.items():
        other = choices.get(key.replace("view1", "view2"))
        if "view2" in key and choices.get(key.replace("view2", "view1")) == choice:
            continue
        name = key.replace("view1", "view[12]") if other == choice else key
        value = f"{choice.value:.4g}" if isinstance(choice.value, float) else choice.value
        lines.append(f"  {name} = {value}  # {choice.reason}")
    return "\n".join(lines)
