"""The task that writes features for use elsewhere: NumPy, Parquet or CSV.

Shapes: N images, F embedding size.
"""

import contextlib
import csv
import dataclasses
import pathlib
import tempfile
import time
import zipfile
from collections.abc import Callable
from typing import IO, Any, Protocol

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import eval_loader
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import protocol, result_folder
from byol_jax.evaluation import settings as settings_lib
from byol_jax.models import resnet
from byol_jax.report import spreadsheet
from byol_jax.workdir import console, files, run_folder

UsageError = config_lib.UsageError


@dataclasses.dataclass(frozen=True)
class EmbedSettings:
    """Settings of configs/embed.py."""

    checkpoint: str
    layer: str
    format: str
    batch_size: int
    data: settings_lib.SplitData


def run(config: Any, workdir: pathlib.Path) -> None:
    """Writes ``embeddings.<format>`` and ``result.json``, which says what they are of.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, more bad images than
        may be, or a workdir that cannot be written to.
    """
    start = time.monotonic()
    settings = resolve(config)
    make_writer = FORMATS[settings.format]
    encoder = _of_layer(encoders.load_encoder(settings.checkpoint), settings.layer)
    given = features_lib.Source(settings.data.name, settings.data.dir)
    source = features_lib.find_source(given, encoder)
    split = _find_split(settings.data.split, encoder, source)
    (data,) = protocol.load_splits(encoder, source, [split], decode=settings.data.decode)
    path = workdir / f"embeddings.{settings.format}"
    limit = eval_loader.BadLimit([data], settings.data.max_bad_share)
    chunks = features_lib.chunks(
        encoder, data, batch_size=settings.batch_size, bad=limit, title="embed"
    )
    with result_folder.opened(workdir, path.name), files.whole(path) as part:
        count = 0
        with make_writer(part, encoder.embedding_size) as writer:
            for chunk in chunks:
                count += len(chunk.labels)
                writer.write(chunk, features_lib.names(source, data, chunk.indices))
            if not count:
                raise UsageError(f"None of the {data.num_images:,} images of {split} can be used.")
        result = {
            "task": "embed",
            "file": path.name,
            "data": {**source._asdict(), "split": split},
            "num_images": {"embedded": count, "bad": data.num_images - count},
            "layer": settings.layer,
            "embedding_size": encoder.embedding_size,
            "checkpoint": encoder.identity,
            "config": config.to_dict(),
            "versions": run_folder.versions(),
            "seconds": round(time.monotonic() - start, 2),
        }
        with files.writing(path):
            files.sync(part)  # what may fail yet fails before the result is written
        result_folder.write(workdir, result)
    console.say(
        f"{count:,} images of {source.name} ({split}), {data.num_images - count:,} bad ones left "
        f"out: {encoder.embedding_size} features each, by {encoder.identity['path']}\n"
        f"Written: {path} ({console.format_size(path.stat().st_size)})"
    )


def _of_layer(encoder: encoders.Encoder, layer: str) -> encoders.Encoder:
    """The encoder, or one whose features are the mean over the cells of an inner map."""
    if not layer:
        return encoder
    spec = resnet.ENCODERS[encoder.card.encoder]
    names = {f"group_{i}": i for i in range(len(spec.blocks))}
    return encoders.pooled(encoder, config_lib.lookup(names, layer, key="layer"))


def resolve(config: Any) -> EmbedSettings:
    """The settings of a config.

    Raises:
      UsageError: naming the key that is wrong and what it may be.
    """
    config_lib.lookup(FORMATS, config.format, key="format")
    config_lib.require_positive(config, "batch_size")
    settings_lib.require_bad_share(config)
    return config_lib.freeze(EmbedSettings, config)


def _find_split(given: str, encoder: encoders.Encoder, source: features_lib.Source) -> str:
    """The split to embed, if the config names none."""
    trained = encoder.config.data if encoder.config else None
    if given or not trained:
        return given or ("all" if source.name == "folder" else "test")
    is_other_folder = source.name == "folder" and source[:2] != (trained.name, trained.dir)
    return "all" if is_other_folder else trained.eval_split


