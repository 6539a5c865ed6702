"""The task of training a whole encoder with labels: few of them, or all (paper, appendix D.2, E).

Shapes: N images of a split, C classes.
"""

import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, eval_loader, label_subsets
from byol_jax.distributed import pmap
from byol_jax.evaluation import baselines, finetune, protocol, results, resume, train_input
from byol_jax.evaluation import features as features_lib
from byol_jax.models import inference
from byol_jax.workdir import console

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
      subject: the encoder and its images.
      labels: [N] of ``subject.train``; -1 without.
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


def run(config: Any, workdir: pathlib.Path) -> None:
    """Trains and tests as the config says; writes ``result.json``, prints a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, a class without an
        image to learn from, more bad images than may be.
      resume.Stopped: there was a signal; rerun the same command to resume.
    """
    start = time.monotonic()
    settings = make_settings(config)
    setup = protocol.open_subject(config)
    encoder = setup.encoder
    network = baselines.networks(encoder, config.weights, setup.train)
    bad = results.bad_limit(config, setup.train, setup.test)
    labels = label_subsets.read_labels(setup.train)
    seeds = range(config.seed, config.seed + config.seeds)
    subsets = {seed: _choose(config, setup, labels, seed) for seed in seeds}
    train_input.min_area(config, encoder)  # or an error, before anything is written
    _note_bad(setup, bad)
    with resume.opened(workdir, config, encoder.identity["sha256"]) as work:
        context = _make_bench(config, setup, labels, bad, work)

        def score(seed: int) -> dict[str, Any]:
            mine = context._replace(setup=setup._replace(encoder=network(seed)))
            return _score(config, mine, settings, *subsets[seed], seed)

        found = results.over_seeds(
            config,
            work.by_seed(score),
            lambda seed: network(seed).identity,
            drawn="held-out images, labels, first weights of the head, order, crops and flips",
        )
        fraction = config.labels.list or f"{config.labels.share:.3g} of the labels"
        found |= {"protocol": f"the whole network trained on {fraction}", "choices": CHOICES}
        result = results.write_result(workdir, config, setup, found, start=start)
    console.say(results.describe(result, _table))


def _note_bad(setup: protocol.EvalSetup, bad: eval_loader.BadLimit) -> None:
    """Reads the evaluated images once: too many bad ones should not end hours of training."""
    size = setup.encoder.image_size
    for _ in eval_loader.eval_batches(setup.test, batch_size=64, image_size=size, bad=bad):
        pass


def make_settings(config: Any) -> list[FinetuneParams]:
    """All combinations of learning rate, weight decay and length.

    Raises:
      UsageError: an empty list, a number out of range.
    """
    config_lib.require_positive(
        config, "batch_size", "total_steps", "extract_batch_size", "seeds", "bootstrap_resamples"
    )
    if not 0 < config.labels.share <= 1:
        fraction = config.labels.share
        raise UsageError(f"--config.labels.share must be above 0, at most 1, not {fraction}.")
    results.require_share(config, "data.validation_share")
    results.require_bad_share(config)
    config_lib.lookup(baselines.NETWORKS, config.weights, key="weights")
    rates = results.numbers(config, "base_learning_rates", "(0.1, 0.01)")
    decays = results.numbers(config, "weight_decays", "(0.0, 1e-4)", zero=True)
    lengths = [None] if config.total_steps else results.numbers(config, "epochs", "(30, 50)")
    return [FinetuneParams(*values) for values in itertools.product(rates, decays, lengths)]


