"""The task of transfer: logistic regression on a frozen encoder's features (paper, appendix D.2).

Shapes: N images of a split, C classes. Targets are labels [N], or multi-labels [N, C] as in
`datasets.multi_labels`, where an image may have several.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import classifiers
from byol_jax.data import datasets, transfer_datasets
from byol_jax.evaluation import (
    baselines,
    kept,
    logistic_regression,
    outcome,
    protocol,
    result_folder,
    results,
    sweep,
    transfer_metrics,
)
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import settings as settings_lib
from byol_jax.metrics import calibration
from byol_jax.visualize import mistakes
from byol_jax.workdir import console

UsageError = config_lib.UsageError
Features = features_lib.Features
Attempts = Iterator[tuple[dict[str, Any], logistic_regression.Fit]]


CROP_FRACTION = 1.0  # of the shorter side of images, that is seen


class Measured(NamedTuple):
    """What the encoder makes of a set, and what is right.

    Attributes:
      setup: the encoder and its images.
      metric: a key of `transfer_metrics.METRICS`.
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


@dataclasses.dataclass(frozen=True)
class Lambdas:
    """Log-spaced strengths of the penalty."""

    min: float
    max: float
    count: int


@dataclasses.dataclass(frozen=True)
class TransferSettings(settings_lib.EvalSettings):
    """Settings of configs/transfer.py."""

    extract_batch_size: int
    metric: str  # empty: what the paper measures on the set
    lambdas: Lambdas
    max_iterations: int
    tolerance: float

    def strengths(self) -> list[float]:
        """Lambdas, from strong to weak."""
        return np.geomspace(self.lambdas.max, self.lambdas.min, self.lambdas.count).tolist()


def run(config: Any, workdir: pathlib.Path) -> None:
    """Evaluates the encoder of ``config.checkpoint``; writes ``result.json``, prints a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, more bad images than
        may be.
    """
    start = time.monotonic()
    settings = resolve(config)
    setup = protocol.open_setup(settings, or_multi_labels=True)
    metric = _choose_metric(settings.metric, setup)
    encoder = setup.encoder
    network = baselines.networks(encoder, settings.weights, setup.train)
    measure = baselines.by_seed(
        settings.weights,
        lambda seed: _measure(settings, setup._replace(encoder=network(seed)), metric),
    )
    held: list[kept.Fitted] = []  # of the first seed
    with result_folder.opened(workdir, classifiers.FOLDER):
        found = results.over_seeds(
            settings,
            lambda seed: score(settings, measure(seed), seed, held.append),
            lambda seed: network(seed).identity,
            drawn="held-out images, which choose lambda",
        )
        found |= {"protocol": "transfer, logistic regression", "metric": metric, "choices": CHOICES}
        is_kept = (
            settings.weights == "checkpoint" and not transfer_metrics.METRICS[metric].is_multi_label
        )
        result = results.write_result(
            workdir,
            settings,
            setup,
            found,
            start=start,
            classes=protocol.class_names(setup),
            fitted=held[0] if is_kept else None,
            crop_fraction=CROP_FRACTION,
        )
    mistakes.write(workdir, setup.test, result)
    console.say(results.describe(result, _table))


def resolve(config: Any) -> TransferSettings:
    """The settings of a config.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    config_lib.require_positive(config, "lambdas.min", "lambdas.max", "lambdas.count")
    if config.lambdas.min > config.lambdas.max:
        raise UsageError(
            f"--config.lambdas.min={config.lambdas.min:g} is above "
            f"--config.lambdas.max={config.lambdas.max:g}."
        )
    is_folder = config.data.name == transfer_datasets.FOLDER and config.preset
    if is_folder and not config.data.dir:
        raise UsageError(
            f"Give the folder of {config.preset} by --config.data.dir: its images are in "
            "train/CLASS/... and test/CLASS/...."
        )
    if config.metric:
        config_lib.lookup(transfer_metrics.METRICS, config.metric, key="metric")
    positive = ("extract_batch_size", "max_iterations", "tolerance")
    return settings_lib.resolve(TransferSettings, config, positive=positive)


def _choose_metric(given: str, setup: protocol.EvalSetup) -> str:
    """That of the config, or else the paper's for this set."""
    has_multi_labels = setup.train.num_labels > 0
    paper = "map11" if has_multi_labels else transfer_datasets.metric(setup.source.name)
    metric = given or paper
    if has_multi_labels and not transfer_metrics.METRICS[metric].is_multi_label:
        raise UsageError(
            f"--config.metric={metric} needs one label an image, but {setup.source.name} has "
            "several: give map11."
        )
    return metric


def _measure(settings: TransferSettings, setup: protocol.EvalSetup, metric: str) -> Measured:
    options = {"batch_size": settings.extract_batch_size, "fraction": CROP_FRACTION}
    options["bad"] = settings.data.bad_limit(setup.train, setup.test)
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
    if transfer_metrics.METRICS[metric].is_multi_label:
        return (found.labels[:, None] == np.arange(data.num_classes)).astype(np.int8)
    return found.labels


