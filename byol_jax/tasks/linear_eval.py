"""The task of linear evaluation: a linear classifier on a frozen encoder (paper, appendix D.1).

Shapes: D local devices, b images of a device, N images of a split.
"""

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.distributed import pmap
from byol_jax.evaluation import baselines, linear_probe, protocol, results, resume, train_input
from byol_jax.evaluation import features as features_lib
from byol_jax.workdir import console

UsageError = config_lib.UsageError
Features = features_lib.Features


class Measured(NamedTuple):
    """A subject and what its encoder makes of center crops.

    Attributes:
      subject: the encoder and its images.
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


def run(config: Any, workdir: pathlib.Path, *, given: protocol.Given = protocol.NOTHING) -> None:
    """Evaluates the encoder of ``config.checkpoint``; writes ``result.json``, prints a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, more bad images than
        may be.
      resume.Stopped: there was a signal; rerun the same command to resume.
    """
    start = time.monotonic()
    _check(config)
    setup = protocol.open_subject(config, given=given)
    encoder = setup.encoder
    train_input.min_area(config, encoder)  # or an error, before anything is written
    network = baselines.networks(encoder, config.weights, setup.train)
    measure = baselines.by_seed(
        config.weights, lambda seed: _measure(config, setup._replace(encoder=network(seed)))
    )
    with resume.opened(workdir, config, encoder.identity["sha256"]) as work:
        found = results.over_seeds(
            config,
            work.by_seed(lambda seed: _score(config, measure(seed), work, seed)),
            lambda seed: network(seed).identity,
            drawn="held-out images, first weights, order of the images, crops and flips",
        )
        found = {
            "protocol": f"linear evaluation, {config.features} features",
            "choices": CHOICES,
        } | found
        result = results.write_result(workdir, config, setup, found, start=start)
    console.say(results.describe(result, _table))


def _check(config: Any) -> None:
    config_lib.require_positive(
        config, "batch_size", "extract_batch_size", "total_epochs", "seeds", "bootstrap_resamples"
    )
    results.numbers(config, "base_learning_rates", "(0.2, 0.1)")
    results.require_share(config, "data.validation_share")
    results.require_bad_share(config)
    config_lib.lookup(FEATURES, config.features, key="features")
    config_lib.lookup(baselines.WEIGHTS, config.weights, key="weights")
    if config.features == "augmented" and config.weights == "pixels":
        raise UsageError("Raw pixels are evaluated as they are: add --config.features=cached.")


def _measure(config: Any, setup: protocol.EvalSetup) -> Measured:
    options = {"batch_size": config.extract_batch_size}
    options["bad"] = results.bad_limit(config, setup.train, setup.test)
    test = features_lib.extract(setup.encoder, setup.test, title="test", **options)
    train = features_lib.extract(setup.encoder, setup.train, title="train", **options)
    labeled = protocol.labeled(train, "training"), protocol.labeled(test, "evaluation")
    left_out = protocol.count_left_out((setup.train, setup.test), (train, test))
    return Measured(setup, *labeled, left_out)


def _score(config: Any, measured: Measured, work: resume.Unfinished, seed: int) -> dict[str, Any]:
    """The sweep on validation images; then, with the best rate, all images and one test."""
    train = FEATURES[config.features](config, measured, work)
    rates = results.numbers(config, "base_learning_rates", "(0.2, 0.1)")
    found, labels = measured.train, measured.train.labels
    table, best, validation = [{"base_learning_rate": rate} for rate in rates], 0, ()
    if len(rates) > 1:
        fraction = config.data.validation_share
        validation, rest = protocol.split_train(measured.setup, found.indices, fraction, seed=seed)

        def sweep() -> list[dict[str, float]]:
            heads = train(_init(config, measured, len(rest), rates, seed), rest, seed, "sweep")
            return [
                row | _on_validation(heads, n, found, validation) for n, row in enumerate(table)
            ]

        table = work.remember(f"sweep of seed {seed}", sweep)
        best = results.best(table)
    everything = np.arange(len(labels))
    state = _init(config, measured, len(labels), [rates[best]], seed)
    steps = int(state.total_steps)  # before the state's buffers are given away
    heads = train(state, everything, seed, "final")
    correct = results.correct(
        linear_probe.logits(heads, measured.test.features, which=0), measured.test.labels
    )
    train_correct = results.correct(linear_probe.logits(heads, found.features, which=0), labels)
    return {
        **results.summary(correct, seed=seed, resamples=config.bootstrap_resamples),
        "train_accuracy": {name: float(hit.mean()) for name, hit in train_correct.items()},
        "selected": results.selection(table, best, len(validation), config.data.validation_split),
        "table": table,
        "num_images": {
            "train": len(labels),
            "validation": len(validation),
            "evaluated": len(measured.test.labels),
            **measured.left_out,
        },
        "batch_size": pmap.batch_size(config.batch_size, len(labels)),
        "steps": steps,
    }


def _on_validation(
    heads: linear_probe.Heads, which: int, found: Features, validation: np.ndarray
) -> dict[str, float]:
    """Accuracies of one of the heads on the images at these positions."""
    logits = linear_probe.logits(heads, found.features[validation], which=which)
    return results.on_validation(results.correct(logits, found.labels[validation]))


def _init(
    config: Any, measured: Measured, count: int, base_rates: list[float], seed: int
) -> linear_probe.State:
    """Untrained heads for so many images; rates follow the linear scaling rule."""
    batch_size = pmap.batch_size(config.batch_size, count)
    return linear_probe.init(
        [rate * batch_size / 256 for rate in base_rates],
        total_steps=train_input.total_steps(config.total_epochs, count, batch_size),
        embedding_size=measured.train.features.shape[1],
        num_classes=measured.setup.train.num_classes,
        seed=seed,
    )


def _cached(config: Any, measured: Measured, _: resume.Unfinished) -> Train:
    """Trains on features of center crops, which stay what they are; takes seconds."""

    def train(
        state: linear_probe.State, positions: np.ndarray, seed: int, title: str
    ) -> linear_probe.Heads:
        features, labels = measured.train.features[positions], measured.train.labels[positions]
        batch_size = pmap.batch_size(config.batch_size, len(labels))
        steps = int(state.total_steps)
        with console.progress_bar(total=steps, done=0, unit="step", title=title) as bar:
            return linear_probe.train(
                state, features, labels, batch_size=batch_size, seed=seed, on_steps=bar.update
            )

    return train


class Frozen(NamedTuple):
    """Heads in training, with a network that only looks on; without a device axis."""

    training: linear_probe.State
    params: Any
    bn_state: Any
    seed: jax.Array


def _augmented(config: Any, measured: Measured, work: resume.Unfinished) -> Train:
    """Trains on features of crops and flips that are drawn anew for every step."""
    setup = measured.setup
    encoder = setup.encoder
    axis = pmap.reduction_axis()
    forward = encoders.make_forward(encoder, axis=None, bn_decay_rate=0.9)
    min_area = train_input.min_area(config, encoder)
    make_view = train_input.make_view(encoder, min_area)

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
            state.training, outputs.embedding, batch["labels"], axis=axis
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
            batch_size=pmap.batch_size(config.batch_size, len(positions)),
            seed=seed,
            min_area=min_area,
            max_bad=results.bad_limit(config, setup.train, setup.test).most,
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

FEATURES: Mapping[str, Callable[[Any, Measured, resume.Unfinished], Train]] = {
    "augmented": _augmented,
    "cached": _cached,
}


def _table(found: Mapping[str, Any]) -> list[str]:
    chosen = found["selected"]
    if chosen["among"] == 1:
        return []
    lines = [f"{'base rate':>10}{'validation top-1':>19}{'top-5':>9}"]
    for row in found["table"]:
        fractions = f"{row['validation_top1']:>19.2%}{row['validation_top5']:>9.2%}"
        is_chosen = row["base_learning_rate"] == chosen["base_learning_rate"]
        mark = "  <- chosen" if is_chosen else ""
        lines.append(f"{row['base_learning_rate']:>10g}{fractions}{mark}")
    return [*lines, f"chosen on {chosen['on']}"]
