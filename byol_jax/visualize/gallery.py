"""Pictures of what a run has learned, for its report: views, neighbors, a map, classes.

They go to the folder ``gallery`` of a run, as JSON with small JPEGs in it. What an encoder made of
the evaluation split before training is kept there too, to be compared with what it makes later.

Shapes: n images shown, F embedding size, C classes, S side of a thumbnail.
"""

import json
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from byol_jax.data import datasets, image_decoding
from byol_jax.host import machine
from byol_jax.metrics import representation
from byol_jax.training import online_eval
from byol_jax.visualize import embedding_map, thumbnails
from byol_jax.workdir import files

TILE = 32  # px, of the map's thumbnails; a multiple of a JPEG's blocks
LARGE = 96  # px, of images in rows
PAIRS = 12
QUERIES = 10
NEAREST = 5
CONFUSED = 5
SHEET_BYTES = 1_900_000
START = "start.npz"


class GalleryData(NamedTuple):
    """The images that a gallery shows.

    Attributes:
      data: the evaluation split, or as much of it as was measured.
      split: its name.
      names: of the images, by index; empty if they have none of their own.
      classes: names of the classes.
    """

    data: datasets.Dataset
    split: str
    names: Mapping[int, str]
    classes: Sequence[str]


class Shown(NamedTuple):
    """What is shown of a measurement: at most so many images, evenly spread over the split.

    Attributes:
      indices: [n] of the images in the split.
      features: [n, F].
      labels: [n]; -1 without labels.
    """

    indices: np.ndarray
    features: np.ndarray
    labels: np.ndarray


def choose(measured: online_eval.Measured, *, most: int) -> Shown:
    """At most so many of the measured images, always the same ones."""
    count = len(measured.labels)
    rows = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    return Shown(measured.indices[rows], measured.features[rows], measured.labels[rows])


def write_start(
    folder: pathlib.Path, measured: online_eval.Measured, *, most: int, title: str
) -> None:
    """Keeps what the untrained encoder makes of the images, for `write_end`."""
    shown = choose(measured, most=most)
    arrays = {
        "indices": shown.indices,
        "features": shown.features.astype(np.float16),
        "correct": _correct_by_class(measured),
        "title": title,
    }
    path = folder / START
    with files.whole(path) as part, files.writing(path), part.open("wb") as file:
        np.savez(file, **arrays)


def write_pairs(
    folder: pathlib.Path, pairs: Sequence[tuple[np.ndarray, ...]], captions: Sequence[Any]
) -> np.ndarray:
    """Writes images beside their two views; returns them as one picture, uint8 [H, W, 3].

    Args:
      folder: of the gallery.
      pairs: uint8 (image [H, W, 3], view 1 [S, S, 3], view 2 [S, S, 3]).
      captions: for each a dictionary with ``label`` and ``name``, either perhaps None.
    """
    rows = []
    for pair, caption in zip(pairs, captions, strict=True):
        image, view1, view2 = (thumbnails.jpeg(thumbnails.fit(x, 2 * LARGE)) for x in pair)
        rows.append({"image": image, "view1": view1, "view2": view2} | caption)
    size = min(2 * LARGE, len(pairs[0][1]))
    _write(folder, "pairs", {"size": size, "images": rows})
    side = len(pairs[0][1])
    tiles = [_grown(thumbnails.square(x, side), side) for pair in pairs for x in pair]
    return thumbnails.grid(tiles, columns=3)


def write_end(
    folder: pathlib.Path,
    subject: GalleryData,
    measured: online_eval.Measured,
    *,
    step: int,
    most: int,
) -> np.ndarray:
    """Writes neighbors, map and classes as the encoder sees them after ``step``.

    Returns:
      Queries, each with its nearest, as one picture, uint8 [H, W, 3].
    """
    shown, start = choose(measured, most=most), read_start(folder)
    if start is not None and not np.array_equal(start["indices"], shown.indices):
        start = None  # of other images
    tiles = np.stack(load_all(subject.data, shown.indices, TILE))
    neighbors = find_neighbors(shown, start, tiles)
    wanted = sorted({int(i) for rows in neighbors.values() for i in np.ravel(rows)})
    large = load_all(subject.data, shown.indices[wanted], LARGE)
    common = {"split": subject.split, "step": step, "num_images": len(shown.labels)}
    common["start_title"] = str(start["title"]) if start else ""
    pictures = {
        str(i): _caption(subject, shown, i) | {"jpeg": thumbnails.jpeg(pixels)}
        for i, pixels in zip(wanted, large, strict=True)
    }
    rows = [dict(zip(neighbors, row, strict=True)) for row in _rows(neighbors)]
    size = min(LARGE, len(large[0]))
    _write(folder, "neighbours", common | {"size": size, "images": pictures, "queries": rows})
    _write(folder, "atlas", common | _atlas(subject, shown, start, tiles))
    if measured.predicted is not None:
        _write(folder, "classes", common | _classes(subject, measured, start))
    of = dict(zip(wanted, large, strict=True))
    columns = np.column_stack([neighbors["index"], neighbors["now"]])
    return thumbnails.grid([of[i] for i in columns.ravel()], columns=columns.shape[1])


