"""The task that classifies new photos with a classifier that an evaluation has kept.

Shapes: N images, C classes, k classes of a row.
"""

import csv
import dataclasses
import io
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import classifiers
from byol_jax.data import datasets, eval_loader, image_folder, label_table
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import result_folder
from byol_jax.metrics import accuracy, calibration
from byol_jax.report import spreadsheet
from byol_jax.workdir import console, files, run_folder

UsageError = config_lib.UsageError


@dataclasses.dataclass(frozen=True)
class PredictData:
    """Which images."""

    dir: str
    labels: str


@dataclasses.dataclass(frozen=True)
class PredictSettings:
    """Settings of configs/predict.py."""

    checkpoint: str
    format: str
    top: int
    batch_size: int
    data: PredictData


class Predictions(NamedTuple):
    """What a classifier says of the images of a folder.

    Attributes:
      names: [N] files, as paths below the folder.
      best: [N, k] classes, the most probable first; -1 in the rows of bad files.
      probabilities: [N, k] of these.
      problems: reasons of bad files by their positions.
    """

    names: Sequence[str]
    best: np.ndarray
    probabilities: np.ndarray
    problems: Mapping[int, str]


def run(config: Any, workdir: pathlib.Path) -> None:
    """Writes ``predictions.<format>`` and ``result.json``.

    Raises:
      UsageError: a mistake in the config, no classifier, no image that can be used, or a workdir
        that cannot be written to.
    """
    start = time.monotonic()
    settings = resolve(config)
    write = FORMATS[settings.format]()
    listing = image_folder.list_all(settings.data.dir)
    classifier = classifiers.load_classifier(settings.checkpoint)
    labels = _labels(settings.data, listing, classifier.classes)
    path = workdir / f"predictions.{settings.format}"
    console.say(f"{len(listing.files):,} images in {listing.root}. {listing.about}".strip())
    with result_folder.opened(workdir, path.name):
        found = predict(classifier, listing, top=settings.top, batch_size=settings.batch_size)
        columns = _columns(found, classifier.classes, labels)
        with files.whole(path) as part:
            with files.writing(path):
                write(part, columns)
            result = {
                "task": "predict",
                "file": path.name,
                "data": dataclasses.asdict(settings.data),
                "num_images": {
                    "classified": len(found.names) - len(found.problems),
                    "bad": len(found.problems),
                },
                "predicted": dict(_counts(found, classifier.classes)),
                **_scores(found, labels, classifier.classes),
                "classes": list(classifier.classes),
                "checkpoint": classifier.encoder.identity | {"sha256": classifier.sha256},
                "classifier_card": dict(classifier.card),
                "config": config.to_dict(),
                "versions": run_folder.versions(),
                "seconds": round(time.monotonic() - start, 2),
            }
            result_folder.write(workdir, result)
    console.say(describe(result, found, path))


def resolve(config: Any) -> PredictSettings:
    """The settings of a config.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    config_lib.lookup(FORMATS, config.format, key="format")
    config_lib.require_positive(config, "batch_size", "top")
    return config_lib.freeze(PredictSettings, config)


def predict(
    classifier: classifiers.Classifier,
    listing: image_folder.Listing,
    *,
    top: int,
    batch_size: int,
) -> Predictions:
    """Classifies the images of a folder; images that cannot be used are noted.

    Args:
      classifier: that decides.
      listing: of the folder.
      top: k, at most C.
      batch_size: images at a time.

    Raises:
      UsageError: none of the images can be used.
    """
    card = classifier.card
    data = dataclasses.replace(
        datasets.of_listing(listing),
        grey_ranges=classifier.encoder.card.grey_ranges,
        is_reduced=card["is_reduced"],
    )
    count, k = len(listing.files), min(top, len(classifier.classes))
    names = features_lib.names(features_lib.Source("folder", ""), data, np.arange(count))
    found = Predictions(names, np.full((count, k), -1), np.zeros((count, k), np.float32), {})
    bad = eval_loader.BadLimit([data], 1.0)
    chunks = features_lib.chunks(
        classifier.encoder,
        data,
        batch_size=batch_size,
        bad=bad,
        title="predict",
        fraction=card["crop_fraction"],
    )
    for chunk in chunks:
        probabilities = calibration.softmax(classifier.logits(chunk.features))
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        found.best[chunk.indices] = order
        found.probabilities[chunk.indices] = np.take_along_axis(probabilities, order, axis=1)
    where = {data.records.name(i): i for i in np.flatnonzero(found.best[:, 0] < 0).tolist()}
    problems = {where[name]: reason for name, reason in bad.found.items()}
    if len(problems) == count:
        raise UsageError(
            f"None of the {count:,} images of {listing.root} can be used, such as "
            f"{names[0]}: {problems[0]}."
        )
    return found._replace(problems=dict(sorted(problems.items())))


def _labels(
    data: PredictData, listing: image_folder.Listing, classes: Sequence[str]
) -> list[str] | None:
    """The true class of each image, empty if it is not known; None if nobody asks.

    Raises:
      UsageError: one that the classifier does not know.
    """
    if data.labels == label_table.NONE:
        return None
    if label_table.is_table(data.labels):
        given = label_table.read(data.labels, set(listing.files), listing.root)
    else:
        given = _of_folders(data.dir)
    unknown = sorted(set(given.values()) - set(classes))
    if unknown:
        raise UsageError(
            f"The classifier does not know the class '{unknown[0]}' of --config.data.labels="
            f"{data.labels}.{config_lib.suggest(unknown[0], classes)}"
        )
    return [given.get(name, "") for name in listing.files]


def _of_folders(root: str) -> dict[str, str]:
    listing = image_folder.scan(root, "all")
    if not listing.classes:
        raise UsageError(f"The subfolders of {root} are no classes: leave data.labels=none.")
    names = datasets.of_listing(listing).class_names
    return {file: names[label] for file, label in zip(listing.files, listing.labels, strict=True)}


def _columns(
    found: Predictions, classes: Sequence[str], labels: Sequence[str] | None
) -> dict[str, list[Any]]:
    """The table by its columns; cells of bad files are None."""
    columns: dict[str, list[Any]] = {"file": list(found.names)}
    if labels is not None:
        columns["label"] = [label or None for label in labels]
    for rank in range(found.best.shape[1]):
        end = f"_{rank + 1}" if rank else ""
        best, probabilities = found.best[:, rank], found.probabilities[:, rank]
        columns[f"class{end}"] = [classes[number] if number >= 0 else None for number in best]
        columns[f"probability{end}"] = [
            float(value) if number >= 0 else None
            for number, value in zip(best, probabilities, strict=True)
        ]
    columns["problem"] = [found.problems.get(row) for row in range(len(found.names))]
    return columns


def _csv() -> Callable[[pathlib.Path, Mapping[str, list[Any]]], None]:
    def write(path: pathlib.Path, columns: Mapping[str, list[Any]]) -> None:
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            rows.writerow([_cell(value) for value in row])
        path.write_text(text.getvalue(), encoding="utf-8", newline="")

    return write


def _cell(value: Any) -> str:
    """A cell; what a spreadsheet would calculate gets an apostrophe, which makes it a text."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}"
    return spreadsheet.cell(value)


