"""The task that scores a frozen encoder by its nearest neighbors, and without any labels.

Shapes: N train images, M evaluated ones, F embedding size, S settings of the vote.
"""

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets
from byol_jax.evaluation import baselines, protocol, result_folder, results
from byol_jax.evaluation import features as features_lib
from byol_jax.metrics import knn
from byol_jax.workdir import console

UsageError = config_lib.UsageError
Features = features_lib.Features

LEAVE_ONE_OUT = "leave_one_out"  # in place of a split to evaluate on


# Where papers are silent.
CHOICES = {
    "equal similarities": "the first in the training set are the nearest",
    "equal votes": "the first class",
}


class Splits(NamedTuple):
    """What is measured, encoded.

    Attributes:
      train: the images that vote, which have labels; None without any.
      test: the images that are classified, which have labels if there are any that vote; None to
        classify each training image by all others.
      num_classes: of the set.
      whole: all images of the evaluated split, with labels or without.
      left_out: number of images of both splits that are bad, and that have no label.
    """

    train: Features | None
    test: Features | None
    num_classes: int
    whole: Features
    left_out: dict[str, int]


def run(config: Any, workdir: pathlib.Path, *, given: protocol.Given = protocol.NOTHING) -> None:
    """Measures the encoder of ``config.checkpoint``; writes ``result.json``, prints it as a table.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, more bad images than
        may be.
    """
    start = time.monotonic()
    settings = make_settings(config)
    encoder = protocol.load_encoder(config, given)
    source = features_lib.find_source(config, encoder)
    names = {
        name: features_lib.find_split(config, encoder, name)
        for name in ("train_split", "eval_split")
    }
    is_left_out = names["eval_split"] == LEAVE_ONE_OUT
    wanted = [names["train_split"], *([] if is_left_out else [names["eval_split"]])]
    loaded = protocol.load_splits(
        encoder, source, wanted, decode=config.data.decode, given=given.splits
    )
    train, evaluated = loaded[0], loaded[-1]
    network = baselines.networks(encoder, config.weights, train)
    encode = baselines.by_seed(
        config.weights, lambda seed: _encode(config, network(seed), train, evaluated)
    )
    with result_folder.opened(workdir):
        quality = features_lib.quality(
            network(config.seed),
            encode(config.seed).whole,
            evaluated,
            batch_size=config.batch_size,
            seed=config.seed,
        )
        found = results.over_seeds(
            config,
            lambda seed: score(encode(seed), settings, config, seed),
            lambda seed: network(seed).identity,
            drawn="held-out images, which choose k and temperature",
        )
        found |= {"label_free": quality, "choices": CHOICES}
        setup = protocol.EvalSetup(encoder, source, train, 0, evaluated, names)
        result = results.write_result(workdir, config, setup, found, start=start)
    console.say(describe(result))


def make_settings(config: Any) -> list[knn.KnnParams]:
    """All pairs of ``knn.k`` and ``knn.temperature``.

    Raises:
      UsageError: an empty list, a number out of range.
    """
    config_lib.require_positive(config, "batch_size", "bootstrap_resamples", "seeds")
    config_lib.lookup(baselines.WEIGHTS, config.weights, key="weights")
    results.require_share(config, "knn.validation_share")
    results.require_bad_share(config)
    ks = results.numbers(config, "knn.k", "(10, 20, 200)")
    temperatures = results.numbers(config, "knn.temperature", "(0.07, 0.1)")
    if any(k != int(k) for k in ks):
        raise UsageError(f"--config.knn.k must be whole numbers, not {ks}.")
    return [knn.KnnParams(int(k), float(t)) for k in ks for t in temperatures]


def _encode(
    config: Any, encoder: encoders.Encoder, train: datasets.Dataset, evaluated: datasets.Dataset
) -> Splits:
    """Features of all that can be used; images without labels neither vote nor are counted."""
    is_one = train is evaluated
    limit = results.bad_limit(config, *([train] if is_one else [train, evaluated]))
    options = {"batch_size": config.batch_size, "bad": limit}
    title = "train" if is_one else "eval"
    whole = features_lib.extract(encoder, evaluated, **options, title=title)
    if not evaluated.num_classes or (whole.labels < 0).all():
        bad = evaluated.num_images - len(whole.labels)
        return Splits(None, whole, 0, whole, {"bad": bad})
    test = protocol.labeled(whole, "evaluation")
    if is_one:
        left_out = protocol.count_left_out([train], [whole])
        return Splits(test, None, train.num_classes, whole, left_out)
    voting = features_lib.extract(encoder, train, **options, title="train")
    left_out = protocol.count_left_out([train, evaluated], [voting, whole])
    voting = protocol.labeled(voting, "training")
    return Splits(voting, test, train.num_classes, whole, left_out)


