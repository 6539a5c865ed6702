"""The task of training a whole encoder with labels: few of them, or all (paper, appendix D.2, E).

Shapes: N images of a split, C classes.
"""

import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, eval_loader, label_subsets
from byol_jax.distributed import pmap
from byol_jax.evaluation import baselines, finetune, protocol, results, resume, sweep, train_input
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import settings as settings_lib
from byol_jax.metrics import accuracy
from byol_jax.models import inference
from byol_jax.workdir import console

UsageError = config_lib.UsageError
Attempts = Iterator[tuple[dict[str, float], finetune.Network | None]]


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


def run(config: Any, workdir: pathlib.Path) -> None:
    """Trains and tests as the config says; writes ``result.json``, prints a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, a class without an
        image to learn from, more bad images than may be.
      resume.Stopped: there was a signal; rerun the same command to resume.
    """
    start = time.monotonic()
    settings = resolve(config)
    setup = protocol.open_subject(settings)
    encoder = setup.encoder
    network = baselines.networks(encoder, settings.weights, setup.train)
    bad = settings.data.bad_limit(setup.train, setup.test)
    labels = label_subsets.read_labels(setup.train)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    subsets = {seed: _choose(settings, setup, labels, seed) for seed in seeds}
    train_input.min_area(settings.crop.min_area, encoder)  # or an error, before anything is written
    _note_bad(setup, bad)
    with resume.opened(workdir, settings.stored, encoder.identity["sha256"]) as work:
        context = _make_bench(settings, setup, labels, bad, work)

        def score(seed: int) -> dict[str, Any]:
            mine = context._replace(setup=setup._replace(encoder=network(seed)))
            return _score(settings, mine, settings.rows(), *subsets[seed], seed)

        found = results.over_seeds(
            settings,
            work.by_seed(score),
            lambda seed: network(seed).identity,
            drawn="held-out images, labels, first weights of the head, order, crops and flips",
        )
        fraction = settings.labels.list or f"{settings.labels.share:.3g} of the labels"
        found |= {"protocol": f"the whole network trained on {fraction}", "choices": CHOICES}
        result = results.write_result(workdir, settings, setup, found, start=start)
    console.say(results.describe(result, _table))


def _note_bad(setup: protocol.EvalSetup, bad: eval_loader.BadLimit) -> None:
    """Reads the evaluated images once: too many bad ones should not end hours of training."""
    size = setup.encoder.image_size
    for _ in eval_loader.eval_batches(setup.test, batch_size=64, image_size=size, bad=bad):
        pass


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