def _parquet() -> Callable[[pathlib.Path, Mapping[str, list[Any]]], None]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "--config.format=parquet needs pyarrow: pip install pyarrow, or take csv."
        ) from None

    def write(path: pathlib.Path, columns: Mapping[str, list[Any]]) -> None:
        kinds = {
            name: pyarrow.float32() if name.startswith("probability") else pyarrow.string()
            for name in columns
        }
        table = pyarrow.table(dict(columns), schema=pyarrow.schema(kinds))
        pyarrow.parquet.write_table(table, path)

    return write


FORMATS = {"csv": _csv, "parquet": _parquet}


def _counts(found: Predictions, classes: Sequence[str]) -> Iterable[tuple[str, int]]:
    """Classes by how many images they were found in, the most frequent first."""
    best = (classes[number] for number in found.best[:, 0] if number >= 0)
    return Counter(best).most_common()


def _scores(
    found: Predictions, labels: Sequence[str] | None, classes: Sequence[str]
) -> dict[str, Any]:
    """How many of the labeled images are right, with its interval."""
    number = {name: i for i, name in enumerate(classes)}
    numbers = np.array([number.get(label, -1) for label in labels or ()], int)
    counted = np.flatnonzero((numbers >= 0) & (found.best[:, 0] >= 0)) if labels else ()
    if not len(counted):
        return {}
    right = found.best[counted, 0] == numbers[counted]
    interval = accuracy.bootstrap_interval(right, seed=0)
    return {
        "labeled": len(counted),
        "accuracy": {"top1": float(right.mean())},
        "interval_95": {"top1": list(interval)},
    }


def describe(result: Mapping[str, Any], found: Predictions, path: pathlib.Path) -> str:
    """What was found, for people."""
    counts = result["num_images"]
    card = result["classifier_card"]
    low, high = card["interval_95"]["top1"]
    lines = [
        f"{counts['classified']:,} images classified, by a classifier of {len(result['classes'])} "
        f"classes that was right on {card['accuracy']['top1']:.1%} of its test images "
        f"(95 % interval {low:.1%} to {high:.1%})"
    ]
    shown = list(result["predicted"].items())
    lines += [f"  {number:>7,}  {name}" for name, number in shown[:10]]
    lines += [f"  ... and {len(shown) - 10} classes more"] if len(shown) > 10 else []
    if "accuracy" in result:
        low, high = result["interval_95"]["top1"]
        lines.append(
            f"right on {result['accuracy']['top1']:.2%} of {result['labeled']:,} labeled images "
            f"(95 % bootstrap interval {low:.2%} to {high:.2%})"
        )
    if found.problems:
        lines.append(f"{counts['bad']:,} files cannot be used:")
        bad = list(found.problems.items())
        lines += [f"  {found.names[row]}: {reason}" for row, reason in bad[:10]]
        lines += [f"  ... and {len(bad) - 10:,} more"] if len(bad) > 10 else []
    return "\n".join([*lines, f"Written: {path}"])
