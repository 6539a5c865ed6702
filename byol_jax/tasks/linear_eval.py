"""The task of linear evaluation: a linear classifier on a frozen encoder (paper, appendix C.1).

Shapes: D local devices, b images of a device, N images of a split.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import classifiers, encoders
from byol_jax.distributed import pmap
from byol_jax.evaluation import (
    baselines,
    kept,
    linear_probe,
    outcome,
    protocol,
    results,
    resume,
    sweep,
    train_input,
)
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import settings as settings_lib
from byol_jax.metrics import accuracy
from byol_jax.visualize import mistakes
from byol_jax.workdir import console

UsageError = config_lib.UsageError
Features = features_lib.Features


class Measured(NamedTuple):
    """What is evaluated, and the features of its center crops.

    Attributes:
      setup: the encoder and its images.
      train: the usable training images that have labels.
      test: the evaluated images, which have labels.
      left_out: number of images of both that are bad, and that have no label.
    """

    setup: protocol.EvalSetup
    train: Features
    test: Features
    left_out: dict[str, int]


# Trains heads on some of the training images, given by their positions in `Measured.train`, with a
# seed; the last argument names the part of the evaluation.
Train = Callable[[linear_probe.State, np.ndarray, int, str], linear_probe.Heads]


@dataclasses.dataclass(frozen=True)
class LinearSettings(settings_lib.EvalSettings):
    """Settings of configs/linear_eval.py."""

    batch_size: int
    extract_batch_size: int
    total_epochs: float
    base_learning_rates: tuple[float, ...]
    features: str
    logit_clip: float
    logit_penalty: float
    crop: train_input.TrainCrop

    @property
    def regularization(self) -> linear_probe.Regularization:
        """Of the logits."""
        return linear_probe.Regularization(self.logit_clip, self.logit_penalty)


def run(config: Any, workdir: pathlib.Path, *, given: protocol.Given = protocol.NOTHING) -> None:
    """Evaluates the encoder of ``config.checkpoint``; writes ``result.json``, prints a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, more bad images than
        may be.
      resume.Stopped: there was a signal; rerun the same command to resume.
    """
    start = time.monotonic()
    settings = resolve(config)
    setup = protocol.open_setup(settings, given=given)
    encoder = setup.encoder
    train_input.min_area(settings.crop.min_area, encoder)  # or an error, before anything is written
    network = baselines.networks(encoder, settings.weights, setup.train)
    measure = baselines.by_seed(
        settings.weights, lambda seed: _measure(settings, setup._replace(encoder=network(seed)))
    )
    sha256 = encoder.identity["sha256"]
    with resume.opened(workdir, settings.stored, sha256, classifiers.FOLDER) as work:
        found = results.over_seeds(
            settings,
            work.by_seed(lambda seed: _score(settings, measure(seed), work, seed)),
            lambda seed: network(seed).identity,
            drawn="held-out images, first weights, order of the images, crops and flips",
        )
        found = {
            "protocol": f"linear evaluation, {settings.features} features",
            "choices": CHOICES | (_OF_PRETRAINING if settings.features == "pretraining" else {}),
        } | found
        names, fitted = protocol.class_names(setup), work.recall()
        result = results.write_result(
            workdir, settings, setup, found, start=start, classes=names, fitted=fitted
        )
    mistakes.write(workdir, setup.test, result)
    console.say(results.describe(result, _table))


def resolve(config: Any) -> LinearSettings:
    """The settings of a config.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    config_lib.lookup(FEATURES, config.features, key="features")
    if config.features != "cached" and config.weights == "pixels":
        raise UsageError("Raw pixels are evaluated as they are: add --config.features=cached.")
    return settings_lib.resolve(
        LinearSettings,
        config,
        positive=("batch_size", "extract_batch_size", "total_epochs"),
        base_learning_rates=settings_lib.numbers(config, "base_learning_rates", "(0.2, 0.1)"),
    )


def _measure(settings: LinearSettings, setup: protocol.EvalSetup) -> Measured:
    options = {"batch_size": settings.extract_batch_size}
    options["bad"] = settings.data.bad_limit(setup.train, setup.test)
    test = features_lib.extract(setup.encoder, setup.test, title="test", **options)
    train = features_lib.extract(setup.encoder, setup.train, title="train", **options)
    labeled = protocol.labeled(train, "training"), protocol.labeled(test, "evaluation")
    left_out = protocol.count_left_out((setup.train, setup.test), (train, test))
    return Measured(setup, *labeled, left_out)


