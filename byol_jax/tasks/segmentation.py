"""The task of semantic segmentation: an encoder at output stride 16 with an FCN head (paper, D.4).

Shapes: b images, S side of a crop, H x W pixels of an image, C classes, N images of a split.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import pixel_sets, pixel_targets, pixel_views, voc
from byol_jax.distributed import pmap
from byol_jax.evaluation import (
    baselines,
    pixel_protocol,
    pixel_sweep,
    pixel_training,
    protocol,
    results,
    resume,
    windows,
)
from byol_jax.metrics import segmentation
from byol_jax.models import dense_heads, dilation, encoder_spec, resnet
from byol_jax.objectives import dense
from byol_jax.visualize import predictions
from byol_jax.workdir import console

UsageError = config_lib.UsageError


@dataclasses.dataclass(frozen=True)
class SegmentationData(pixel_protocol.PixelData):
    """Which images.

    Attributes:
      masks: folder of masks, of the set "folder".
      classes: names of the classes, the background first.
    """

    masks: str
    classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Head:
    """The convolutions of the head."""

    channels: int
    dilation: int


@dataclasses.dataclass(frozen=True)
class SegmentationSettings(pixel_protocol.PixelSettings):
    """Settings of configs/segmentation.py."""

    data: SegmentationData
    output_stride: int
    crop_size: int
    min_scale: float
    max_scale: float
    inference: str
    head: Head


def resolve(config: Any) -> SegmentationSettings:
    """The settings of a config.

    Raises:
      UsageError: a number out of range, an unknown name.
    """
    config_lib.lookup(windows.MODES, config.inference, key="inference")
    if config.max_scale < config.min_scale:
        raise UsageError(
            f"--config.max_scale must be --config.min_scale ({config.min_scale}) or more."
        )
    is_voc = config.data.name.startswith("voc")
    classes = voc.CLASSES if is_voc else _classes(config.data.classes)
    data = config_lib.freeze(SegmentationData, config.data, prefix="data.", classes=classes)
    return pixel_protocol.resolve(SegmentationSettings, config, data=data)


def _classes(text: str) -> tuple[str, ...]:
    """Names of classes, from their number or from names with commas."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if len(names) == 1 and names[0].isdigit():
        names = tuple(str(number) for number in range(int(names[0])))
    if not 2 <= len(names) <= pixel_targets.IGNORED:
        raise UsageError(
            "Say which classes the masks have, 2 to 255 of them, the background among them, by "
            '--config.data.classes=21, or "background,road,car": the number in a mask is the place '
            "in this list."
        )
    return names


def run(config: Any, workdir: pathlib.Path) -> None:
    """Trains and tests as the config says; writes ``result.json`` and pictures, prints a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, a folder that is
        missing, more bad images than may be.
      resume.Stopped: there was a signal; rerun the same command to resume.
    """
    start = time.monotonic()
    settings = resolve(config)
    encoder = encoders.load_encoder(settings.checkpoint)
    require_geometry(encoder, settings)
    setup = _open(encoder, settings)
    bad = settings.data.bad_limit(setup.train, setup.test)
    pixel_protocol.require_usable(setup.test, bad)
    task = pixel_sweep.Task(
        "semantic segmentation",
        drawn="held-out images, first weights of the head, order and crops",
        choices=CHOICES,
        network=baselines.networks(encoder, settings.weights, setup.train),
        make_job=lambda: make_job(encoder, settings),
        show=functools.partial(predictions.write_labels, workdir, settings.data.classes),
    )
    with resume.opened(workdir, settings.stored, encoder.identity["sha256"]) as work:
        found = pixel_sweep.over_seeds(task, settings, setup, work, bad)
        result = results.write_result(workdir, settings, setup, found, start=start)
    console.say(results.describe(result, _table))


def _open(encoder: encoders.Encoder, settings: SegmentationSettings) -> protocol.EvalSetup:
    data = settings.data
    place = pixel_sets.Place(data.dir, data.images, data.masks, len(data.classes))
    if not data.name.startswith("voc"):
        usual = ("train", "test")
    else:
        has_all = data.name == "voc2012" and data.dir and voc.has_sbd(data.dir)
        usual = (voc.AUGMENTED if has_all else "train", "val")
    splits = data.train_split or usual[0], data.eval_split or usual[1]
    return pixel_protocol.open_sets(encoder, data.name, place, pixel_sets.LABELED, splits)


def require_geometry(encoder: encoders.Encoder, settings: SegmentationSettings) -> None:
    """Raises unless the encoder has such an output stride, and cells meet the crop's corners."""
    card, stride, size = encoder.card, settings.output_stride, settings.crop_size
    spec, stem = resnet.ENCODERS[card.encoder], resnet.STEMS[card.stem]
    try:
        dilation.dilated(spec, stem, stride)
    except ValueError:
        usual = dilation.output_stride(spec, stem)
        raise UsageError(
            f"{encoder.identity['path']} is a {card.encoder} with the stem '{card.stem}', whose "
            f"output stride is {usual}, or {usual // 2} with the last group dilated, not {stride}: "
            f"add --config.output_stride={max(1, usual // 2)}."
        ) from None
    if (size - 1) % stride or size <= stride:
        near = max(1, round((size - 1) / stride)) * stride + 1
        raise UsageError(
            f"--config.crop_size must be a multiple of the output stride ({stride}) and 1 more, so "
            f"that cells meet its corners: take {near}."
        )


