"""One trial of training a whole network with labels: its settings, its training, its test.

Shapes: N images of a split, C classes.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, eval_loader
from byol_jax.distributed import pmap
from byol_jax.evaluation import baselines, finetune, protocol, resume, train_input
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import settings as settings_lib
from byol_jax.metrics import accuracy
from byol_jax.models import inference

UsageError = config_lib.UsageError


class FinetuneParams(NamedTuple):
    """A row of the sweep.

    Attributes:
      base_learning_rate: times batch size / 256 is the rate of the first step.
      weight_decay: divided by the rate of the first step it is the factor of the L2 penalty.
      epochs: over the images that are learned from; None: as many steps as the config says.
    """

    base_learning_rate: float
    weight_decay: float
    epochs: float | None


class FinetuneContext(NamedTuple):
    """What all trials of a task share.

    Attributes:
      setup: the encoder and its images.
      labels: [N] of ``setup.train``; -1 without.
      make_update: decay of running batch-norm statistics -> one step, on all devices.
      classify: (network, uint8 images) -> logits, on all local devices.
      min_area: of the crops.
      bad: notes images that cannot be used.
      work: what has been done so far.
    """

    setup: protocol.EvalSetup
    labels: np.ndarray
    make_update: Callable[[float], Callable[..., Any]]
    classify: Callable[..., jax.Array]
    min_area: float
    bad: eval_loader.BadLimit
    work: resume.Unfinished


@dataclasses.dataclass(frozen=True)
class Labels:
    """Which labels may be learned from."""

    share: float
    list: str


@dataclasses.dataclass(frozen=True)
class FinetuneSettings(settings_lib.EvalSettings):
    """Settings of configs/semi_supervised.py."""

    batch_size: int
    epochs: tuple[float, ...]
    total_steps: int | None  # counts if set
    base_learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    bn_decay_rate: float | None  # None: by the length of an epoch
    refit: bool
    extract_batch_size: int
    labels: Labels
    crop: train_input.TrainCrop

    def rows(self) -> list[FinetuneParams]:
        """All combinations of learning rate, weight decay and length."""
        lengths = [None] if self.total_steps else self.epochs
        values = itertools.product(self.base_learning_rates, self.weight_decays, lengths)
        return [FinetuneParams(*row) for row in values]


def resolve(config: Any) -> FinetuneSettings:
    """The settings of a config.

    Raises:
      UsageError: an empty list, a number out of range.
    """
    if not 0 < config.labels.share <= 1:
        fraction = config.labels.share
        raise UsageError(f"--config.labels.share must be above 0, at most 1, not {fraction}.")
    numbers = settings_lib.numbers
    return settings_lib.resolve(
        FinetuneSettings,
        config,
        weights=baselines.NETWORKS,
        positive=("batch_size", "total_steps", "extract_batch_size"),
        base_learning_rates=numbers(config, "base_learning_rates", "(0.1, 0.01)"),
        weight_decays=numbers(config, "weight_decays", "(0.0, 1e-4)", zero=True),
        epochs=() if config.total_steps else numbers(config, "epochs", "(30, 50)"),
    )


def make_context(
    settings: FinetuneSettings,
    setup: protocol.EvalSetup,
    labels: np.ndarray,
    bad: eval_loader.BadLimit,
    work: resume.Unfinished,
) -> FinetuneContext:
    """What all trials share; compiles nothing yet."""
    encoder = setup.encoder
    axis = pmap.reduction_axis()
    min_area = train_input.min_area(settings.crop.min_area, encoder)

    @functools.cache  # a sweep is one program; training again on more images may be another
    def make_update(bn_decay_rate: float) -> Callable[..., Any]:
        update = finetune.make_update(
            encoders.make_forward(encoder, axis=axis, bn_decay_rate=bn_decay_rate),
            train_input.make_view(encoder, min_area),
            axis=axis,
        )
        return pmap.pmap_update(update)

    classify = finetune.make_classify(encoders.make_forward(encoder, axis=None, bn_decay_rate=0.9))
    size = encoder.image_size
    return FinetuneContext(
        setup,
        labels,
        make_update,
        jax.jit(lambda network, images: classify(network, inference.resize(images, size))),
        min_area,
        bad,
        work,
    )


def steps_of(settings: FinetuneSettings, row: FinetuneParams, count: int) -> int:
    """Number of updates on so many images."""
    if row.epochs is None:
        return settings.total_steps
    batch_size = pmap.batch_size(settings.batch_size, count)
    return train_input.total_steps(row.epochs, count, batch_size)


def decay_of(settings: FinetuneSettings, count: int) -> float:
    """Of running batch-norm statistics while so many images are learned from."""
    if settings.bn_decay_rate is not None:
        return settings.bn_decay_rate
    return finetune.bn_decay_rate(count / pmap.batch_size(settings.batch_size, count))


def train(
    settings: FinetuneSettings,
    context: FinetuneContext,
    row: FinetuneParams,
    chosen: np.ndarray,
    seed: int,
    title: str,
) -> finetune.Network:
    """The network after one trial on the images at some positions of ``setup.train``."""
    setup, encoder = context.setup, context.setup.encoder
    batch_size = pmap.batch_size(settings.batch_size, len(chosen))
    head = finetune.init_head(encoder.embedding_size, setup.train.num_classes, seed=seed)
    rate = row.base_learning_rate * batch_size / 256
    steps = steps_of(settings, row, len(chosen))
    trial = finetune.Trial(rate, row.weight_decay / rate, steps, seed)
    state = finetune.init_state(finetune.Network(encoder.params, head, encoder.state), trial)
    batches = train_input.make_batches(
        setup.train.select(chosen),
        encoder,
        batch_size=batch_size,
        seed=seed,
        min_area=context.min_area,
        max_bad=context.bad.most,
    )
    name = f"{title} of seed {seed}"
    update = context.make_update(decay_of(settings, len(chosen)))
    return context.work.train(name, update, state, batches, total_steps=steps, title=title).network


def evaluate(
    settings: FinetuneSettings,
    context: FinetuneContext,
    network: finetune.Network,
    data: datasets.Dataset,
    title: str,
) -> dict[str, Any]:
    """Whether each image is right, how many are left out, and logits, found as features are."""
    on_devices = pmap.replicate_locally(network)
    classifier = context.setup.encoder._replace(
        encode=lambda images: np.asarray(context.classify(on_devices, pmap.spread(images))),
        embedding_size=context.setup.train.num_classes,
    )
    found = features_lib.extract(
        classifier, data, batch_size=settings.extract_batch_size, bad=context.bad, title=title
    )
    counted = protocol.labeled(found, title)
    left_out = protocol.count_left_out([data], [found])
    correct = accuracy.correct(counted.features, counted.labels)
    return {"correct": correct, "left_out": left_out, "found": counted}