def _choose(
    settings: FinetuneSettings, setup: protocol.EvalSetup, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images to choose on, and of those to learn from, all of them with labels."""
    everything = label_subsets.positions(labels)
    fraction = settings.data.validation_share
    split = protocol.split_train(setup, everything, fraction, seed=seed)
    validation, rest = (everything[part] for part in split)
    num_classes = setup.train.num_classes
    if settings.labels.list:
        chosen = label_subsets.listed(settings.labels.list, setup.train, labels)
        validation = np.setdiff1d(validation, chosen)
    elif settings.labels.share < 1:
        fraction = settings.labels.share
        chosen = label_subsets.balanced(labels, rest, fraction, num_classes=num_classes, seed=seed)
    else:
        chosen = rest
    label_subsets.require_all_classes(labels[chosen], num_classes)
    return validation, chosen


def _make_bench(
    settings: FinetuneSettings,
    setup: protocol.EvalSetup,
    labels: np.ndarray,
    bad: eval_loader.BadLimit,
    work: resume.Unfinished,
) -> FinetuneContext:
    """Compiles nothing yet."""
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


def _score(
    settings: FinetuneSettings,
    context: FinetuneContext,
    rows: list[FinetuneParams],
    validation: np.ndarray,
    chosen: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """The sweep on validation images; then one test of the best, trained again if asked for."""
    setup, labels = context.setup, context.labels

    def attempt(validation: np.ndarray, positions: np.ndarray) -> Attempts:
        held = setup.train.select(validation)
        for number, row in enumerate(rows):
            title = f"trial {number + 1}/{len(rows)}"
            yield _attempt(settings, context, row, positions, held, seed, title)

    tried = [row._asdict() for row in rows]
    split = settings.data.validation_split
    choice = sweep.select(tried, lambda: (validation, chosen), attempt, split=split)
    network, row = choice.fitted, rows[choice.best]
    if settings.refit:
        chosen = np.union1d(chosen, validation)
    if settings.refit or network is None:
        network = _train(settings, context, row, chosen, seed, "final")
    tested = _evaluate(settings, context, network, setup.test, "test")
    correct, left_out = tested["correct"], tested["left_out"]
    return {
        **results.summary(correct, seed=seed, resamples=settings.bootstrap_resamples),
        **choice.results(),
        "num_images": choice.num_images(
            len(chosen), len(correct["top1"]), left_out, name="learned from"
        ),
        "images_per_class": np.bincount(labels[chosen]).tolist(),
        "batch_size": pmap.batch_size(settings.batch_size, len(chosen)),
        "steps": _steps(settings, row, len(chosen)),
        "bn_decay_rate": _bn_decay_rate(settings, len(chosen)),
    }


def _attempt(
    settings: FinetuneSettings,
    context: FinetuneContext,
    row: FinetuneParams,
    positions: np.ndarray,
    held: datasets.Dataset,
    seed: int,
    title: str,
) -> tuple[dict[str, float], finetune.Network | None]:
    """Scores of a setting on held-out images, and the network unless a previous attempt made it."""
    network = None

    def score() -> dict[str, float]:
        nonlocal network
        network = _train(settings, context, row, positions, seed, title)
        correct = _evaluate(settings, context, network, held, "validation")["correct"]
        return sweep.on_validation(correct)

    return context.work.remember(f"{title} of seed {seed}", score), network


def _steps(settings: FinetuneSettings, row: FinetuneParams, count: int) -> int:
    if row.epochs is None:
        return settings.total_steps
    batch_size = pmap.batch_size(settings.batch_size, count)
    return train_input.total_steps(row.epochs, count, batch_size)


def _bn_decay_rate(settings: FinetuneSettings, count: int) -> float:
    """Of running batch-norm statistics while so many images are learned from."""
    if settings.bn_decay_rate is not None:
        return settings.bn_decay_rate
    return finetune.bn_decay_rate(count / pmap.batch_size(settings.batch_size, count))


def _train(
    settings: FinetuneSettings,
    context: FinetuneContext,
    row: FinetuneParams,
    chosen: np.ndarray,
    seed: int,
    title: str,
) -> finetune.Network:
    setup, encoder = context.setup, context.setup.encoder
    batch_size = pmap.batch_size(settings.batch_size, len(chosen))
    head = finetune.init_head(encoder.embedding_size, setup.train.num_classes, seed=seed)
    rate = row.base_learning_rate * batch_size / 256
    steps = _steps(settings, row, len(chosen))
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
    update = context.make_update(_bn_decay_rate(settings, len(chosen)))
    return context.work.train(name, update, state, batches, total_steps=steps, title=title).network


def _evaluate(
    settings: FinetuneSettings,
    context: FinetuneContext,
    network: finetune.Network,
    data: datasets.Dataset,
    title: str,
) -> dict[str, dict[str, Any]]:
    """Whether each image is right, and how many are left out; logits are extracted as features."""
    on_devices = pmap.replicate(network)
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
    return {"correct": correct, "left_out": left_out}


# Where the paper is silent.
CHOICES = {
    "learning rate": "base x batch / 256, then a cosine to 0",
    "steps": "epochs x images / batch, rounded down",
    "weight decay": "divided by the rate of the first step; not on biases and batch norm",
    "batch-norm decay": "images of the set that is learned from / batch are its steps an epoch",
    "held-out images": f"at most {protocol.VALIDATION_IMAGES:,} (paper: 10,009 of ImageNet)",
}


def _table(found: Mapping[str, Any]) -> list[str]:
    settings = [
        sweep.Column("base_learning_rate", "base rate", 10, "g"),
        sweep.Column("weight_decay", "decay", 9, "g"),
        sweep.Column("epochs", "epochs", 8, "g"),
    ]
    return sweep.describe(found, settings, sweep.VALIDATION_COLUMNS)
