"""The packing task: rewrites images as a TFDS set of small JPEGs that is quick to read."""

import pathlib
import shlex
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import host_crops, image_decoding, tfds_source
from byol_jax.data.prepare import pack_sources, packed_dataset
from byol_jax.workdir import console

UsageError = config_lib.UsageError

SPEED_IMAGES = 200  # that the speed is measured on


def run(config: Any, workdir: pathlib.Path) -> None:
    """Packs what the config names, or goes on with it; the workdir is not used.

    Raises:
      UsageError: a mistake in the config, too many bad images, a folder that cannot be written to
        or that holds something else.
    """
    del workdir
    _check(config)
    source = pack_sources.open_source(config.data.name, config.data.dir, config.output_name)
    output = pathlib.Path(config.output_dir or source.default_output).expanduser()
    if config.data.name == "folder":
        _check_outside(output, config.data.dir)
    target = output / source.below
    settings = packed_dataset.Settings(
        config.data.name, shorter_side(config), config.quality, config.shard_images
    )
    packed = packed_dataset.PackedSet(
        source, target, settings, max_bad_share=config.data.max_bad_share
    )
    if packed.is_finished():
        console.say(f"{target} is packed already.")
    else:
        packed.pack()
        console.say(_describe(source, packed, target))
        console.say(_describe_speed(source, output, config.image_size))
    console.say(f"To train on it: {_how_to_train(config, source, output)}")


def shorter_side(config: Any) -> int:
    """The most pixels that an image's shorter side is to have."""
    return config.shorter_side or round(256 * config.image_size / 224)


def _check(config: Any) -> None:
    config_lib.require_positive(config, "image_size", "shorter_side", "shard_images")
    if shorter_side(config) < image_decoding.MIN_SIDE:
        raise UsageError(f"--config.shorter_side must be at least {image_decoding.MIN_SIDE}.")
    if not 1 <= config.quality <= 100:
        raise UsageError(f"--config.quality must be from 1 to 100, not {config.quality}.")
    if not 0 <= config.data.max_bad_share <= 1:
        fraction = config.data.max_bad_share
        raise UsageError(f"--config.data.max_bad_share must be from 0 to 1, not {fraction}.")


def _check_outside(output: pathlib.Path, data_dir: str) -> None:
    source = pathlib.Path(data_dir).expanduser().resolve()
    if source in (output.resolve(), *output.resolve().parents):
        raise UsageError(
            f"--config.output_dir={output} is inside of the folder of images, {source}, of which "
            "it would become a part; choose another one."
        )


def _describe(
    source: pack_sources.Source, packed: packed_dataset.PackedSet, target: pathlib.Path
) -> str:
    before, after = sum(split.num_bytes for split in source.splits.values()), packed.num_bytes
    bad = f" (bad ones left out: {packed.num_bad:,}, see {packed_dataset.BAD_IMAGES})"
    return (
        f"Packed {packed.num_images:,} images{bad if packed.num_bad else ''} into {target}.\n"
        f"Size: {console.format_size(before)} before, {console.format_size(after)} now."
    )


def _describe_speed(source: pack_sources.Source, output: pathlib.Path, image_size: int) -> str:
    """How fast views are made of the largest split, before and after."""
    split = max(source.splits, key=lambda name: len(source.splits[name]))
    after = tfds_source.Records(tfds_source.open_set(_tfds_name(source), str(output)), _raw(split))
    before = source.splits[split]
    rates = [
        views_per_second(lambda index: before.example(index)["image"], len(before), image_size),
        views_per_second(lambda index: after.read(index)[0], len(after), image_size),
    ]
    return (
        f"Reading, decoding and cutting both views at {image_size} px, on one thread: "
        f"{rates[0]:,.0f} images/s before, {rates[1]:,.0f} now (files still in memory)."
    )


def _raw(split: str) -> str:
    """All of a split, also where the reference's names would hold images out."""
    return f"{split}[:100%]"


def _tfds_name(source: pack_sources.Source) -> str:
    return "/".join(source.below.parts[:-1])


def views_per_second(read: Callable[[int], bytes], num_images: int, size: int) -> float:
    """Images that one thread reads, decodes and cuts two views of, in a second.

    Args:
      read: from an index to an encoded image; bad ones count neither as images nor as time.
      num_images: to choose from; at most `SPEED_IMAGES` are read, all over the split.
      size: of the views, in pixels.
    """
    rng = np.random.default_rng(0)
    good, seconds, views = 0, 0.0, np.empty((2, size, size, 3), np.uint8)
    for index in np.linspace(0, num_images - 1, min(num_images, SPEED_IMAGES)).astype(int):
        uniforms = rng.random((2, 4))
        start = time.perf_counter()
        try:
            image = image_decoding.EncodedImage(read(int(index)))
            windows = host_crops.draw_windows(uniforms, image)
            host_crops.train_views(image, windows, views)
        except image_decoding.BadImageError:
            continue
        good, seconds = good + 1, seconds + time.perf_counter() - start
    return good / seconds if good else 0.0


def _how_to_train(config: Any, source: pack_sources.Source, output: pathlib.Path) -> str:
    where = f"--config.data.dir={shlex.quote(str(output))}"
    if config.data.name != "folder":
        return f"{where}, and everything else as before (--config.data.name={config.data.name})."
    keys = ["--config=configs/byol.py:folder", f"--config.data.name=tfds:{_tfds_name(source)}"]
    keys += [where, *_split_keys(source)]
    return " ".join(keys)


def _split_keys(source: pack_sources.Source) -> list[str]:
    """What a config needs whose splits are ``train`` and ``test``."""
    if "train" not in source.splits:
        first, last = list(source.splits)[0], list(source.splits)[-1]
        return [f"--config.data.train_split={first}", f"--config.data.eval_split={last}"]
    if "test" in source.splits:
        return []
    if "validation" in source.splits:
        return ["--config.data.eval_split=validation"]
    if "label" not in source.features:  # nothing is measured that training images give away
        return ["--config.data.eval_split='train[:10%]'"]
    return ["--config.data.train_split='train[:90%]'", "--config.data.eval_split='train[90%:]'"]
