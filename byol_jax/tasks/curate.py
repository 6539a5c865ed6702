"""The task that looks through images: near-duplicates, outliers, clusters, suspected label errors.

It writes lists and a page; no image is changed or removed.

Shapes: N images that can be used.
"""

import contextlib
import csv
import dataclasses
import io
import os
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.curation import duplicates, label_errors, neighbors, pictures, selection, subject
from byol_jax.data import datasets
from byol_jax.distributed import multihost
from byol_jax.evaluation import result_folder
from byol_jax.report import spreadsheet
from byol_jax.visualize import curation_pictures
from byol_jax.workdir import console, files, run_folder

UsageError = config_lib.UsageError

TABLE, KEEP = "curation.csv", "keep.txt"
KNOWN = 500  # near-duplicates that are made, to know how alike they are


@dataclasses.dataclass(frozen=True)
class CurateSettings:
    """Settings of configs/curate.py."""

    checkpoint: str
    seed: int
    batch_size: int
    similarity: float
    subset: int
    clusters: int
    data: subject.Data


class Curated(NamedTuple):
    """What was found out about images.

    Attributes:
      threshold: of near-duplicates.
      owner: int [N], the image that is kept in place of each; the same where it is kept itself.
      alike: [N], how similar they are.
      subset: int [k] of the images that stand for all, in the order they were chosen.
      outlier: [N], the higher the more of one.
      cluster: int [N].
      distance: [N] from the middle of its cluster.
      judged: of the labels.
    """

    threshold: duplicates.Threshold
    owner: np.ndarray
    alike: np.ndarray
    subset: np.ndarray
    outlier: np.ndarray
    cluster: np.ndarray
    distance: np.ndarray
    judged: label_errors.Judged

    @property
    def is_kept(self) -> np.ndarray:
        """Bool [N]: whether an image is no near-duplicate of one that is kept."""
        return self.owner == np.arange(len(self.owner))


def run(config: Any, workdir: pathlib.Path) -> None:
    """Writes ``curation.csv``, ``keep.txt``, ``result.json`` and the pictures of a page.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, more bad images than
        may be, a subset larger than what there is to choose from.
    """
    start = time.monotonic()
    settings = resolve(config)
    opened = subject.open_split(settings.checkpoint, settings.data)
    _require_enough(settings, opened.data.num_images, "in the split")
    with result_folder.opened(workdir, TABLE, KEEP):
        known = subject.encode(opened, settings.data, settings.batch_size)
        curated = curate(known, settings)
        result = _result(config, known, curated) | {"seconds": round(time.monotonic() - start, 2)}
        if multihost.is_writer():
            _write(workdir, known, curated, result)
    console.say("\n".join([*result["summary"], f"Written: {workdir / TABLE}, {workdir / KEEP}"]))


