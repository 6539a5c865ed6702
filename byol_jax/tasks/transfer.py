"""The task of transfer: logistic regression on a frozen encoder's features (paper, appendix D.3).

Shapes: N images of a split, C classes. Targets are labels [N], or tags [N, C] as in
`datasets.multi_labels`, where an image may have several.
"""

import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets, transfer_datasets
from byol_jax.evaluation import baselines, logistic_regression, protocol, result_folder, results
from byol_jax.evaluation import features as features_lib
from byol_jax.metrics import accuracy
from byol_jax.workdir import console

UsageError = config_lib.UsageError
Features = features_lib.Features


class Metric(NamedTuple):
    """What is measured.

    Attributes:
      is_of_tags: whether images may have several labels.
      value: of scores [N, C] and targets.
      interval: of the same, by a bootstrap; also takes its seed and resamples.
    """

    is_of_tags: bool
    value: Callable[[np.ndarray, np.ndarray], float]
    interval: Callable[..., tuple[float, float]]


class Measured(NamedTuple):
    """What the encoder makes of a set, and what is right.

    Attributes:
      subject: the encoder and its images.
      metric: a key of `METRICS`.
      train: features of the usable training images.
      train_targets: theirs.
      test: features of the evaluated images.
      test_targets: theirs.
      left_out: number of images of both that are bad, and that have no label.
    """

    setup: protocol.EvalSetup
    metric: str
    train: Features
    train_targets: np.ndarray
    test: Features
    test_targets: np.ndarray
    left_out: dict[str, int]


def run(config: Any, workdir: pathlib.Path) -> None:
    """Evaluates the encoder of ``config.checkpoint``; writes ``result.json``, prints a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, more bad images than
        may be.
    """
    start = time.monotonic()
    _check(config)
    setup = protocol.open_subject(config, or_multi_labels=True)
    metric = _choose_metric(config, setup)
    encoder = setup.encoder
    network = baselines.networks(encoder, config.weights, setup.train)
    measure = baselines.by_seed(
        config.weights,
        lambda seed: _measure(config, setup._replace(encoder=network(seed)), metric),
    )
    with result_folder.opened(workdir):
        found = results.over_seeds(
            config,
            lambda seed: score(config, measure(seed), seed),
            lambda seed: network(seed).identity,
            drawn="held-out images, which choose lambda",
        )
        found |= {"protocol": "transfer, logistic regression", "metric": metric, "choices": CHOICES}
        result = results.write_result(workdir, config, setup, found, start=start)
    console.say(results.describe(result, _table))


def _check(config: Any) -> None:
    config_lib.require_positive(
        config, "extract_batch_size", "seeds", "bootstrap_resamples", "max_iterations", "tolerance"
    )
    config_lib.require_positive(config, "lambdas.min", "lambdas.max", "lambdas.count")
    if config.lambdas.min > config.lambdas.max:
        raise UsageError(
            f"--config.lambdas.min={config.lambdas.min:g} is above "
            f"--config.lambdas.max={config.lambdas.max:g}."
        )
    results.require_share(config, "data.validation_share")
    results.require_bad_share(config)
    config_lib.lookup(baselines.WEIGHTS, config.weights, key="weights")
    if config.metric:
        config_lib.lookup(METRICS, config.metric, key="metric")


def _choose_metric(config: Any, setup: protocol.EvalSetup) -> str:
    """That of the config, or else the paper's for this set."""
    has_multi_labels = setup.train.num_labels > 0
    paper = "map11" if has_multi_labels else transfer_datasets.metric(setup.source.name)
    metric = config.metric or paper
    if has_multi_labels and not METRICS[metric].is_of_tags:
        raise UsageError(
            f"--config.metric={metric} needs one label an image, but {setup.source.name} has "
            "several: give map11."
        )
    return metric


def _measure(config: Any, setup: protocol.EvalSetup, metric: str) -> Measured:
    options = {"batch_size": config.extract_batch_size, "fraction": 1.0}
    options["bad"] = results.bad_limit(config, setup.train, setup.test)
    test = features_lib.extract(setup.encoder, setup.test, title="test", **options)
    train = features_lib.extract(setup.encoder, setup.train, title="train", **options)
    left_out = protocol.count_left_out((setup.train, setup.test), (train, test))
    if setup.train.num_labels:  # in place of labels
        left_out.pop("unlabeled")
    else:
        train, test = protocol.labeled(train, "training"), protocol.labeled(test, "evaluation")
    return Measured(
        setup,
        metric,
        train,
        _targets(train, setup.train, metric, "training"),
        test,
        _targets(test, setup.test, metric, "evaluation"),
        left_out,
    )


def _targets(found: Features, data: datasets.Dataset, metric: str, split: str) -> np.ndarray:
    if data.num_labels:
        multi_labels = datasets.multi_labels(data, found.indices)
        if not (multi_labels == 1).any():
            raise UsageError(f"No image of the {split} split has any of the classes.")
        return multi_labels
    if METRICS[metric].is_of_tags:
        return (found.labels[:, None] == np.arange(data.num_classes)).astype(np.int8)
    return found.labels