def score(
    splits: Splits, settings: Sequence[knn.KnnParams], config: Any, seed: int
) -> dict[str, Any]:
    """Accuracies of all settings; that of the one chosen on validation, with its interval.

    The validation split is drawn from the training split; those images choose the setting, vote
    afterwards, and are never evaluated. Nothing is chosen if there is one setting only.
    """
    counts = {"train": 0, "validation": 0, "evaluated": 0, **splits.left_out}
    if splits.train is None:
        counts["evaluated"] = len(splits.test.labels)
        return {"accuracy": {}, "note": "no labels: no accuracy", "num_images": counts}
    train = splits.train
    fraction = config.knn.validation_share if len(settings) > 1 else 0
    validation, rest = protocol.hold_out(len(train.labels), fraction, seed=seed)
    rows, chosen = [setting._asdict() for setting in settings], 0
    if len(settings) > 1:
        bank = _bank(train, rest, splits.num_classes)
        queries, labels = train.features[validation], train.labels[validation]
        ranks = knn.label_ranks(bank, queries, labels, settings)
        _add(rows, ranks, "validation_")
        chosen = results.best(rows)
    selected = results.selection(rows, chosen, len(validation))
    counted = rest if splits.test is None else np.arange(len(splits.test.labels))
    ranks = _evaluate(splits, settings, counted)
    _add(rows, ranks, "")
    counts |= {"train": len(train.labels), "validation": len(validation), "evaluated": len(counted)}
    scores = {
        "protocol": "leave-one-out on the train split" if splits.test is None else "eval split",
        **_summary(ranks[chosen], config, seed),
        "selected": selected,
        "table": rows,
        "num_images": counts,
    }
    if config.knn.leave_one_out and splits.test is not None:
        everything = np.arange(len(train.labels))
        ranks = _evaluate(splits._replace(test=None), [settings[chosen]], everything)
        scores["train_leave_one_out"] = _summary(ranks[0], config, seed)
    return scores


def _bank(data: Features, kept: np.ndarray, num_classes: int) -> knn.Bank:
    return knn.Bank(data.features[kept], data.labels[kept], num_classes)


def _evaluate(splits: Splits, settings: Sequence[knn.KnnParams], counted: np.ndarray) -> np.ndarray:
    """Ranks [S, M] of the right classes, by all training images (but the one in question)."""
    train = splits.train
    bank = knn.Bank(train.features, train.labels, splits.num_classes)
    if splits.test is not None:
        return knn.label_ranks(bank, splits.test.features, splits.test.labels, settings)
    queries, labels = train.features[counted], train.labels[counted]
    return knn.label_ranks(bank, queries, labels, settings, own=counted)


def _add(rows: list[dict[str, Any]], ranks: np.ndarray, prefix: str) -> None:
    for row, rank in zip(rows, ranks, strict=True):
        row[f"{prefix}top1"], row[f"{prefix}top5"] = (float((rank < n).mean()) for n in (1, 5))


def _summary(rank: np.ndarray, config: Any, seed: int) -> dict[str, Any]:
    """Accuracies of one setting and their intervals."""
    correct = {"top1": rank < 1, "top5": rank < 5}
    return results.summary(correct, seed=seed, resamples=config.bootstrap_resamples)


def describe(result: dict[str, Any]) -> str:
    """What the result says, as a table for people."""
    names = ("effective_rank", "feature_std", "alignment", "uniformity")
    title = f"without labels, seed {result['config']['seed']}:"
    lines = [results.describe(result, _table), "", title]
    lines += [
        f"  {name.replace('_', ' '):<16}{result['label_free'][name]:>10.4g}" for name in names
    ]
    return "\n".join(lines)


def _table(found: Mapping[str, Any]) -> list[str]:
    if not found["accuracy"]:
        return ["No labels: no accuracy."]
    chosen = found["selected"]
    has_validation = chosen["among"] > 1
    columns = ("validation top-1", "top-1", "top-5") if has_validation else ("top-1", "top-5")
    keys = ("validation_top1", "top1", "top5") if has_validation else ("top1", "top5")
    lines = [f"{'k':>6}{'temperature':>13}" + "".join(f"{name:>18}" for name in columns)]
    for row in found["table"]:
        is_chosen = (row["k"], row["temperature"]) == (chosen["k"], chosen["temperature"])
        fractions = "".join(f"{row[key]:>18.2%}" for key in keys)
        mark = "  <- chosen on validation" if is_chosen and has_validation else ""
        lines.append(f"{row['k']:>6}{row['temperature']:>13g}{fractions}{mark}")
    lines.append(f"chosen on {chosen['on']}; {found['protocol']}")
    left_out = found.get("train_leave_one_out")
    if left_out:
        lines.append(f"train split, leave-one-out: top-1 {left_out['accuracy']['top1']:.2%}")
    return lines