def score(
    settings: TransferSettings,
    measured: Measured,
    seed: int,
    keep: Callable[[kept.Fitted], None] = lambda _: None,
) -> dict[str, Any]:
    """The sweep on validation images; then, with the best lambda, all images and one test.

    Args:
      settings: of the task.
      measured: what is fitted.
      seed: of the images that are held out.
      keep: takes the classifier.
    """
    lambdas, name = settings.strengths(), f"validation_{measured.metric}"
    features, targets = measured.train.features, measured.train_targets

    def hold_out() -> tuple[np.ndarray, np.ndarray]:
        fraction, indices = settings.data.validation_share, measured.train.indices
        return protocol.split_train(measured.setup, indices, fraction, seed=seed)

    def attempt(validation: np.ndarray, rest: np.ndarray) -> Attempts:
        fits = _fits(settings, measured, rest, lambdas)
        for fit in _with_bar(fits, len(lambdas), "sweep"):
            scores = fit.scores(features[validation])
            value = transfer_metrics.METRICS[measured.metric].value(scores, targets[validation])
            yield {name: value} | _ending(fit), fit

    rows = [{"lambda": strength} for strength in lambdas]
    chosen = sweep.select(rows, hold_out, attempt, by=[name], split=settings.data.validation_split)
    best = lambdas[chosen.best : chosen.best + 1]
    fits = _fits(settings, measured, np.arange(len(targets)), best, chosen.fitted)
    [final] = _with_bar(fits, 1, "fit on all training images")
    keep(kept.Fitted(final.weights, final.biases))
    scores = final.scores(measured.test.features)
    calibrated = kept.calibration(chosen, _temperature(measured, chosen, hold_out))
    options = {"seed": seed, "resamples": settings.bootstrap_resamples}
    unfinished = sum(row.get("not_converged", 0) for row in chosen.table)
    return {
        "accuracy": _values(measured, scores, measured.test_targets),
        "interval_95": {
            name: list(
                transfer_metrics.METRICS[name].interval(scores, measured.test_targets, **options)
            )
            for name in _names(measured)
        },
        "train_accuracy": _values(measured, final.scores(features), targets),
        **chosen.results(),
        "calibration": calibrated,
        **_outcome(measured, scores / calibrated["temperature"]),
        "final": _ending(final),
        "not_converged": unfinished + final.not_converged,
        "num_images": chosen.num_images(
            len(targets), len(measured.test_targets), measured.left_out
        ),
    }


def _outcome(measured: Measured, logits: np.ndarray) -> dict[str, Any]:
    """What became of the evaluated images, if each has one label."""
    if measured.train_targets.ndim > 1:
        return {}
    told = outcome.describe(measured.setup, measured.test, logits, measured.train_targets)
    return {"test": told}


def _temperature(
    measured: Measured, chosen: sweep.Choice, hold_out: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> float | None:
    """That of the chosen classifier on the images it was chosen on; None if there were none."""
    if chosen.fitted is None or measured.train_targets.ndim > 1:
        return None
    validation, _ = hold_out()
    logits = chosen.fitted.scores(measured.train.features[validation])
    return calibration.temperature(logits, measured.train_targets[validation])


def _fits(
    settings: TransferSettings,
    measured: Measured,
    positions: np.ndarray,
    lambdas: list[float],
    start: logistic_regression.Fit | None = None,
) -> Iterator[logistic_regression.Fit]:
    """Classifiers of some of the training images, one for each lambda."""
    features, targets = measured.train.features[positions], measured.train_targets[positions]
    solver = logistic_regression.Solver(settings.max_iterations, settings.tolerance)
    if transfer_metrics.METRICS[measured.metric].is_multi_label:
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
    if transfer_metrics.METRICS[measured.metric].is_multi_label:
        return [measured.metric]
    return list(dict.fromkeys([measured.metric, "top1", "top5"]))


def _values(measured: Measured, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    return {
        name: transfer_metrics.METRICS[name].value(scores, targets) for name in _names(measured)
    }


# Where the paper is silent.
CHOICES = {
    "lambda": "weighs half the squared weights against the sum of the losses; biases are free",
    "equal rows": "the strongest lambda",
    "held-out images": f"at most {protocol.VALIDATION_IMAGES:,}, or the set's validation split",
}


def _table(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if found["selected"]["among"] > 1:
        name = next(key for key in found["table"][0] if key.startswith("validation_"))
        scores = [
            sweep.Column(name, name.replace("_", " "), 27, ".2%"),
            sweep.Column("iterations", "iterations", 12, "d"),
        ]
        lines = sweep.describe(
            found,
            [sweep.Column("lambda", "lambda", 10, ".2e")],
            scores,
            note=lambda row: "  not converged" if row["not_converged"] else "",
        )
    if found["not_converged"]:
        lines.append(
            f"{found['not_converged']} regressions did not converge, the final one among them: "
            f"{'yes' if found['final']['not_converged'] else 'no'} (--config.max_iterations)"
        )
    return lines
