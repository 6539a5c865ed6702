"""Objects in boxes as COCO's JSON files list them: ``annotations/instances_<split>.json``.

The images of a split lie in the folder ``<split>`` beside ``annotations``. Any set that was written
in this format can be read.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import boxes, datasets, image_formats, pixel_targets

UsageError = config_lib.UsageError
BadImageError = image_formats.BadImageError


def load(data_dir: str, split: str) -> boxes.BoxSplit:
    """Opens a split, such as ``train2017``.

    Classes are the file's categories in the order of their ids. Crowds are not learned from, and
    nobody is asked to find them.

    Raises:
      UsageError: the file or the folder of images is missing, or it is no such file.
    """
    if not data_dir:
        raise UsageError(
            "Say where the set is by --config.data.dir=FOLDER, which holds annotations."
        )
    top = pathlib.Path(data_dir).expanduser()
    path, folder = top / "annotations" / f"instances_{split}.json", top / split
    content = _read(path)
    if not folder.is_dir():
        raise UsageError(f"{folder} is missing, in which the images of {path} should be.")
    try:
        classes, by_id = _classes(content["categories"])
        places = _places(path, folder, content, by_id)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is no file of COCO's instances: {error!r}.") from None
    if not places or not classes:
        raise UsageError(f"{path} lists no images, or no categories.")
    about = f"{split} of {top}: {len(places):,} images, {len(classes)} classes."
    fingerprint = pixel_targets.fingerprint([place.name for place in places])
    records = boxes.AnnotatedFiles(places)
    data = datasets.RecordDataset(records, len(places), len(classes), fingerprint, about=about)
    return boxes.BoxSplit(data, classes)


def _read(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        found = sorted(
            other.stem.removeprefix("instances_") for other in path.parent.glob("*.json")
        )
        raise UsageError(
            f"{path} is missing. Splits there: {', '.join(found) or 'none'} (docs/dense.md says "
            "what belongs where)."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"Cannot read {path}: {error}.") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no file of COCO's instances.")
    return content


def _classes(categories: Any) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names, and a class by the id of its category."""
    names = dict(sorted((int(row["id"]), str(row["name"])) for row in categories))
    return tuple(names.values()), {key: number for number, key in enumerate(names)}


def _places(
    path: pathlib.Path, folder: pathlib.Path, content: Mapping[str, Any], by_id: Mapping[int, int]
) -> list[boxes.Place]:
    objects: dict[int, list[Mapping[str, Any]]] = {}
    for row in content["annotations"]:
        objects.setdefault(row["image_id"], []).append(row)
    places = []
    for row in sorted(content["images"], key=lambda row: row["id"]):
        name = str(row["file_name"])
        parts = pathlib.PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise UsageError(f"{path} names the image '{name}', which is not below {folder}.")
        mine = objects.get(row["id"], [])
        read = functools.partial(_annotation, path, row["id"], mine, by_id)
        places.append(boxes.Place(str(folder / name), name, read))
    return places


def _annotation(
    path: pathlib.Path, image: int, rows: list[Mapping[str, Any]], by_id: Mapping[int, int]
) -> boxes.Annotation:
    try:
        found = [(_box(row["bbox"]), by_id[row["category_id"]], bool(row.get("iscrowd")))
                 for row in rows]  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadImageError(f"{path}, image {image}: an object without {error}") from None
    return boxes.make_annotation(found, learns_difficult=False)


def _box(sides: Any) -> np.ndarray:
    """From [left, top, width, height]."""
    left, top, width, height = map(float, sides)
    box = np.array([left, top, left + width, top + height])
    if not np.isfinite(box).all():
        raise ValueError("finite numbers")
    return box
