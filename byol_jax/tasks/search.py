"""The task that finds the images of a folder that are most like one photo."""

import contextlib
import csv
import dataclasses
import io
import pathlib
import time
from typing import Any

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.curation import index as index_lib
from byol_jax.curation import subject
from byol_jax.data import host_crops, image_decoding
from byol_jax.evaluation import result_folder
from byol_jax.report import spreadsheet
from byol_jax.visualize import curation_pictures
from byol_jax.workdir import console, files, run_folder

UsageError = config_lib.UsageError

TABLE, INDEX = "search.csv", "index.npz"


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Settings of configs/search.py."""

    checkpoint: str
    query: str
    k: int
    index: str
    batch_size: int
    data: subject.Data


def run(config: Any, workdir: pathlib.Path) -> None:
    """Writes ``search.csv``, ``index.npz``, ``result.json`` and the pictures of a page.

    Raises:
      UsageError: a mistake in the config, a query that is no image, an index of another encoder, a
        checkpoint that cannot be used, more bad images than may be.
    """
    start = time.monotonic()
    settings = resolve(config)
    pixels = _read(settings.query)
    opened = subject.open_split(settings.checkpoint, settings.data)
    if settings.k > opened.data.num_images:
        raise UsageError(
            f"--config.k={settings.k} is more than the {opened.data.num_images:,} images in the "
            f"split: give {opened.data.num_images} or less."
        )
    with result_folder.opened(workdir, TABLE, INDEX):
        index = _open_index(settings, opened)
        hits = index.search_features(_embed(opened.encoder, pixels), settings.k)
        result = _result(config, opened, index, hits, start)
        _write(workdir, opened, index, hits, result, pixels)
    for rank, (name, alike) in enumerate(zip(hits.names[0], hits.similarity[0], strict=True), 1):
        console.say(f"{rank:>4}  {alike:.4f}  {name}")
    console.say(f"Written: {workdir / TABLE}, {workdir / INDEX}")


def resolve(config: Any) -> SearchSettings:
    """The settings of a config.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    config_lib.require_positive(config, "k")
    if not config.query:
        raise UsageError("Say which photo to look for: --config.query=photo.jpg.")
    if not pathlib.Path(config.query).expanduser().is_file():
        raise UsageError(f"There is no file {config.query}: give a photo by --config.query.")
    if config.index and not pathlib.Path(config.index).expanduser().is_file():
        raise UsageError(f"There is no index {config.index}: leave --config.index out to make one.")
    return config_lib.freeze(SearchSettings, config, data=subject.check(config))


def _read(path: str) -> image_decoding.EncodedImage:
    try:
        image = image_decoding.EncodedImage(
            image_decoding.read_file(pathlib.Path(path).expanduser())
        )
        image.decode()
        return image
    except image_decoding.BadImageError as error:
        raise UsageError(
            f"{path} cannot be read: {error}. Give an image by --config.query."
        ) from None


def _embed(encoder: encoders.Encoder, image: image_decoding.EncodedImage) -> np.ndarray:
    return encoder.embed(host_crops.center_crop(image, encoder.image_size)[None])


def _open_index(settings: SearchSettings, opened: subject.Opened) -> index_lib.Index:
    """The index that is given, or one of all images that can be used."""
    if settings.index:
        return index_lib.Index.load(settings.index, opened.encoder)
    known = subject.encode(opened, settings.data, settings.batch_size)
    index = index_lib.Index(opened.encoder)
    index.add_features(known.found.features, known.names)
    return index


def _result(
    config: Any, opened: subject.Opened, index: index_lib.Index, hits: index_lib.Hits, start: float
) -> dict[str, Any]:
    return {
        "task": "search",
        "files": [TABLE, INDEX],
        "data": {**opened.source._asdict(), "split": opened.split},
        "num_images": {"searched": len(index)},
        "summary": [
            f"The {len(hits.names[0])} of {len(index):,} images that are most like {config.query}, "
            f"by {opened.encoder.identity['path']}."
        ],
        "checkpoint": opened.encoder.identity,
        "config": config.to_dict(),
        "versions": run_folder.versions(),
        "seconds": round(time.monotonic() - start, 2),
    }


def _write(
    workdir: pathlib.Path,
    opened: subject.Opened,
    index: index_lib.Index,
    hits: index_lib.Hits,
    result: dict[str, Any],
    query: image_decoding.EncodedImage,
) -> None:
    with contextlib.ExitStack() as stack:
        part = stack.enter_context(files.whole(workdir / TABLE))
        with files.writing(workdir / TABLE):
            part.write_text(_table(hits), encoding="utf-8")
        curation_pictures.write_search(
            workdir / "gallery", opened.source, opened.data, hits, query.decode()
        )
        result_folder.write(workdir, result)
    index.save(workdir / INDEX)


def _table(hits: index_lib.Hits) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["rank", "file", "similarity"])
    for rank, (name, alike) in enumerate(zip(hits.names[0], hits.similarity[0], strict=True), 1):
        rows.writerow([rank, spreadsheet.cell(name), f"{alike:.6f}"])
    return text.getvalue()
