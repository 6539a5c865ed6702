"""Pictures of what was predicted of every pixel, beside the truth, for an evaluation's page."""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from byol_jax.distributed import multihost
from byol_jax.evaluation import pixel_sweep
from byol_jax.visualize import thumbnails
from byol_jax.workdir import console, files

SIZE = 192  # px, of the longer side
MOST = 12  # images
_IGNORED = np.array((224, 224, 224), np.uint8)


def write_labels(
    workdir: pathlib.Path, classes: Sequence[str], shown: Sequence[pixel_sweep.Shown]
) -> None:
    """Writes ``gallery/predictions.json`` of labeled images.

    Args:
      workdir: of the evaluation.
      classes: names, by label.
      shown: images with their predictions.
    """
    colors = palette(len(classes))
    rows = []
    for example, predicted in shown:
        seen = {int(label) for label in np.unique(example.target) if label < len(classes)}
        pictures = [example.pixels, _painted(example.target, colors), _painted(predicted, colors)]
        rows.append(_row(pictures, ", ".join(classes[label] for label in sorted(seen))))
    hexes = ["#" + bytes(color).hex() for color in colors]
    legend = [list(pair) for pair in zip(classes, hexes, strict=True)]
    _write(workdir, {"images": rows, "legend": legend})


def write_depth(workdir: pathlib.Path, shown: Sequence[pixel_sweep.Shown]) -> None:
    """Writes ``gallery/predictions.json`` of depth, near bright and far dark, by the truth's range.

    Args:
      workdir: of the evaluation.
      shown: images with their predictions.
    """
    rows = []
    for example, predicted in shown:
        known = example.target[example.target > 0]
        low, high = float(known.min()), float(known.max())
        pictures = [example.pixels, *(_shaded(d, low, high) for d in (example.target, predicted))]
        rows.append(_row(pictures, f"{low:.2f} to {high:.2f} m"))
    _write(workdir, {"images": rows, "legend": []})


class ShownBoxes(NamedTuple):
    """A tested image to look at; objects are boxes [M, 4] with labels [M]."""

    pixels: np.ndarray
    truth: tuple[np.ndarray, np.ndarray]
    predicted: tuple[np.ndarray, np.ndarray]


def write_boxes(workdir: pathlib.Path, classes: Sequence[str], shown: Sequence[ShownBoxes]) -> None:
    """Writes ``gallery/predictions.json`` of images with objects in boxes.

    Args:
      workdir: of the evaluation.
      classes: names, by label.
      shown: images with what was found in them.
    """
    colors = palette(len(classes) + 1)[1:]
    rows = []
    for image in shown:
        seen = sorted({int(label) for label in image.truth[1]})
        pictures = [image.pixels, *(_framed(image.pixels, *objects, colors)
                                    for objects in (image.truth, image.predicted))]  # fmt: skip
        rows.append(_row(pictures, ", ".join(classes[label] for label in seen)))
    labels = sorted({int(x) for image in shown for x in (*image.truth[1], *image.predicted[1])})
    legend = [[classes[label], "#" + bytes(colors[label]).hex()] for label in labels]
    _write(workdir, {"images": rows, "legend": legend})


def _framed(
    pixels: np.ndarray, box: np.ndarray, label: np.ndarray, colors: np.ndarray
) -> np.ndarray:
    """The image with the outlines of boxes, two pixels wide once it is shown."""
    painted = pixels.copy()
    height, width = pixels.shape[:2]
    line = max(1, round(2 * max(height, width) / SIZE))
    for sides, kind in zip(np.rint(box).astype(int), label, strict=True):
        left, top, right, bottom = np.clip(sides, 0, [width, height, width, height])
        for rows, columns in (
            (slice(top, top + line), slice(left, right)),
            (slice(max(bottom - line, 0), bottom), slice(left, right)),
            (slice(top, bottom), slice(left, left + line)),
            (slice(top, bottom), slice(max(right - line, 0), right)),
        ):
            painted[rows, columns] = colors[kind]
    return painted


def palette(count: int) -> np.ndarray:
    """Colors uint8 [count, 3] that tell labels apart; the first is dark."""
    hues = (np.arange(count) * 0.618) % 1  # the golden section spreads any number of them
    light = np.where(np.arange(count) % 2, 0.95, 0.65)
    waves = np.clip(np.abs((6 * hues[:, None] + [0, 4, 2]) % 6 - 3) - 1, 0, 1)
    colors = np.rint(255 * light[:, None] * (0.25 + 0.75 * waves)).astype(np.uint8)
    colors[0] = 40
    return colors


def _painted(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    inside = labels < len(colors)
    return np.where(inside[..., None], colors[np.where(inside, labels, 0)], _IGNORED)


def _shaded(depth: np.ndarray, low: float, high: float) -> np.ndarray:
    gray = 255 - 215 * np.clip((depth - low) / max(high - low, 1e-6), 0, 1)
    gray = np.where(depth > 0, gray, 0).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


def _row(pictures: Sequence[np.ndarray], words: str) -> dict[str, str]:
    names = ("image", "truth", "predicted")
    encoded = (thumbnails.jpeg(thumbnails.fit(picture, SIZE)) for picture in pictures)
    return dict(zip(names, encoded, strict=True)) | {"words": words}


def _write(workdir: pathlib.Path, content: dict) -> None:
    """Drawing pictures must never stop an evaluation."""
    if not multihost.is_writer():
        return
    try:
        folder = workdir / "gallery"
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / "predictions.json", json.dumps({"size": SIZE} | content))
    except Exception as error:
        console.say(f"Warning: no pictures of predictions were written: {error}")
