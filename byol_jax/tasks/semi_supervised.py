"""The task of training a whole encoder with few labels, or all (paper, appendices C.1, D.3).

Shapes: N images of a split, C classes.
"""

import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from byol_jax.checkpoints import classifiers
from byol_jax.data import datasets, eval_loader, label_subsets
from byol_jax.distributed import pmap
from byol_jax.evaluation import (
    baselines,
    finetune,
    finetune_trials,
    kept,
    outcome,
    protocol,
    results,
    resume,
    sweep,
    train_input,
)
from byol_jax.visualize import mistakes
from byol_jax.workdir import console

Attempts = Iterator[tuple[dict[str, float], finetune.Network | None]]


def run(config: Any, workdir: pathlib.Path) -> None:
    """Trains and tests as the config says; writes ``result.json``, prints a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, a class without an
        image to learn from, more bad images than may be.
      resume.Stopped: there was a signal; rerun the same command to resume.
    """
    start = time.monotonic()
    settings = finetune_trials.resolve(config)
    setup = protocol.open_setup(settings)
    encoder = setup.encoder
    network = baselines.networks(encoder, settings.weights, setup.train)
    bad = settings.data.bad_limit(setup.train, setup.test)
    labels = label_subsets.read_labels(setup.train)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    subsets = {seed: _choose(settings, setup, labels, seed) for seed in seeds}
    train_input.min_area(settings.crop.min_area, encoder)  # or an error, before anything is written
    _note_bad(setup, bad)
    sha256 = encoder.identity["sha256"]
    with resume.opened(workdir, settings.stored, sha256, classifiers.FOLDER) as work:
        context = finetune_trials.make_context(settings, setup, labels, bad, work)

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
        names, fitted = protocol.class_names(setup), work.recall()
        result = results.write_result(
            workdir, settings, setup, found, start=start, classes=names, fitted=fitted
        )
    mistakes.write(workdir, setup.test, result)
    console.say(results.describe(result, _table))


def _note_bad(setup: protocol.EvalSetup, bad: eval_loader.BadLimit) -> None:
    """Reads the evaluated images once: too many bad ones should not end hours of training."""
    size = setup.encoder.image_size
    for _ in eval_loader.eval_batches(setup.test, batch_size=64, image_size=size, bad=bad):
        pass


def _choose(
    settings: finetune_trials.FinetuneSettings,
    setup: protocol.EvalSetup,
    labels: np.ndarray,
    seed: int,
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


def _score(
    settings: finetune_trials.FinetuneSettings,
    context: finetune_trials.FinetuneContext,
    rows: list[finetune_trials.FinetuneParams],
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
        network = finetune_trials.train(settings, context, row, chosen, seed, "final")
    if seed == settings.seed:
        context.work.keep(_fitted(network))
    tested = finetune_trials.evaluate(settings, context, network, setup.test, "test")
    correct, left_out, found = tested["correct"], tested["left_out"], tested["found"]
    calibration = kept.calibration(choice, choice.table[choice.best].get("temperature"))
    logits = found.features / calibration["temperature"]
    return {
        **results.summary(correct, seed=seed, resamples=settings.bootstrap_resamples),
        **choice.results(),
        "calibration": calibration,
        "test": outcome.describe(setup, found, logits, labels[chosen]),
        "num_images": choice.num_images(
            len(chosen), len(correct["top1"]), left_out, name="learned from"
        ),
        "images_per_class": np.bincount(labels[chosen]).tolist(),
        "batch_size": pmap.batch_size(settings.batch_size, len(chosen)),
        "steps": finetune_trials.steps_of(settings, row, len(chosen)),
        "bn_decay_rate": finetune_trials.decay_of(settings, len(chosen)),
    }


def _attempt(
    settings: finetune_trials.FinetuneSettings,
    context: finetune_trials.FinetuneContext,
    row: finetune_trials.FinetuneParams,
    positions: np.ndarray,
    held: datasets.Dataset,
    seed: int,
    title: str,
) -> tuple[dict[str, float], finetune.Network | None]:
    """Scores of a setting on held-out images, and the network unless a previous attempt made it."""
    network = None

    def score() -> dict[str, float]:
        nonlocal network
        network = finetune_trials.train(settings, context, row, positions, seed, title)
        found = finetune_trials.evaluate(settings, context, network, held, "validation")["found"]
        return sweep.of_logits(found.features, found.labels)

    return context.work.remember(f"{title} of seed {seed}", score), network


def _fitted(network: finetune.Network) -> kept.Fitted:
    """What is kept of a network: its classifier, and the encoder that was trained with it."""
    head = network.head[finetune.HEAD]
    return kept.Fitted(head["w"], head["b"], network.encoder, network.state)


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
