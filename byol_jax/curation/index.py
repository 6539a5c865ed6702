"""Finds the images that are most like others, exactly.

Shapes: N images of the index, M queries, F embedding size, k hits.
"""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.curation import neighbors
from byol_jax.workdir import files

UsageError = config_lib.UsageError

FORMAT = "byol_jax index 1"


class Hits(NamedTuple):
    """What was found, best first.

    Attributes:
      names: [M][k].
      similarity: float32 [M, k], cosine of the features.
      indices: int32 [M, k], where in the index they are.
    """

    names: list[list[str]]
    similarity: np.ndarray
    indices: np.ndarray


class Index:
    """Names and features of images, and the encoder that these belong to.

    Args:
      encoder: whose features it holds.

    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    >>> index = Index(encoder)
    >>> index.add(images, names=list("abcde"))
    >>> index.search(images[2], k=3).names[0][0]
    'c'
    """

    def __init__(self, encoder: encoders.Encoder):
        self._encoder = encoder
        self._features = np.empty((0, encoder.embedding_size), np.float32)
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def add(self, images: Any, names: Sequence[str]) -> None:
        """Adds images [n, H, W, 3], as `Encoder.embed` takes them, under names.

        Raises:
          ValueError: other images, or not as many names.
        """
        self.add_features(self._encoder.embed(images), names)

    def add_features(self, features: np.ndarray, names: Sequence[str]) -> None:
        """Adds features [n, F] of the index's encoder.

        Raises:
          ValueError: features of another size or that are no numbers, or not as many names.
        """
        features = np.asarray(features, np.float32)
        if features.shape != (len(names), self._encoder.embedding_size):
            raise ValueError(
                f"{len(names)} names and features of shape {list(features.shape)} do not fit: "
                f"features must be [{len(names)}, {self._encoder.embedding_size}]."
            )
        if not np.isfinite(features).all():
            raise ValueError("Features must be numbers: some are NaN or infinite.")
        self._features = np.concatenate([self._features, neighbors.unit(features)])
        self._names += [str(name) for name in names]

    def search(self, images: Any, k: int = 10) -> Hits:
        """The k images of the index that are most like each of some.

        Args:
          images: [M, H, W, 3], as `Encoder.embed` takes them, or one [H, W, 3].
          k: at most as many as the index holds.

        Raises:
          ValueError: other images, or a k out of range.
        """
        images = np.asarray(images)
        images = images[None] if images.ndim == 3 else images
        return self.search_features(self._encoder.embed(images), k)

    def search_features(self, features: np.ndarray, k: int = 10) -> Hits:
        """`search` by features [M, F] of the index's encoder."""
        if not 1 <= k <= len(self):
            raise UsageError(f"k={k} must be from 1 to {len(self):,}, the images in the index.")
        queries = neighbors.unit(features)
        which, similarity = neighbors.nearest(self._features, k, queries=queries, title="search")
        return Hits([[self._names[i] for i in row] for row in which], similarity, which)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an .npz file of arrays, without pickle, whole or not at all."""
        path = pathlib.Path(path).expanduser()
        arrays = {
            "format": np.array(FORMAT),
            "encoder_sha256": np.array(self._encoder.identity["sha256"]),
            "encoder_path": np.array(str(self._encoder.identity["path"])),
            "features": self._features,
            "names": np.array(self._names, dtype=np.str_),
        }
        with files.whole(path) as part, files.writing(path), part.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: encoders.Encoder) -> "Index":
        """Reads an index of this encoder.

        Raises:
          UsageError: there is none, it is damaged, or it is another encoder's.
        """
        path = pathlib.Path(path).expanduser()
        try:
            with files.open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
            if str(found["format"]) != FORMAT:
                raise ValueError(f"it is of format {str(found['format'])!r}, not {FORMAT!r}")
            features, names = found["features"], [str(name) for name in found["names"]]
            sha256, of = str(found["encoder_sha256"]), str(found["encoder_path"])
            index = cls(encoder)
            if sha256 == encoder.identity["sha256"]:
                index.add_features(features, names)
                return index
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"Cannot read the index {path}: {reason}. Make it again.") from None
        raise UsageError(
            f"The index {path} is of another encoder ({of}, sha256 {sha256[:12]}) than "
            f"{encoder.identity['path']} ({encoder.identity['sha256'][:12]}): load it with its "
            "own, or make it again."
        )
