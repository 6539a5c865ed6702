"""The pictures of a curated folder, for its page: pairs, labels, outliers, clusters, a subset.

Each section is a JSON file of the folder ``gallery``: a note, and rows of pictures with words.

Shapes: N images.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from byol_jax.curation import duplicates, subject
from byol_jax.curation import index as index_lib
from byol_jax.data import datasets
from byol_jax.evaluation import features as features_lib
from byol_jax.visualize import gallery, thumbnails
from byol_jax.workdir import files

SIZE = 112  # px
MOST = 24  # pairs, labels, outliers and images of the subset that are shown
OF_CLUSTER = 8
BINS = 40


def write(
    folder: pathlib.Path, known: subject.Subject, curated: Any, classes: Sequence[str]
) -> None:
    """Writes the sections of which there is something to show, and removes older ones."""
    sections = {
        "duplicates": _duplicates(known, curated),
        "label_errors": _label_errors(known, curated, classes),
        "outliers": _outliers(known, curated),
        "clusters": _clusters(known, curated),
        "subset": _subset(known, curated),
    }
    files.make_folder(folder)
    for name, content in sections.items():
        path = folder / f"{name}.json"
        if content["rows"] or content.get("histogram"):
            files.write_text(path, json.dumps(content | {"size": SIZE}))
        else:
            path.unlink(missing_ok=True)


def pictures(
    data: datasets.Dataset, indices: Sequence[int], words: Sequence[str]
) -> list[dict[str, str]]:
    """Small JPEGs of images, with what is written below each."""
    squares = gallery.load_all(data, np.asarray(indices, int), SIZE) if len(indices) else []
    return [
        {"jpeg": thumbnails.jpeg(pixels, quality=80), "words": text}
        for pixels, text in zip(squares, words, strict=True)
    ]


def _of(known: subject.Subject, rows: Sequence[int], words: Sequence[str]) -> list[dict[str, str]]:
    return pictures(known.opened.data, known.found.indices[list(rows)], words)


def _duplicates(known: subject.Subject, curated: Any) -> dict[str, Any]:
    """Pairs side by side, the least alike first, and what the threshold was chosen from."""
    near = np.flatnonzero(~curated.is_kept)
    near = near[np.argsort(curated.alike[near], kind="stable")][:MOST]
    rows = []
    for row in near:
        keeper = int(curated.owner[row])
        words = [f"kept: {known.names[keeper]}", f"near-duplicate: {known.names[row]}"]
        title = f"similarity {curated.alike[row]:.3f}"
        rows.append({"title": title, "images": _of(known, [keeper, row], words)})
    count = int((~curated.is_kept).sum())
    shown = f" The {len(rows)} least alike of them are below." if count else ""
    return {
        "note": f"{count:,} near-duplicates.{shown} If these are none, give a higher "
        "--config.similarity; if all are, a lower one.",
        "histogram": _histogram(curated.threshold),
        "rows": rows,
    }


def _histogram(threshold: duplicates.Threshold) -> dict[str, Any]:
    """How many images are how alike to what was made of them, and to their nearest other."""
    low = float(max(0.0, min(threshold.value, np.quantile(threshold.same, 0.001)) - 0.2))
    edges = np.linspace(low, 1, BINS + 1)
    series = {"same": threshold.same, "other": threshold.other}
    counts = {
        name: np.histogram(np.clip(values, low, 1), edges)[0] / len(values)
        for name, values in series.items()
    }
    return {
        "low": low,
        "threshold": threshold.value,
        "found": threshold.found,
        "near": threshold.near,
        **{name: shares.round(5).tolist() for name, shares in counts.items()},
    }


def _label_errors(known: subject.Subject, curated: Any, classes: Sequence[str]) -> dict[str, Any]:
    judged = curated.judged
    suspects = np.flatnonzero(judged.is_suspect)
    rows = suspects[np.argsort(judged.margin[suspects], kind="stable")][:MOST]
    words = [
        f"labeled {classes[known.found.labels[row]]}, looks like {classes[judged.suggested[row]]}: "
        f"{known.names[row]}"
        for row in rows
    ]
    return {
        "note": f"{len(suspects):,} labels that classifiers disagree with which have not seen "
        "them, the surest first. Rare views look like errors, too: look before you change.",
        "rows": [{"title": "", "images": _of(known, rows, words)}] if len(rows) else [],
    }


def _outliers(known: subject.Subject, curated: Any) -> dict[str, Any]:
    rows = np.argsort(-curated.outlier, kind="stable")[:MOST]
    words = [f"{curated.outlier[row]:.3f}: {known.names[row]}" for row in rows]
    return {
        "note": "Images that are farthest from their ten nearest, by 1 - cosine of their features "
        "less the mean: "
        "wrong files, broken photos, or what is rare and precious.",
        "rows": [{"title": "", "images": _of(known, rows, words)}],
    }


def _clusters(known: subject.Subject, curated: Any) -> dict[str, Any]:
    rows = []
    for number in range(int(curated.cluster.max()) + 1):
        members = np.flatnonzero(curated.cluster == number)
        if not len(members):
            continue
        nearest = members[np.argsort(curated.distance[members], kind="stable")][:OF_CLUSTER]
        words = [known.names[row] for row in nearest]
        title = f"cluster {number}: {len(members):,} images"
        rows.append({"title": title, "images": _of(known, nearest, words)})
    return {
        "note": f"A row is a cluster of k-means; the {OF_CLUSTER} images nearest to its middle.",
        "rows": rows,
    }


def _subset(known: subject.Subject, curated: Any) -> dict[str, Any]:
    rows = curated.subset[:MOST]
    words = [f"{rank}: {known.names[row]}" for rank, row in enumerate(rows, 1)]
    return {
        "note": f"The first of {len(curated.subset):,} images that stand for all: none of the "
        "others is far from all of these (k-center, greedy).",
        "rows": [{"title": "", "images": _of(known, rows, words)}] if len(rows) else [],
    }


def write_search(
    folder: pathlib.Path,
    source: features_lib.Source,
    data: datasets.Dataset,
    hits: index_lib.Hits,
    query: np.ndarray,
) -> None:
    """Writes what was found for a query, uint8 [H, W, 3], to the folder of a page.

    Of an index that holds images that the data does not, those have no picture.
    """
    every = features_lib.names(source, data, np.arange(data.num_images))
    place = {name: index for index, name in enumerate(every)}
    found = [
        (place[name], f"{rank}: {alike:.3f} {name}")
        for rank, (name, alike) in enumerate(zip(hits.names[0], hits.similarity[0], strict=True), 1)
        if name in place
    ]
    indices, words = [index for index, _ in found], [text for _, text in found]
    own = {"jpeg": thumbnails.jpeg(thumbnails.square(query, SIZE)), "words": "the query"}
    files.make_folder(folder)
    content = {
        "note": "The query, then what is most like it by the cosine of the features.",
        "rows": [{"title": "", "images": [own, *pictures(data, indices, words)]}],
        "size": SIZE,
    }
    files.write_text(folder / "search.json", json.dumps(content))