class Writer(Protocol):
    """Takes features chunk by chunk; the file is whole when the block ends without an error."""

    def write(self, chunk: features_lib.Features, names: list[str]) -> None:
        """Adds images."""
        ...


class _Npz:
    """Arrays ``features`` [N, F], ``labels`` [N] and ``names`` [N], not compressed.

    Features wait in a file of their own, since the head of an array says how many rows it has.
    """

    def __init__(self, path: pathlib.Path, size: int):
        self._path, self._size = path, size
        self._labels: list[np.ndarray] = []
        self._names: list[str] = []

    def __enter__(self) -> "_Npz":
        with files.writing(self._path):
            self._waiting = tempfile.TemporaryFile(dir=self._path.parent)  # goes by itself
        return self

    def write(self, chunk: features_lib.Features, names: list[str]) -> None:
        with files.writing(self._path):
            self._waiting.write(np.ascontiguousarray(chunk.features, "<f4").tobytes())
        self._labels.append(chunk.labels)
        self._names += names

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                with files.writing(self._path):
                    self._finish()
        finally:
            with contextlib.suppress(OSError):  # what is still in its buffer is not needed
                self._waiting.close()

    def _finish(self) -> None:
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_STORED) as archive:
            with archive.open("features.npy", "w", force_zip64=True) as file:
                shape = (len(self._names), self._size)
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                self._waiting.seek(0)
                while rows := self._waiting.read(1 << 24):
                    file.write(rows)
            _add_array(archive, "labels.npy", np.concatenate(self._labels))
            _add_array(archive, "names.npy", np.array(self._names))


def _add_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(name, "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


class _Csv:
    """Columns name, label, f0, f1, ...; a number has as many digits as give it back exactly."""

    def __init__(self, path: pathlib.Path, size: int):
        self._path, self._size = path, size

    def __enter__(self) -> "_Csv":
        with files.writing(self._path):
            self._file: IO[str] = self._path.open("w", encoding="utf-8", newline="")
            self._rows = csv.writer(self._file)
            self._rows.writerow(["name", "label", *(f"f{i}" for i in range(self._size))])
        return self

    def write(self, chunk: features_lib.Features, names: list[str]) -> None:
        with files.writing(self._path):
            for name, label, row in zip(names, chunk.labels, chunk.features, strict=True):
                self._rows.writerow([spreadsheet.cell(name), int(label), *map(str, row)])

    def __exit__(self, kind: Any, *_: Any) -> None:
        with contextlib.suppress(OSError) if kind else files.writing(self._path):
            self._file.close()


class _Parquet:
    """Columns name, label and features, a list of F numbers a row."""

    def __init__(self, path: pathlib.Path, size: int):
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UsageError(
                "--config.format=parquet needs pyarrow: pip install pyarrow, or take npz or csv."
            ) from None
        self._arrow = pyarrow
        self._path, self._size = path, size
        self._schema = pyarrow.schema(
            {
                "name": pyarrow.string(),
                "label": pyarrow.int32(),
                "features": pyarrow.list_(pyarrow.float32(), size),
            }
        )

    def __enter__(self) -> "_Parquet":
        with files.writing(self._path):
            self._writer = self._arrow.parquet.ParquetWriter(self._path, self._schema)
        return self

    def write(self, chunk: features_lib.Features, names: list[str]) -> None:
        flat = self._arrow.array(chunk.features.ravel())
        rows = self._arrow.FixedSizeListArray.from_arrays(flat, self._size)
        columns = [self._arrow.array(names), self._arrow.array(chunk.labels), rows]
        with files.writing(self._path):
            self._writer.write_table(self._arrow.table(columns, schema=self._schema))

    def __exit__(self, kind: Any, *_: Any) -> None:
        with contextlib.suppress(OSError) if kind else files.writing(self._path):
            self._writer.close()


FORMATS: dict[str, Callable[[pathlib.Path, int], Any]] = {
    "npz": _Npz,
    "parquet": _Parquet,
    "csv": _Csv,
}