def make_job(encoder: encoders.Encoder, settings: SegmentationSettings) -> pixel_sweep.Job:
    """The parts of the task; compiles nothing yet."""
    axis, size = pmap.reduction_axis(), settings.crop_size
    scales = settings.min_scale, settings.max_scale
    fill = 255 * np.asarray(encoder.card.mean, np.float32)
    trained, tested = (make_forward(encoder, settings, a) for a in (axis, None))
    update = pixel_training.make_update(
        trained,
        _loss,
        lambda batch: batch["image"].astype(jnp.float32) / 255,
        pixel_training.two_drops,
        is_frozen=settings.frozen,
        axis=axis,
    )

    def make(example: pixel_sets.Example, rng: np.random.Generator) -> dict[str, np.ndarray]:
        drawn = pixel_views.draw_cut(rng.random(4), example.target.shape, size, scales)
        image, labels = pixel_views.cut_labels(
            example.pixels, example.target, drawn, crop=size, fill=fill,
            ignored=segmentation.IGNORED,
        )  # fmt: skip
        return {"image": np.rint(image).astype(np.uint8), "target": labels}

    return pixel_sweep.Job(
        head=tested.head,
        update=pmap.pmap_update(update),
        make=make,
        measure=_make_measure(tested, settings, fill),
        criterion=lambda rows: float(segmentation.mean_iou(rows.sum(axis=0))),
        criterion_name="miou",
        summarize=functools.partial(_summarize, settings),
    )


def make_forward(
    encoder: encoders.Encoder, settings: SegmentationSettings, axis: str | None
) -> pixel_training.Forward:
    """Encoder and head; logits [b, S, S, C] of images [b, S, S, 3]."""
    card, rate = encoder.card, settings.bn_decay_rate
    layers = encoder_spec.make_layers(card._replace(bn_decay_rate=rate), axis=axis)
    num_classes, size = len(settings.data.classes), (settings.crop_size,) * 2

    def head(x: jax.Array, is_training: bool) -> jax.Array:
        make = dense_heads.FcnHead(
            num_classes,
            layers=layers,
            channels=settings.head.channels,
            dilation=settings.head.dilation,
        )
        return dense_heads.resize_corners(make(x, is_training), size)

    network = encoders.make_forward(
        encoder, axis=axis, bn_decay_rate=rate, output_stride=settings.output_stride
    )
    return pixel_training.Forward(network, pixel_training.make_head(head))


def _loss(logits: jax.Array, labels: jax.Array, axis: str | None) -> jax.Array:
    return dense.cross_entropy(logits, labels, ignored=segmentation.IGNORED, axis=axis)


def _make_measure(
    forward: pixel_training.Forward, settings: SegmentationSettings, fill: np.ndarray
) -> Callable[..., pixel_sweep.Measured]:
    mode, size = windows.MODES[settings.inference], settings.crop_size
    num_classes, count = len(settings.data.classes), settings.test_batch_size

    @jax.jit
    def predict(network: pixel_training.Network, images: jax.Array) -> jax.Array:
        pixels = images.astype(jnp.float32) / 255
        return mode.reduce(forward(network, pixels, trains_encoder=False, trains_head=False)[0])

    def measure(network: Any, examples: Sequence[pixel_sets.Example]) -> pixel_sweep.Measured:
        places = [mode.windows(example.target.shape, size) for example in examples]
        pairs = zip(examples, places, strict=True)
        cuts = [windows.cut(e.pixels, window, size, fill) for e, where in pairs for window in where]
        parts: list[np.ndarray] = []
        for batch, real in windows.in_batches(cuts, count):
            parts += list(np.asarray(predict(network, pmap.spread(batch)))[:real])
        rows, predicted = [], []
        for example, where in zip(examples, places, strict=True):
            mine, parts = parts[: len(where)], parts[len(where) :]
            guess, seen = mode.join(example.target.shape, where, mine)
            truth = np.where(seen, example.target, segmentation.IGNORED)
            rows.append(segmentation.confusion(truth, guess, num_classes))
            predicted.append(guess)
        return pixel_sweep.Measured(rows, predicted)

    return measure


def _summarize(settings: SegmentationSettings, rows: np.ndarray, seed: int) -> dict[str, Any]:
    pooled = rows.sum(axis=0)
    iou = segmentation.iou(pooled)
    return {
        "accuracy": {
            "miou": float(segmentation.mean_iou(pooled)),
            "pixel_accuracy": float(segmentation.pixel_accuracy(pooled)),
        },
        "interval_95": {
            name: list(pair)
            for name, pair in segmentation.bootstrap(
                rows, seed=seed, resamples=settings.bootstrap_resamples
            ).items()
        },
        "iou": {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(settings.data.classes, iou, strict=True)
        },
    }


# Where the paper is silent.
CHOICES = {
    "optimizer": "SGD, momentum 0.9; weight decay not on biases and batch norm",
    "final training": "on held-out images, too, if refit is true",
    "loss": "a mean over the pixels of the batch that are not ignored",
    "classes absent from truth and prediction": "left out of the mean (VOC's devkit gives NaN)",
    "masks of train_aug": "VOC's own where there are such, else SBD's",
}


def _table(found: Mapping[str, Any]) -> list[str]:
    lines = pixel_protocol.table(found, "miou", "mIoU")
    values = (("-" if v is None else f"{v:.1%}", name) for name, v in found["iou"].items())
    return [*lines, "IoU: " + ", ".join(f"{name} {value}" for value, name in values)]
