"""The task of depth estimation: up-projections on an encoder's last map (paper, appendix D.6).

Shapes: b images, S x S' pixels of the input, H x W of an image, h x w of what is predicted.
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
from byol_jax.data import pixel_sets, pixel_views
from byol_jax.distributed import pmap
from byol_jax.evaluation import (
    baselines,
    depth_input,
    pixel_protocol,
    pixel_sweep,
    pixel_training,
    protocol,
    results,
    resume,
    windows,
)
from byol_jax.evaluation import settings as settings_lib
from byol_jax.metrics import depth as measures
from byol_jax.models import dense_heads, encoder_spec
from byol_jax.objectives import dense
from byol_jax.training import optimizers
from byol_jax.visualize import predictions
from byol_jax.workdir import console

UsageError = config_lib.UsageError


@dataclasses.dataclass(frozen=True)
class DepthData(pixel_protocol.PixelData):
    """Which images; ``depths`` is a folder of depth maps, of the set "folder"."""

    depths: str


@dataclasses.dataclass(frozen=True)
class DepthSettings(pixel_protocol.PixelSettings):
    """Settings of configs/depth.py."""

    data: DepthData
    input_height: int
    input_width: int
    up_channels: tuple[int, ...]
    inference: str
    region: str

    @property
    def input_size(self) -> tuple[int, int]:
        """S and S'."""
        return self.input_height, self.input_width


def resolve(config: Any) -> DepthSettings:
    """The settings of a config.

    Raises:
      UsageError: a number out of range, an unknown name.
    """
    config_lib.lookup(depth_input.PARTS, config.inference, key="inference")
    config_lib.lookup(measures.CROPS, config.region, key="region")
    channels = settings_lib.numbers(config, "up_channels", "(64, 32)")
    return pixel_protocol.resolve(
        DepthSettings, config, up_channels=tuple(int(number) for number in channels)
    )


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
    setup = _open(encoder, settings)
    bad = settings.data.bad_limit(setup.train, setup.test)
    pixel_protocol.require_usable(setup.test, bad)
    task = pixel_sweep.Task(
        "depth estimation",
        drawn="held-out images, first weights of the head, order and views",
        choices=CHOICES,
        network=baselines.networks(encoder, settings.weights, setup.train),
        make_job=lambda: make_job(encoder, settings),
        show=functools.partial(predictions.write_depth, workdir),
        pool_seeds=_over_seeds,
    )
    with resume.opened(workdir, settings.stored, encoder.identity["sha256"]) as work:
        found = pixel_sweep.over_seeds(task, settings, setup, work, bad)
        result = results.write_result(workdir, settings, setup, found, start=start)
    console.say(results.describe(result, _table))


def _open(encoder: encoders.Encoder, settings: DepthSettings) -> protocol.EvalSetup:
    data = settings.data
    place = pixel_sets.Place(data.dir, data.images, data.depths)
    usual = {"nyu_h5": "val", "tfds:nyu_depth_v2": "validation"}.get(data.name, "test")
    splits = data.train_split or "train", data.eval_split or usual
    return pixel_protocol.open_sets(encoder, data.name, place, pixel_sets.DEPTHS, splits)


def make_job(encoder: encoders.Encoder, settings: DepthSettings) -> pixel_sweep.Job:
    """The parts of the task; compiles nothing yet."""
    axis = pmap.reduction_axis()
    trained, tested = (make_forward(encoder, settings, a) for a in (axis, None))
    update = pixel_training.make_update(
        trained,
        lambda predicted, truth, axis: dense.reverse_huber(predicted, truth, axis=axis),
        depth_input.make_images,
        optimizers.cosine,
        is_frozen=settings.frozen,
        axis=axis,
    )
    head = jax.eval_shape(functools.partial(_predict, tested), *_blank(encoder, tested, settings))
    return pixel_sweep.Job(
        head=tested.head,
        update=pmap.pmap_update(update),
        make=functools.partial(depth_input.make_example, settings.input_size, head.shape[1:]),
        measure=_make_measure(tested, settings),
        criterion=lambda rows: measures.pooled(rows.sum(axis=0))["delta1"],
        criterion_name="delta1",
        summarize=functools.partial(_summarize, settings),
    )