def resolve(config: Any) -> CurateSettings:
    """The settings of a config.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    return config_lib.freeze(CurateSettings, config, data=subject.check(config))


def _require_enough(settings: CurateSettings, count: int, where: str) -> None:
    for key in ("subset", "clusters"):
        if getattr(settings, key) > count:
            raise UsageError(
                f"--config.{key}={getattr(settings, key)} is more than the {count:,} images "
                f"{where}: give {count} or less."
            )
    if count < 2:
        raise UsageError(f"There is {count} image {where}; to curate takes two.")


def curate(known: subject.Subject, settings: CurateSettings) -> Curated:
    """All that can be said of images by their features, their labels, and small pictures."""
    features, labels = known.found.features, known.found.labels
    _require_enough(settings, len(labels), "that can be used")
    count = min(selection.NEIGHBORS, len(labels) - 1)
    nearest, similarity = neighbors.nearest(neighbors.centered(features), count)
    threshold, owner, alike = _near_duplicates(known, settings, nearest)
    kept = np.flatnonzero(owner == np.arange(len(owner)))
    if settings.subset > len(kept):
        raise UsageError(
            f"--config.subset={settings.subset} is more than the {len(kept):,} images that are "
            f"left without near-duplicates: give {len(kept)} or less."
        )
    cluster, distance = selection.clusters(features, settings.clusters, seed=settings.seed)
    return Curated(
        threshold,
        owner,
        alike,
        kept[selection.k_center(features[kept], settings.subset)],
        selection.outlier_scores(similarity),
        cluster,
        distance,
        label_errors.judge(features, labels, seed=settings.seed),
    )


def _near_duplicates(
    known: subject.Subject, settings: CurateSettings, nearest: np.ndarray
) -> tuple[duplicates.Threshold, np.ndarray, np.ndarray]:
    """The threshold, which image stands for each, and how alike these are."""
    data, indices = known.opened.data, known.found.indices
    small = pictures.small(data, indices)
    rows = np.unique(np.linspace(0, len(indices) - 1, min(KNOWN, len(indices))).astype(int))
    made = pictures.variants(data, indices[rows], seed=settings.seed)
    made = duplicates.Known(rows, made)
    pairs = duplicates.propose(nearest, small)
    threshold = duplicates.choose_threshold(small, made, pairs)
    if settings.similarity:
        threshold = duplicates.at(settings.similarity, threshold)
    compared = duplicates.compare(small, pairs, made)
    order = subject.best_first(known)
    return threshold, *duplicates.find(nearest, small, order, compared, made, threshold.value)


def _result(config: Any, known: subject.Subject, curated: Curated) -> dict[str, Any]:
    opened, threshold = known.opened, curated.threshold
    count, kept = len(known.names), int(curated.is_kept.sum())
    return {
        "task": "curate",
        "files": [TABLE, KEEP],
        "data": {**opened.source._asdict(), "split": opened.split},
        "num_images": {"curated": count, "bad": len(known.bad)},
        "near_duplicates": {
            "count": count - kept,
            "similarity": threshold.value,
            "is_chosen": not config.similarity,
            "variants_found": threshold.found,
            "images_with_one_as_near": threshold.near,
        },
        "suspected_labels": int(curated.judged.is_suspect.sum()),
        "kept": len(_kept_rows(curated)),
        "summary": describe(known, curated),
        "checkpoint": opened.encoder.identity,
        "config": config.to_dict(),
        "versions": run_folder.versions(),
    }


def describe(known: subject.Subject, curated: Curated) -> list[str]:
    """What was found, in sentences for people."""
    count, threshold = len(known.names), curated.threshold
    near = count - int(curated.is_kept.sum())
    split, bad = known.opened.split, f", {len(known.bad):,} bad ones" if known.bad else ""
    lines = [
        f"{count:,} images of {known.opened.source.name} ({split}){bad}, by "
        f"{known.opened.encoder.identity['path']}.",
        f"{near:,} near-duplicates of images that are kept, at a similarity of "
        f"{threshold.value:.3f}: {threshold.found:.1%} of images are found again there when they "
        "are resized, recompressed or cropped.",
    ]
    if (curated.judged.suggested >= 0).any():
        suspects = int(curated.judged.is_suspect.sum())
        lines.append(f"{suspects:,} labels are suspect: look at them in the order of the page.")
    kept = len(_kept_rows(curated))
    chosen = " that stand for all others" if len(curated.subset) else ""
    return [*lines, f"{kept:,} images{chosen} are listed in {KEEP}; none was changed or removed."]


def _kept_rows(curated: Curated) -> np.ndarray:
    return curated.subset if len(curated.subset) else np.flatnonzero(curated.is_kept)


def _write(
    workdir: pathlib.Path, known: subject.Subject, curated: Curated, result: dict[str, Any]
) -> None:
    classes = _class_names(known)
    contents = {
        TABLE: _table(known, curated, classes).encode(),
        KEEP: _list(known, np.sort(_kept_rows(curated))),
    }
    with contextlib.ExitStack() as stack:
        for name, content in contents.items():
            part = stack.enter_context(files.whole(workdir / name))
            with files.writing(workdir / name):
                part.write_bytes(content)
                files.sync(part)  # what may fail yet fails before the result is written
        curation_pictures.write(workdir / "gallery", known, curated, classes)
        result_folder.write(workdir, result)


def _class_names(known: subject.Subject) -> list[str]:
    data, source = known.opened.data, known.opened.source
    return datasets.class_names(data, source.name, source.dir)


def _list(known: subject.Subject, rows: np.ndarray) -> bytes:
    """Names of files as the system has them, a line each; a name with a line break is left out."""
    data, names = known.opened.data, [known.names[row] for row in rows]
    if known.opened.source.name == "folder":
        indices = known.found.indices[rows]
        names = [os.fsencode(data.records.file_name(int(index))) for index in indices]
    else:
        names = [name.encode() for name in names]
    broken = [name for name in names if b"\n" in name]
    if broken:
        console.say(f"Warning: {KEEP} leaves out {len(broken)} names that have a line break.")
    return b"".join(name + b"\n" for name in names if b"\n" not in name)


COLUMNS = (
    *("file", "keep", "duplicate_of", "similarity", "subset_rank", "outlier_rank"),
    *("outlier_score", "cluster", "label", "suggested_label", "label_margin", "label_suspect"),
    "problem",
)


def _table(known: subject.Subject, curated: Curated, classes: list[str]) -> str:
    """A row for each image, in the order of their names; bad ones at the end."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    kept = set(_kept_rows(curated).tolist())
    place = {int(row): rank for rank, row in enumerate(curated.subset, 1)}
    rank = np.empty(len(known.names), int)
    rank[np.argsort(-curated.outlier, kind="stable")] = np.arange(1, len(rank) + 1)
    for row in sorted(range(len(known.names)), key=lambda row: known.names[row]):
        table.writerow(
            {
                "file": spreadsheet.cell(known.names[row]),
                "keep": int(row in kept),
                "subset_rank": place.get(row, ""),
                "outlier_rank": rank[row],
                "outlier_score": f"{curated.outlier[row]:.6g}",
                "cluster": curated.cluster[row],
            }
            | _of_pair(known, curated, row)
            | _of_label(known, curated, classes, row)
        )
    for name, reason in sorted(known.bad.items()):
        row = {"file": name, "problem": reason}
        table.writerow({key: spreadsheet.cell(value) for key, value in row.items()} | {"keep": 0})
    return text.getvalue()


def _of_pair(known: subject.Subject, curated: Curated, row: int) -> dict[str, Any]:
    if curated.owner[row] == row:
        return {}
    name = known.names[curated.owner[row]]
    return {"duplicate_of": spreadsheet.cell(name), "similarity": f"{curated.alike[row]:.4f}"}


def _of_label(
    known: subject.Subject, curated: Curated, classes: list[str], row: int
) -> dict[str, Any]:
    label, judged = int(known.found.labels[row]), curated.judged
    named = {"label": spreadsheet.cell(classes[label])} if label >= 0 else {}
    if judged.suggested[row] < 0:
        return named
    return named | {
        "suggested_label": spreadsheet.cell(classes[judged.suggested[row]]),
        "label_margin": f"{judged.margin[row]:.4f}",
        "label_suspect": int(judged.is_suspect[row]),
    }
