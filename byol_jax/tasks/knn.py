"""The task that scores a frozen encoder by its nearest neighbors, and without any labels.

Shapes: N train images, M evaluated ones, F embedding size, S settings of the vote.
"""

import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax import plugins
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets
from byol_jax.evaluation import baselines, protocol, result_folder, results, sweep
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import settings as settings_lib
from byol_jax.metrics import accuracy, knn
from byol_jax.workdir import console

UsageError = config_lib.UsageError
Features = features_lib.Features

LEAVE_ONE_OUT = "leave_one_out"  # in place of a split to evaluate on


# Where papers are silent.
CHOICES = {
    "equal similarities": "the first in the training set are the nearest",
    "equal votes": "the first class",
}


@dataclasses.dataclass(frozen=True)
class Vote:
    """The votes to choose among, and on what."""

    k: tuple[int, ...]
    temperature: tuple[float, ...]
    validation_share: float
    leave_one_out: bool


@dataclasses.dataclass(frozen=True)
class KnnSettings(settings_lib.EvalSettings):
    """Settings of configs/knn.py."""

    batch_size: int
    knn: Vote

    def params(self) -> list[knn.KnnParams]:
        """All pairs of ``knn.k`` and ``knn.temperature``."""
        return [knn.KnnParams(k, t) for k in self.knn.k for t in self.knn.temperature]


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
    settings = resolve(config)
    encoder = protocol.load_encoder(settings.checkpoint, given)
    _load_plugins(encoder)
    source, train_name, eval_name = protocol.find_images(settings.data, encoder)
    names = {"train_split": train_name, "eval_split": eval_name}
    is_left_out = names["eval_split"] == LEAVE_ONE_OUT
    wanted = [names["train_split"], *([] if is_left_out else [names["eval_split"]])]
    loaded = protocol.load_splits(
        encoder, source, wanted, decode=settings.data.decode, given=given.splits
    )
    train, evaluated = loaded[0], loaded[-1]
    network = baselines.networks(encoder, settings.weights, train)
    encode = baselines.by_seed(
        settings.weights, lambda seed: _encode(settings, network(seed), train, evaluated)
    )
    with result_folder.opened(workdir):
        quality = features_lib.quality(
            network(settings.seed),
            encode(settings.seed).whole,
            evaluated,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        found = results.over_seeds(
            settings,
            lambda seed: score(encode(seed), settings.params(), settings, seed),
            lambda seed: network(seed).identity,
            drawn="held-out images, which choose k and temperature",
        )
        found |= {"label_free": quality, "choices": CHOICES}
        setup = protocol.EvalSetup(encoder, source, train, 0, evaluated, names)
        result = results.write_result(
            workdir, settings, setup, found, start=start, classes=protocol.class_names(setup)
        )
    console.say(describe(result))


def _load_plugins(encoder: encoders.Encoder) -> None:
    """Imports the plugins of an encoder's run, if its views, which are drawn, come from there."""
    if encoder.config and any(encoder.config.augment[name].extra for name in ("view1", "view2")):
        plugins.load(encoder.config)


def resolve(config: Any) -> KnnSettings:
    """The settings of a config.

    Raises:
      UsageError: an empty list, a number out of range.
    """
    settings_lib.require_share(config, "knn.validation_share")
    ks = settings_lib.numbers(config, "knn.k", "(10, 20, 200)")
    temperatures = settings_lib.numbers(config, "knn.temperature", "(0.07, 0.1)")
    if any(k != int(k) for k in ks):
        raise UsageError(f"--config.knn.k must be whole numbers, not {list(ks)}.")
    vote = config_lib.freeze(
        Vote, config.knn, k=tuple(map(int, ks)), temperature=tuple(map(float, temperatures))
    )
    return settings_lib.resolve(KnnSettings, config, positive=("batch_size",), knn=vote)


def _encode(
    settings: KnnSettings,
    encoder: encoders.Encoder,
    train: datasets.Dataset,
    evaluated: datasets.Dataset,
) -> Splits:
    """Features of all that can be used; images without labels neither vote nor are counted."""
    is_one = train is evaluated
    limit = settings.data.bad_limit(*([train] if is_one else [train, evaluated]))
    options = {"batch_size": settings.batch_size, "bad": limit}
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
    splits: Splits, votes: Sequence[knn.KnnParams], settings: KnnSettings, seed: int
) -> dict[str, Any]:
    """Accuracies of all settings; that of the one chosen on validation, with its interval.

    The validation split is drawn from the training split; those images choose the setting, vote
    afterwards, and are never evaluated. Nothing is chosen if there is one setting only.
    """
    if splits.train is None:
        counts = {"train": 0, "validation": 0, "evaluated": len(splits.test.labels)}
        counts |= splits.left_out
        return {"accuracy": {}, "note": "no labels: no accuracy", "num_images": counts}
    train = splits.train
    fraction = settings.knn.validation_share if len(votes) > 1 else 0
    validation, rest = protocol.hold_out(len(train.labels), fraction, seed=seed)

    def attempt(validation: np.ndarray, rest: np.ndarray) -> Iterator[tuple[dict, None]]:
        voting, held = train.at(rest), train.at(validation)
        bank = knn.Bank(voting.features, voting.labels, splits.num_classes)
        for ranks in knn.label_ranks(bank, held.features, held.labels, votes):
            yield sweep.on_validation(accuracy.top(ranks)), None

    rows = [vote._asdict() for vote in votes]
    chosen = sweep.select(rows, lambda: (validation, rest), attempt)
    counted = rest if splits.test is None else np.arange(len(splits.test.labels))
    ranks = _evaluate(splits, votes, counted)
    scores = {
        "protocol": "leave-one-out on the train split" if splits.test is None else "eval split",
        **_summary(ranks[chosen.best], settings, seed),
        **chosen.results(),
        "num_images": chosen.num_images(len(train.labels), len(counted), splits.left_out),
    }
    scores["table"] = [
        row | accuracy.means(accuracy.top(rank))
        for row, rank in zip(scores["table"], ranks, strict=True)
    ]
    if settings.knn.leave_one_out and splits.test is not None:
        everything = np.arange(len(train.labels))
        ranks = _evaluate(splits._replace(test=None), [votes[chosen.best]], everything)
        scores["train_leave_one_out"] = _summary(ranks[0], settings, seed)
    return scores