def read_start(folder: pathlib.Path) -> dict[str, np.ndarray] | None:
    """What `write_start` wrote; None if it is missing or damaged.

    Raises:
      OSError: it cannot be read at the moment, and must not be replaced.
    """
    try:
        with np.load(folder / START) as arrays:
            return dict(arrays)
    except (FileNotFoundError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None


def find_neighbors(
    shown: Shown, start: Mapping[str, np.ndarray] | None, tiles: np.ndarray
) -> dict[str, np.ndarray]:
    """Queries, and rows [queries, k] of their nearest in features now, at the start, and pixels."""
    queries = choose_queries(shown.labels)
    pixels = tiles.reshape(len(tiles), -1).astype(np.float32)
    spaces = {"now": shown.features, "pixels": pixels - pixels.mean(axis=0)}
    if start is not None:
        spaces["start"] = start["features"].astype(np.float32)
    return {"index": queries} | {name: nearest(x, queries) for name, x in spaces.items()}


def choose_queries(labels: np.ndarray) -> np.ndarray:
    """The first image of each of the first classes; without labels, images evenly spread."""
    found = [int(np.flatnonzero(labels == c)[0]) for c in np.unique(labels) if c >= 0][:QUERIES]
    if found:
        return np.array(found)
    return np.unique(np.linspace(0, len(labels) - 1, min(QUERIES, len(labels))).astype(int))


def nearest(features: np.ndarray, queries: np.ndarray, k: int = NEAREST) -> np.ndarray:
    """Rows [queries, k] of the most similar features by cosine, without the queries themselves."""
    points = representation.unit(features)
    similarity = points[queries] @ points.T
    similarity[np.arange(len(queries)), queries] = -np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, : min(k, len(features) - 1)]


def _rows(neighbors: Mapping[str, np.ndarray]) -> list[list[Any]]:
    return [list(row) for row in zip(*(rows.tolist() for rows in neighbors.values()), strict=True)]


def _atlas(
    subject: GalleryData, shown: Shown, start: Mapping[str, np.ndarray] | None, tiles: np.ndarray
) -> dict[str, Any]:
    spaces = {"now": shown.features} | ({"start": start["features"]} if start else {})
    maps = embedding_map.project_all(spaces)
    text, columns = thumbnails.sheet(tiles, most_bytes=SHEET_BYTES)
    return {
        "method": embedding_map.METHOD,
        "purity": {
            name: embedding_map.purity(points, shown.labels) for name, points in maps.items()
        },
        "labels": shown.labels.tolist(),
        "classes": list(subject.classes),
        "names": [subject.names.get(int(index), f"image {index}") for index in shown.indices],
        "tile": tiles.shape[1],
        "columns": columns,
        "sheet": text,
    } | {name: points.T.round(3).tolist() for name, points in maps.items()}


def _classes(
    subject: GalleryData, measured: online_eval.Measured, start: Mapping[str, np.ndarray] | None
) -> dict[str, Any]:
    """Accuracy by class, and which classes are taken for which."""
    labels, predicted = measured.labels, measured.predicted
    is_labeled = labels >= 0
    counts = np.bincount(labels[is_labeled], minlength=len(subject.classes))
    now = _correct_by_class(measured)
    before = start["correct"] if start is not None else None
    rows = [
        {
            "name": subject.classes[c],
            "count": int(counts[c]),
            "start": None if before is None else float(before[c] / counts[c]),
            "now": float(now[c] / counts[c]),
        }
        for c in np.flatnonzero(counts)
    ]
    wrong = is_labeled & (labels != predicted)
    pairs, numbers = np.unique(
        np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True
    )
    confused = [
        {
            "true": subject.classes[pairs[0, i]],
            "predicted": subject.classes[pairs[1, i]],
            "count": int(numbers[i]),
            "share": float(numbers[i] / counts[pairs[0, i]]),
        }
        for i in np.argsort(-numbers, kind="stable")[:CONFUSED]
    ]
    return {"k": measured.k, "rows": rows, "confused": confused}


def _correct_by_class(measured: online_eval.Measured) -> np.ndarray:
    """How many images of each class are classified rightly [C]; empty without labels."""
    if measured.predicted is None:
        return np.zeros(0, int)
    right = measured.labels[measured.predicted == measured.labels]
    return np.bincount(right, minlength=measured.num_classes)


def _caption(subject: GalleryData, shown: Shown, row: int) -> dict[str, Any]:
    return caption(subject, int(shown.indices[row]), int(shown.labels[row]))


def caption(subject: GalleryData, index: int, label: int) -> dict[str, Any]:
    """What to call an image: its class, if it has one, and its name."""
    return {
        "label": subject.classes[label] if label >= 0 else None,
        "name": subject.names.get(index, f"image {index}"),
    }


def load_all(data: datasets.Dataset, indices: np.ndarray, size: int) -> list[np.ndarray]:
    """The middle squares of some images, uint8 [S, S, 3] each, all of one size.

    Raises:
      images.BadImageError: one of them is damaged.
    """
    if isinstance(data, datasets.ArrayDataset):
        return [thumbnails.square(data.images[i], size) for i in indices]
    with futures.ThreadPoolExecutor(machine.processors()) as pool:
        whole = pool.map(lambda index: load(data, index, size), indices)
        return [_grown(thumbnails.square(pixels, size), size) for pixels in whole]


def _grown(pixels: np.ndarray, size: int) -> np.ndarray:
    """Repeats the pixels of an image on disk that is smaller than its thumbnail."""
    if len(pixels) == size:
        return pixels
    rows = np.arange(size) * len(pixels) // size
    return pixels[rows][:, rows]


def load(data: datasets.Dataset, index: int, size: int) -> np.ndarray:
    """One whole image, uint8 [H, W, 3], not much larger than its shorter side needs to be."""
    if isinstance(data, datasets.ArrayDataset):
        return data.images[index]
    encoded = image_decoding.EncodedImage(data.records.read(int(index))[0], data.grey_ranges)
    side = min(encoded.height, encoded.width)
    shrink = next((factor for factor in (8, 4, 2) if side >= factor * size), 1)
    return encoded.decode(shrink=shrink, fast=True)


def _write(folder: pathlib.Path, name: str, content: Mapping[str, Any]) -> None:
    files.write_text(folder / f"{name}.json", json.dumps(content))