def score(config: Any, measured: Measured, seed: int) -> dict[str, Any]:
    """The sweep on validation images; then, with the best lambda, all images and one test."""
    lambdas = _lambdas(config)
    features, targets = measured.train.features, measured.train_targets
    table, best, validation = [{"lambda": strength} for strength in lambdas], 0, ()
    chosen, name = None, f"validation_{measured.metric}"
    if len(lambdas) > 1:
        fraction, indices = config.data.validation_share, measured.train.indices
        validation, rest = protocol.split_train(measured.setup, indices, fraction, seed=seed)
        fits = _fits(config, measured, rest, lambdas)
        for row, fit in zip(table, _with_bar(fits, len(lambdas), "sweep"), strict=True):
            scores = fit.scores(features[validation])
            value = METRICS[measured.metric].value(scores, targets[validation])
            row |= {name: value} | _ending(fit)
            if chosen is None or value > table[best][name]:
                best, chosen = table.index(row), fit
    everything = np.arange(len(targets))
    fits = _fits(config, measured, everything, lambdas[best : best + 1], chosen)
    [final] = _with_bar(fits, 1, "fit on all training images")
    scores = final.scores(measured.test.features)
    options = {"seed": seed, "resamples": config.bootstrap_resamples}
    return {
        "accuracy": _values(measured, scores, measured.test_targets),
        "interval_95": {
            name: list(METRICS[name].interval(scores, measured.test_targets, **options))
            for name in _names(measured)
        },
        "train_accuracy": _values(measured, final.scores(features), targets),
        "selected": results.selection(table, best, len(validation), config.data.validation_split),
        "final": _ending(final),
        "not_converged": sum(row.get("not_converged", 0) for row in table) + final.not_converged,
        "table": table,
        "num_images": {
            "train": len(targets),
            "validation": len(validation),
            "evaluated": len(measured.test_targets),
            **measured.left_out,
        },
    }


def _lambdas(config: Any) -> list[float]:
    """From strong to weak."""
    section = config.lambdas
    return np.geomspace(section.max, section.min, section.count).tolist()


def _fits(
    config: Any,
    measured: Measured,
    positions: np.ndarray,
    lambdas: list[float],
    start: logistic_regression.Fit | None = None,
) -> Iterator[logistic_regression.Fit]:
    """Classifiers of some of the training images, one for each lambda."""
    features, targets = measured.train.features[positions], measured.train_targets[positions]
    solver = logistic_regression.Solver(config.max_iterations, config.tolerance)
    if METRICS[measured.metric].is_of_tags:
        return logistic_regression.fit_tags(features, targets, lambdas, solver, start=start)
    num_classes = measured.setup.train.num_classes
    return logistic_regression.fit_labels(
        features, targets, lambdas, solver, num_classes=num_classes, start=start
    )


def _with_bar(
    fits: Iterator[logistic_regression.Fit], total: int, title: str
) -> Iterator[logistic_regression.Fit]:
    with console.progress_bar(total=total, done=0, unit="fit", title=title) as bar:
        for fit in fits:
            yield fit
            bar.update()


def _ending(fit: logistic_regression.Fit) -> dict[str, Any]:
    return {name: getattr(fit, name) for name in ("method", "iterations", "not_converged")}


def _names(measured: Measured) -> list[str]:
    """The metric; with one label an image also top-1 and top-5."""
    if METRICS[measured.metric].is_of_tags:
        return [measured.metric]
    return list(dict.fromkeys([measured.metric, "top1", "top5"]))


def _values(measured: Measured, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    return {name: METRICS[name].value(scores, targets) for name in _names(measured)}


def _top(name: str) -> Metric:
    def correct(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return results.correct(scores, labels)[name]

    return Metric(
        False,
        lambda scores, labels: float(correct(scores, labels).mean()),
        lambda scores, labels, **options: accuracy.bootstrap_interval(
            correct(scores, labels), **options
        ),
    )


def _mean_per_class() -> Metric:
    def correct(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return results.correct(scores, labels)["top1"]

    return Metric(
        False,
        lambda scores, labels: accuracy.mean_per_class(correct(scores, labels), labels),
        lambda scores, labels, **options: accuracy.bootstrap_mean_per_class(
            correct(scores, labels), labels, **options
        ),
    )


# Where the paper is silent.
CHOICES = {
    "lambda": "weighs half the squared weights against the sum of the losses; biases are free",
    "equal rows": "the strongest lambda",
    "held-out images": f"at most {protocol.VALIDATION_IMAGES:,}, or the set's validation split",
}

METRICS: Mapping[str, Metric] = {
    "top1": _top("top1"),
    "top5": _top("top5"),
    "mean_per_class": _mean_per_class(),
    "map11": Metric(True, accuracy.map11, accuracy.bootstrap_map11),
}


def _table(found: Mapping[str, Any]) -> list[str]:
    chosen, lines = found["selected"], []
    if chosen["among"] > 1:
        name = next(key for key in found["table"][0] if key.startswith("validation_"))
        lines = [f"{'lambda':>10}{name.replace('_', ' '):>27}{'iterations':>12}"]
        for row in found["table"]:
            mark = "  <- chosen" if row["lambda"] == chosen["lambda"] else ""
            mark = ("  not converged" if row["not_converged"] else "") + mark
            lines.append(f"{row['lambda']:>10.2e}{row[name]:>27.2%}{row['iterations']:>12}{mark}")
        lines.append(f"chosen on {chosen['on']}")
    if found["not_converged"]:
        lines.append(
            f"{found['not_converged']} regressions did not converge, the final one among them: "
            f"{'yes' if found['final']['not_converged'] else 'no'} (--config.max_iterations)"
        )
    return lines