def make_forward(
    encoder: encoders.Encoder, settings: DepthSettings, axis: str | None
) -> pixel_training.Forward:
    """Encoder and head; depth [b, h, w] in meters of images [b, S, S', 3]."""
    card, rate = encoder.card, settings.bn_decay_rate
    layers = encoder_spec.make_layers(card._replace(bn_decay_rate=rate), axis=axis)

    def head(x: jax.Array, is_training: bool) -> jax.Array:
        return dense_heads.DepthHead(settings.up_channels, layers=layers)(x, is_training)

    network = encoders.make_forward(encoder, axis=axis, bn_decay_rate=rate)
    return pixel_training.Forward(network, pixel_training.make_head(head))


def _predict(forward: pixel_training.Forward, network: Any, images: jax.Array) -> jax.Array:
    pixels = images.astype(jnp.float32) / 255
    return forward(network, pixels, trains_encoder=False, trains_head=False)[0]


def _blank(
    encoder: encoders.Encoder, forward: pixel_training.Forward, settings: DepthSettings
) -> tuple[pixel_training.Network, jax.Array]:
    """Shapes of a network and of an image."""
    head = jax.eval_shape(
        lambda key: forward.head.init(key, jnp.zeros((1, 3, 3, encoder.embedding_size)), True),
        jax.random.key(0),
    )
    network = pixel_training.Network(encoder.params, encoder.state, *head)
    return network, jax.ShapeDtypeStruct((1, *settings.input_size, 3), jnp.uint8)


def _make_measure(
    forward: pixel_training.Forward, settings: DepthSettings
) -> Callable[..., pixel_sweep.Measured]:
    find_part, size = depth_input.PARTS[settings.inference], settings.input_size
    count = settings.test_batch_size
    predict = jax.jit(functools.partial(_predict, forward))

    def measure(network: Any, examples: Sequence[pixel_sets.Example]) -> pixel_sweep.Measured:
        parts = [find_part(example.target.shape, size) for example in examples]
        images = [
            depth_input.shrink(pixel_views.center(example.pixels, part), size)
            for example, part in zip(examples, parts, strict=True)
        ]
        found: list[np.ndarray] = []
        for batch, real in windows.in_batches(images, count):
            found += list(np.asarray(predict(network, pmap.spread(batch)))[:real])
        rows, predicted = [], []
        for example, part, guess in zip(examples, parts, found, strict=True):
            whole = _placed(pixel_views.resize_bilinear(guess, part), example.target.shape)
            truth = np.where(np.isnan(whole), 0, example.target)
            truth = measures.crop(truth, measures.CROPS[settings.region])
            rows.append(measures.sums(truth, np.nan_to_num(whole)))
            predicted.append(np.maximum(np.nan_to_num(whole), 0))
        return pixel_sweep.Measured(rows, predicted)

    return measure


def _placed(part: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map [H, W] of what was predicted of its middle, NaN around it."""
    whole = np.full(shape, np.nan, np.float32)
    pixel_views.center(whole, part.shape)[:] = np.nan_to_num(part, posinf=1e6, neginf=0)
    return whole


def _summarize(settings: DepthSettings, rows: np.ndarray, seed: int) -> dict[str, Any]:
    found = measures.pooled(rows.sum(axis=0))
    pairs = measures.bootstrap(rows, seed=seed, resamples=settings.bootstrap_resamples)
    return {
        "accuracy": {name: found[name] for name in measures.FRACTIONS},
        "errors": {name: found[name] for name in measures.ERRORS},
        "interval_95": {name: list(pair) for name, pair in pairs.items()},
    }


def _over_seeds(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of errors, if there are several seeds."""
    if "per_seed" not in found:
        return {}
    columns = {n: [run["errors"][n] for run in found["per_seed"]] for n in measures.ERRORS}
    return {
        "errors": {name: float(np.mean(values)) for name, values in columns.items()},
        "errors_std": {name: float(np.std(values, ddof=1)) for name, values in columns.items()},
    }


# Where the paper is silent.
CHOICES = {
    "optimizer": "SGD, momentum 0.9, a cosine to 0; weight decay not on biases and batch norm",
    "loss": "a mean over pixels of known depth; a fifth of the batch's largest error is its bend",
    "truth": "resized to the prediction by the nearest pixel for the loss",
    "tested pixels": "those of the middle crop, resized back; see inference and region",
    "up-projections": "on the encoder's last map, without a 1x1 convolution before them",
}


def _table(found: Mapping[str, Any]) -> list[str]:
    lines = pixel_protocol.table(found, "delta1", "within 1.25")
    for name, value in found["errors"].items():
        low, high = found["interval_95"][name]
        lines.append(f"{name} {value:.4f} (95 % bootstrap interval {low:.4f} to {high:.4f})")
    return lines
