"""The task that measures the input: each stage, the whole pipeline, and the step it has to feed."""

import pathlib
import time
from collections.abc import Collection
from typing import Any

import jax
import ml_collections
import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets, eval_loader, host_crops, image_decoding, train_loader
from byol_jax.distributed import pmap
from byol_jax.evaluation import result_folder
from byol_jax.host import machine
from byol_jax.training import build, completion, precision
from byol_jax.training import settings as settings_lib
from byol_jax.workdir import console

STAGES = ("read", "decode", "crop")
SAMPLE = 300  # images that the stages are measured on


def run(config: Any, workdir: pathlib.Path, *, typed: Collection[str] = ()) -> None:
    """Prints images a second of every stage, says what is the limit, writes ``result.json``.

    Raises:
      UsageError: a mistake in the config, or no image that can be read.
    """
    config_lib.require_positive(config, "bench.seconds", "bench.step_batch_size")
    config = completion.complete(config, typed=typed).config
    section = config_lib.freeze(settings_lib.Data, config.data, prefix="data.")
    crop = config_lib.freeze(settings_lib.Crop, config.augment.crop, prefix="augment.crop.")
    data = datasets.load(
        section.name, section.train_split, data_dir=section.dir, labels=section.labels
    )
    data = datasets.with_grey_ranges(data, eval_loader.grey_ranges(data))
    is_streamed = isinstance(data, datasets.RecordDataset)
    cut = build.make_crop(crop, image_size=section.image_size)
    rates = stage_rates(data, cut, name=section.name, seed=config.seed) if is_streamed else {}
    for name, rate in rates.items():
        console.say(f"{name:<16}{rate:>12,.0f} images/s on one thread")
    batches = build.make_batches(
        data, section, crop, batch_size=config.batch_size, seed=config.seed
    )
    own = config.batch_size // jax.process_count()
    rates["pipeline"] = own * pipeline_rate(batches, seconds=config.bench.seconds)
    workers = f", {section.workers} workers" if section.workers else ""
    threads = section.threads or machine.processors()
    console.say(
        f"{'whole pipeline':<16}{rates['pipeline']:>12,.0f} images/s on {threads} threads{workers}"
    )
    if config.bench.step:
        job = build.build(_of_step(config))
        rates["step"] = step_rate(job, seconds=config.bench.seconds)
        console.say(
            f"{'training step':<16}{rates['step']:>12,.0f} images/s of {config.model.encoder}"
        )
        console.say(_verdict(rates, is_streamed=is_streamed))
    result = {
        "images_per_second": rates,
        "devices": pmap.describe_devices(),
        "config": config.to_dict(),
    }
    result_folder.write(workdir, result)
    console.say(f"Written: {workdir / 'result.json'}")


def stage_rates(
    data: datasets.RecordDataset, crop: train_loader.Crop, *, name: str, seed: int
) -> dict[str, float]:
    """Images a second of one thread in each stage and in making batches; bad ones are left out."""
    rng, seconds, views = np.random.default_rng(seed), np.zeros(len(STAGES)), []
    for index in rng.permutation(data.num_images)[:SAMPLE]:
        try:
            ticks = _one_image(data, int(index), crop, rng.random((2, 4)), views)
        except image_decoding.BadImageError:
            continue
        seconds += np.diff(ticks)
    if not views:
        raise config_lib.UsageError(f"No image of {name} can be read.")
    rates = dict(zip(STAGES, (len(views) / seconds).tolist(), strict=True))
    start = time.perf_counter()
    for first in range(0, len(views), 64):
        np.stack(views[first : first + 64])
    return rates | {"batch": len(views) / (time.perf_counter() - start)}


def _one_image(
    data: datasets.RecordDataset,
    index: int,
    crop: train_loader.Crop,
    uniforms: np.ndarray,
    views: list[Any],
) -> list[float]:
    """Takes an image through all stages; gives the time before, between and after them."""
    ticks = [time.perf_counter()]
    encoded, _ = data.records.read(index)
    ticks.append(time.perf_counter())
    image = image_decoding.EncodedImage(encoded, data.grey_ranges)
    windows = host_crops.draw_windows(uniforms, image, area_range=crop.area_range)
    pixels = host_crops.decode(image, windows, crop.size)
    ticks.append(time.perf_counter())
    views.append(np.empty((2, crop.size, crop.size, 3), np.uint8))
    host_crops.cut(pixels, image, windows, views[-1])
    ticks.append(time.perf_counter())
    return ticks


def pipeline_rate(batches: train_loader.TrainBatches, *, seconds: float) -> float:
    """Training batches a second, after those that start-up prefetches; ends them."""
    for _ in range(3):
        next(batches)
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or count < 3:
        next(batches)
        count += 1
    batches.close()
    return count / elapsed


def _of_step(config: Any) -> Any:
    """The config with the batch that the step is measured on."""
    config = ml_collections.ConfigDict(config)
    if config.bench.step_batch_size is not None:
        config.batch_size = config.bench.step_batch_size
    elif jax.default_backend() == "cpu":  # the presets' batches are for accelerators
        config.batch_size = min(config.batch_size, 16 * jax.device_count())
    config.model.dtype = config.model.dtype or precision.default()
    return config


def step_rate(job: build.Job, *, seconds: float) -> float:
    """Images a second of the training step, its input being there already."""
    settings = job.settings
    batches = build.make_train_batches(settings, job.images.train)
    batch = pmap.shard(next(batches))
    batches.close()
    console.say(
        f"Compiling the step of {settings.model.encoder} for {settings.batch_size} images..."
    )
    update = pmap.pmap_update(job.update)
    state, *_ = jax.block_until_ready(update(pmap.replicate(job.state), batch))
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        state, *_ = jax.block_until_ready(update(state, batch))
        count += 1
    return count * settings.batch_size / elapsed


def _verdict(rates: dict[str, float], *, is_streamed: bool) -> str:
    fraction = rates["step"] / rates["pipeline"]
    if fraction <= 1:
        return f"The device is the limit: feeding it takes {fraction:.1%} of what the input can do."
    more = "more data.threads or data.workers, or images packed by configs/pack.py"
    hint = f"; try {more}" if is_streamed else ""
    return f"The host is the limit: the step could use {fraction:.1f} times as many images{hint}."