def _choose(
    config: Any, setup: protocol.EvalSetup, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images to choose on, and of those to learn from, all of them with labels."""
    everything = label_subsets.positions(labels)
    fraction = config.data.validation_share
    split = protocol.split_train(setup, everything, fraction, seed=seed)
    validation, rest = (everything[part] for part in split)
    num_classes = setup.train.num_classes
    if config.labels.list:
        chosen = label_subsets.listed(config.labels.list, setup.train, labels)
        validation = np.setdiff1d(validation, chosen)
    elif config.labels.share < 1:
        fraction = config.labels.share
        chosen = label_subsets.balanced(labels, rest, fraction, num_classes=num_classes, seed=seed)
    else:
        chosen = rest
    label_subsets.require_all_classes(labels[chosen], num_classes)
    return validation, chosen


def _make_bench(
    config: Any,
    setup: protocol.EvalSetup,
    labels: np.ndarray,
    bad: eval_loader.BadLimit,
    work: resume.Unfinished,
) -> FinetuneContext:
    """Compiles nothing yet."""
    encoder = setup.encoder
    axis = pmap.reduction_axis()
    min_area = train_input.min_area(config, encoder)

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
    config: Any,
    context: FinetuneContext,
    settings: list[FinetuneParams],
    validation: np.ndarray,
    chosen: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """The sweep on validation images; then one test of the best, trained again if asked for."""
    setup, labels = context.setup, context.labels
    table, best, network = [setting._asdict() for setting in settings], 0, None
    if len(settings) > 1:
        held = setup.train.select(validation)
        for number, (setting, row) in enumerate(zip(settings, table, strict=True)):
            title, trained = f"trial {number + 1}/{len(settings)}", None

            def try_it(setting: FinetuneParams = setting, title: str = title) -> dict[str, float]:
                nonlocal trained
                trained = _train(config, context, setting, chosen, seed, title)
                correct = _evaluate(config, context, trained, held, "validation")["correct"]
                return results.on_validation(correct)

            row |= context.work.remember(f"{title} of seed {seed}", try_it)
            if results.best(table[: number + 1]) == number:
                best, network = number, trained
    if config.refit:
        chosen = np.union1d(chosen, validation)
    if config.refit or network is None:
        network = _train(config, context, settings[best], chosen, seed, "final")
    tested = _evaluate(config, context, network, setup.test, "test")
    correct = tested["correct"]
    num_validation = len(validation) if len(settings) > 1 else 0
    return {
        **results.summary(correct, seed=seed, resamples=config.bootstrap_resamples),
        "selected": results.selection(table, best, num_validation, config.data.validation_split),
        "table": table,
        "num_images": {
            "learned from": len(chosen),
            "validation": num_validation,
            "evaluated": len(correct["top1"]),
            **tested["left_out"],
        },
        "images_per_class": np.bincount(labels[chosen]).tolist(),
        "batch_size": pmap.batch_size(config.batch_size, len(chosen)),
        "steps": _steps(config, settings[best], len(chosen)),
        "bn_decay_rate": _bn_decay_rate(config, len(chosen)),
    }


def _steps(config: Any, setting: FinetuneParams, count: int) -> int:
    if setting.epochs is None:
        return config.total_steps
    batch_size = pmap.batch_size(config.batch_size, count)
    return train_input.total_steps(setting.epochs, count, batch_size)


def _bn_decay_rate(config: Any, count: int) -> float:
    """Of running batch-norm statistics while so many images are learned from."""
    if config.bn_decay_rate is not None:
        return config.bn_decay_rate
    return finetune.bn_decay_rate(count / pmap.batch_size(config.batch_size, count))


def _train(
    config: Any,
    context: FinetuneContext,
    setting: FinetuneParams,
    chosen: np.ndarray,
    seed: int,
    title: str,
) -> finetune.Network:
    setup, encoder = context.setup, context.setup.encoder
    batch_size = pmap.batch_size(config.batch_size, len(chosen))
    head = finetune.init_head(encoder.embedding_size, setup.train.num_classes, seed=seed)
    rate = setting.base_learning_rate * batch_size / 256
    steps = _steps(config, setting, len(chosen))
    trial = finetune.Trial(rate, setting.weight_decay / rate, steps, seed)
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
    update = context.make_update(_bn_decay_rate(config, len(chosen)))
    return context.work.train(name, update, state, batches, total_steps=steps, title=title).network


def _evaluate(
    config: Any,
    context: FinetuneContext,
    network: finetune.Network,
    data: datasets.Dataset,
    title: str,
) -> dict[str, dict[str, Any]]:
    """Whether each image is right, and how many are left out; logits are extracted as features."""
    on_devices = pmap.replicate_locally(network)
    classifier = context.setup.encoder._replace(
        encode=lambda images: np.asarray(context.classify(on_devices, pmap.spread(images))),
        embedding_size=context.setup.train.num_classes,
    )
    found = features_lib.extract(
        classifier, data, batch_size=config.extract_batch_size, bad=context.bad, title=title
    )
    counted = protocol.labeled(found, title)
    left_out = protocol.count_left_out([data], [found])
    return {"correct": results.correct(counted.features, counted.labels), "left_out": left_out}


# Where the paper is silent.
CHOICES = {
    "learning rate": "base x batch / 256, then a cosine to 0",
    "steps": "epochs x images / batch, rounded down",
    "weight decay": "divided by the rate of the first step; not on biases and batch norm",
    "batch-norm decay": "images of the set that is learned from / batch are its steps an epoch",
    "held-out images": f"at most {protocol.VALIDATION_IMAGES:,} (paper: 10,009 of ImageNet)",
}


def _table(found: Mapping[str, Any]) -> list[str]:
    chosen = found["selected"]
    if chosen["among"] == 1:
        return []
    lines = [f"{'base rate':>10}{'decay':>9}{'epochs':>8}{'validation top-1':>19}{'top-5':>9}"]
    for row in found["table"]:
        values = [row[field] for field in FinetuneParams._fields]
        rate, decay, epochs = values
        length = "-" if epochs is None else f"{epochs:g}"
        fractions = f"{row['validation_top1']:>19.2%}{row['validation_top5']:>9.2%}"
        is_chosen = values == [chosen[field] for field in FinetuneParams._fields]
        mark = "  <- chosen" if is_chosen else ""
        lines.append(f"{rate:>10g}{decay:>9g}{length:>8}{fractions}{mark}")
    return [*lines, f"chosen on {chosen['on']}"]