def _evaluate(splits: Splits, votes: Sequence[knn.KnnParams], counted: np.ndarray) -> np.ndarray:
    """Ranks [S, M] of the right classes, by all training images (but the one in question)."""
    train = splits.train
    bank = knn.Bank(train.features, train.labels, splits.num_classes)
    if splits.test is not None:
        return knn.label_ranks(bank, splits.test.features, splits.test.labels, votes)
    queries = train.at(counted)
    return knn.label_ranks(bank, queries.features, queries.labels, votes, own=counted)


def _summary(ranks: np.ndarray, settings: KnnSettings, seed: int) -> dict[str, Any]:
    """Accuracies of one setting and their intervals."""
    return results.summary(accuracy.top(ranks), seed=seed, resamples=settings.bootstrap_resamples)


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
    settings = [
        sweep.Column("k", "k", 6, "d"),
        sweep.Column("temperature", "temperature", 13, "g"),
    ]
    titles = {"validation_top1": "validation top-1", "top1": "top-1", "top5": "top-5"}
    scores = [sweep.Column(key, title, 18, ".2%") for key, title in titles.items()]
    lines = [*sweep.describe(found, settings, scores), f"measured: {found['protocol']}"]
    left_out = found.get("train_leave_one_out")
    if left_out:
        lines.append(f"train split, leave-one-out: top-1 {left_out['accuracy']['top1']:.2%}")
    return lines
