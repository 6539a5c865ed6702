"""The images of one split and what an encoder makes of them, under their names.

Shapes: N images that can be used, F embedding size.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, eval_loader, image_folder
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import protocol
from byol_jax.evaluation import settings as settings_lib

UsageError = config_lib.UsageError


@dataclasses.dataclass(frozen=True)
class Data(settings_lib.SplitData):
    """Which images, and where their labels are from."""

    labels: str


class Opened(NamedTuple):
    """Images that are about to be encoded.

    Attributes:
      encoder: that is going to.
      source: of the images.
      split: its name.
      data: the images.
    """

    encoder: encoders.Encoder
    source: features_lib.Source
    split: str
    data: datasets.Dataset


class Subject(NamedTuple):
    """Images and their features.

    Attributes:
      opened: where they are from.
      found: features, labels, and where in the split each image is.
      names: [N] of files below their folder, or numbers.
      bad: name and reason of images that cannot be used.
    """

    opened: Opened
    found: features_lib.Features
    names: Sequence[str]
    bad: dict[str, str]


def check(config: Any) -> Data:
    """The section ``data`` of a config.

    Raises:
      UsageError: naming the key that is wrong.
    """
    config_lib.require_positive(config, "batch_size")
    settings_lib.require_bad_share(config)
    return config_lib.freeze(Data, config.data, prefix="data.")


def open_split(checkpoint: str, given: Data) -> Opened:
    """Loads an encoder and opens the images: all of a folder, else the split that is evaluated.

    Raises:
      UsageError: there is no encoder, no set, or no split.
    """
    encoder = encoders.load_encoder(checkpoint)
    source = features_lib.find_source(
        features_lib.Source(given.name, given.dir, given.labels), encoder
    )
    split = given.split or _usual_split(encoder, source)
    (data,) = protocol.load_splits(encoder, source, [split], decode=given.decode)
    return Opened(encoder, source, split, data)


def _usual_split(encoder: encoders.Encoder, source: features_lib.Source) -> str:
    """All images of a folder, unless it has splits; of other sets those that are evaluated."""
    if source.name == "folder":
        return next(iter(image_folder.find_splits(source.dir)), "all")
    return encoder.config.data.eval_split if encoder.config else "test"


def encode(opened: Opened, given: Data, batch_size: int) -> Subject:
    """Encodes every image once.

    Raises:
      UsageError: more images cannot be used than may be, or an encoder that gives no numbers.
    """
    encoder, source, _, data = opened
    limit = eval_loader.BadLimit([data], given.max_bad_share)
    found = features_lib.extract(encoder, data, batch_size=batch_size, bad=limit, title="encode")
    if not np.isfinite(found.features).all():
        raise UsageError(
            f"The encoder {encoder.identity['path']} gives no numbers (NaN or infinity) for some "
            "images: take another checkpoint."
        )
    missing = np.setdiff1d(np.arange(data.num_images), found.indices)
    bad = {
        name: limit.found.get(data.records.name(int(index)), "cannot be used")
        for name, index in zip(features_lib.names(source, data, missing), missing, strict=True)
    }
    return Subject(opened, found, features_lib.names(source, data, found.indices), bad)


def best_first(subject: Subject) -> np.ndarray:
    """Images int [N], those of the largest files first: a smaller copy has lost something."""
    data = subject.opened.data
    if subject.opened.source.name != "folder":
        return np.arange(len(subject.names))
    sizes = np.zeros(len(subject.names), np.int64)
    for row, index in enumerate(subject.found.indices):
        with contextlib.suppress(OSError):
            sizes[row] = os.stat(data.records.name(int(index))).st_size
    return np.argsort(-sizes, kind="stable")