def _score(
    settings: LinearSettings, measured: Measured, work: resume.Unfinished, seed: int
) -> dict[str, Any]:
    """The sweep on validation images; then, with the best rate, all images and one test."""
    train = FEATURES[settings.features](settings, measured, work)
    rates = settings.base_learning_rates
    found, labels = measured.train, measured.train.labels

    def hold_out() -> tuple[np.ndarray, np.ndarray]:
        fraction = settings.data.validation_share
        return protocol.split_train(measured.setup, found.indices, fraction, seed=seed)

    def attempt(validation: np.ndarray, rest: np.ndarray) -> list[tuple[dict[str, float], None]]:
        def score_all() -> list[dict[str, float]]:
            heads = train(_init(settings, measured, len(rest), rates, seed), rest, seed, "sweep")
            held = found.at(validation)
            logits = (linear_probe.logits(heads, held.features, which=n) for n in range(len(rates)))
            return [sweep.of_logits(values, held.labels) for values in logits]

        return [(row, None) for row in work.remember(f"sweep of seed {seed}", score_all)]

    rows = [{"base_learning_rate": rate} for rate in rates]
    chosen = sweep.select(rows, hold_out, attempt, split=settings.data.validation_split)
    state = _init(settings, measured, len(labels), [rates[chosen.best]], seed)
    steps = int(state.total_steps)  # before the state's buffers are given away
    heads = train(state, np.arange(len(labels)), seed, "final")
    if seed == settings.seed and settings.weights == "checkpoint":
        work.keep(kept.Fitted(np.asarray(heads.weights[0]), np.asarray(heads.biases[0])))
    test, left_out = measured.test, measured.left_out
    calibration = kept.calibration(chosen, chosen.table[chosen.best].get("temperature"))
    logits = linear_probe.logits(heads, test.features, which=0)
    correct = accuracy.correct(logits, test.labels)
    return {
        **results.summary(correct, seed=seed, resamples=settings.bootstrap_resamples),
        "train_accuracy": accuracy.means(_correct(heads, 0, found)),
        **chosen.results(),
        "calibration": calibration,
        "test": outcome.describe(measured.setup, test, logits / calibration["temperature"], labels),
        "num_images": chosen.num_images(len(labels), len(test.labels), left_out),
        "batch_size": pmap.batch_size(settings.batch_size, len(labels)),
        "steps": steps,
    }


def _correct(heads: linear_probe.Heads, which: int, found: Features) -> dict[str, np.ndarray]:
    """Which images one of the heads gets right."""
    logits = linear_probe.logits(heads, found.features, which=which)
    return accuracy.correct(logits, found.labels)


def _init(
    settings: LinearSettings, measured: Measured, count: int, base_rates: Sequence[float], seed: int
) -> linear_probe.State:
    """Untrained heads for so many images; rates follow the linear scaling rule."""
    batch_size = pmap.batch_size(settings.batch_size, count)
    return linear_probe.init(
        [rate * batch_size / 256 for rate in base_rates],
        total_steps=train_input.total_steps(settings.total_epochs, count, batch_size),
        embedding_size=measured.train.features.shape[1],
        num_classes=measured.setup.train.num_classes,
        seed=seed,
    )


def _cached(settings: LinearSettings, measured: Measured, _: resume.Unfinished) -> Train:
    """Trains on features of center crops, which stay what they are; takes seconds."""

    def train(
        state: linear_probe.State, positions: np.ndarray, seed: int, title: str
    ) -> linear_probe.Heads:
        used = measured.train.at(positions)
        batch_size = pmap.batch_size(settings.batch_size, len(positions))
        steps = int(state.total_steps)
        with console.progress_bar(total=steps, done=0, unit="step", title=title) as bar:
            return linear_probe.train(
                state,
                used.features,
                used.labels,
                batch_size=batch_size,
                seed=seed,
                regularization=settings.regularization,
                on_steps=bar.update,
            )

    return train


class Frozen(NamedTuple):
    """Heads in training, with a network that only looks on; without a device axis."""

    training: linear_probe.State
    params: Any
    bn_state: Any
    seed: jax.Array


def _augmented(settings: LinearSettings, measured: Measured, work: resume.Unfinished) -> Train:
    """Trains on features of views that are drawn anew for every step."""
    setup = measured.setup
    encoder = setup.encoder
    axis = pmap.reduction_axis()
    forward = encoders.make_forward(encoder, axis=None, bn_decay_rate=0.9)
    min_area = train_input.min_area(settings.crop.min_area, encoder)
    augment = train_input.augment_of(encoder) if settings.features == "pretraining" else None
    make_view = train_input.make_view(encoder, min_area, augment)

    def update(state: Frozen, batch: dict[str, jax.Array]) -> tuple[Frozen, dict, None]:
        key = pmap.step_key(state.seed, state.training.step)
        outputs, _ = forward.apply(
            state.params,
            state.bn_state,
            None,
            make_view(key, batch),
            is_training=False,
            part="encoder",
        )
        training = linear_probe.update(
            state.training,
            outputs.embedding,
            batch["labels"],
            axis=axis,
            regularization=settings.regularization,
        )
        return state._replace(training=training), {}, None

    update = pmap.pmap_update(update)

    def train(
        state: linear_probe.State, positions: np.ndarray, seed: int, title: str
    ) -> linear_probe.Heads:
        data = setup.train.select(measured.train.indices[positions])
        batches = train_input.make_batches(
            data,
            encoder,
            batch_size=pmap.batch_size(settings.batch_size, len(positions)),
            seed=seed,
            min_area=min_area,
            augment=augment,
            max_bad=settings.data.bad_limit(setup.train, setup.test).most,
        )
        frozen = Frozen(state, encoder.params, encoder.state, np.asarray(seed))
        name, steps = f"{title} of seed {seed}", int(state.total_steps)
        frozen = work.train(name, update, frozen, batches, total_steps=steps, title=title)
        return frozen.training.heads

    return train


# Where the paper is silent.
CHOICES = {
    "learning rate": "base x batch / 256, then a cosine to 0, as the authors' code",
    "steps": "epochs x images / batch, rounded down, as the authors' code",
    "held-out images": f"at most {protocol.VALIDATION_IMAGES:,} (paper: 10,009 of ImageNet)",
}

_OF_PRETRAINING = {"augmentations": "those of the first view"}

FEATURES: Mapping[str, Callable[[LinearSettings, Measured, resume.Unfinished], Train]] = {
    "augmented": _augmented,
    "pretraining": _augmented,
    "cached": _cached,
}


def _table(found: Mapping[str, Any]) -> list[str]:
    settings = [sweep.Column("base_learning_rate", "base rate", 10, "g")]
    return sweep.describe(found, settings, sweep.VALIDATION_COLUMNS)
