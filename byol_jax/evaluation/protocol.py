"""What is measured, and on which images: an encoder, its splits, those held out to choose on.

Shapes: N images of a split.
"""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import agreement, datasets, eval_loader, gray, label_table
from byol_jax.evaluation import features as features_lib
from byol_jax.evaluation import settings as settings_lib
from byol_jax.workdir import console

UsageError = config_lib.UsageError
FOLDERS = label_table.FOLDERS

# data.decode: whether evaluation crops come from large JPEGs decoded smaller, as training views do.
DECODE = {"full": False, "reduced": True}
VALIDATION_IMAGES = 10_000  # held out at most, about as many as the paper holds out of ImageNet


class EvalSetup(NamedTuple):
    """What is measured, and on what.

    Attributes:
      encoder: frozen.
      source: of the images.
      train: labeled images to learn from and to choose on.
      num_validation: so many of them, the last, are a validation split; 0: some are held out.
      test: labeled images that are evaluated, once.
      splits: their names.
    """

    encoder: encoders.Encoder
    source: features_lib.Source
    train: datasets.Dataset
    num_validation: int
    test: datasets.Dataset
    splits: dict[str, str]


class Given(NamedTuple):
    """What a caller hands over in place of what a config names.

    Attributes:
      encoder: None: that of ``checkpoint``.
      splits: images by the name of a split.
    """

    encoder: encoders.Encoder | None = None
    splits: Mapping[str, datasets.Dataset] = types.MappingProxyType({})


NOTHING = Given()


def load_encoder(checkpoint: str, given: Given) -> encoders.Encoder:
    """The encoder that was handed over, or else that of a checkpoint."""
    return given.encoder or encoders.load_encoder(checkpoint)


def open_setup(
    settings: settings_lib.EvalSettings, *, or_multi_labels: bool = False, given: Given = NOTHING
) -> EvalSetup:
    """Loads the encoder of ``checkpoint`` and opens the splits of ``data``.

    Args:
      settings: of the task.
      or_tags: whether images may have several labels (`datasets.multi_labels`).
      given: what the caller hands over.

    Raises:
      UsageError: a checkpoint that cannot be used, a split without labels, splits of other classes.
    """
    encoder, data = load_encoder(settings.checkpoint, given), settings.data
    source, train_name, eval_name = find_images(data, encoder)
    names = {
        "train_split": train_name,
        "validation_split": data.validation_split,
        "eval_split": eval_name,
    }
    wanted = [name for name in names.values() if name]
    splits = load_splits(encoder, source, wanted, decode=data.decode, given=given.splits)
    train, test, validation = splits[0], splits[-1], splits[1] if len(splits) > 2 else None
    _require_labels(train, names["train_split"], or_multi_labels)
    _require_same_classes(train, test, names["eval_split"])
    if validation is None:
        return EvalSetup(encoder, source, train, 0, test, names)
    _require_same_classes(train, validation, names["validation_split"])
    both = datasets.join(train, validation)
    return EvalSetup(encoder, source, both, validation.num_images, test, names)


def find_images(
    data: settings_lib.EvalData, encoder: encoders.Encoder
) -> tuple[features_lib.Source, str, str]:
    """The set, and the names of its splits to learn from and to evaluate."""
    given = features_lib.Source(data.name, data.dir, data.labels)
    source = features_lib.find_source(given, encoder)
    train, test = (
        features_lib.find_split(getattr(data, key), given, encoder, key)
        for key in ("train_split", "eval_split")
    )
    return source, train, test


def load_splits(
    encoder: encoders.Encoder,
    source: features_lib.Source,
    names: Sequence[str],
    *,
    decode: str,
    given: Mapping[str, datasets.Dataset] = types.MappingProxyType({}),
) -> list[datasets.Dataset]:
    """Opens splits of one set, and prints what there is to know; see `datasets.load`.

    Grayscale of more than 8 bits is read as in the encoder's run, or, if the set is another one,
    as measured on the first of the splits.

    Args:
      encoder: that is to be measured.
      source: of the images.
      names: of the splits.
      decode: a key of `DECODE`.
      given: splits that need not be opened, by name.
    """
    is_reduced = config_lib.lookup(DECODE, decode, key="data.decode")
    splits = [
        given[name]
        if name in given
        else datasets.load(source.name, name, data_dir=source.dir, labels=source.labels or FOLDERS)
        for name in names
    ]
    for name, split in zip(names, splits, strict=True):
        agreement.require_same_data(f"{source.name} ({name})", split)
        if split.about:
            console.say(split.about)
    trained = encoder.config.data if encoder.config else None
    if trained and (source.name, source.dir) != (trained.name, trained.dir):
        ranges = eval_loader.grey_ranges(splits[0])
    else:
        ranges = encoder.card.grey_ranges
    return [_decoded(split, ranges, is_reduced) for split in splits]


def _decoded(
    data: datasets.Dataset, ranges: gray.Ranges | None, is_reduced: bool
) -> datasets.Dataset:
    if isinstance(data, datasets.ArrayDataset):
        return data
    return dataclasses.replace(data, grey_ranges=ranges, is_reduced=is_reduced)


def class_names(setup: EvalSetup) -> list[str]:
    """What the classes of a set are called."""
    return datasets.class_names(setup.train, setup.source.name, setup.source.dir)


def split_train(
    setup: EvalSetup, indices: np.ndarray, fraction: float, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which of the usable training images to choose on, and which to learn from while choosing.

    Args:
      setup: knows of a validation split, if there is one.
      indices: [N] of the usable images in ``setup.train``.
      fraction: to hold out if there is none.
      seed: decides which.

    Returns:
      Two arrays of positions in ``indices``.
    """
    if not setup.num_validation:
        return hold_out(len(indices), fraction, seed=seed)
    is_validation = indices >= setup.train.num_images - setup.num_validation
    return np.flatnonzero(is_validation), np.flatnonzero(~is_validation)


def _require_labels(data: datasets.Dataset, split: str, or_multi_labels: bool) -> None:
    if data.num_labels and not or_multi_labels:
        raise UsageError(
            f"The images of the split '{split}' have several labels each, which only "
            "configs/transfer.py measures."
        )
    if not data.num_classes and not data.num_labels:
        raise UsageError(
            f"The split '{split}' has no labels to learn from: give another set by "
            "--config.data.name and .dir. What can be said without labels, configs/knn.py says."
        )


def _require_same_classes(train: datasets.Dataset, other: datasets.Dataset, split: str) -> None:
    ours, theirs = (data.num_classes or data.num_labels for data in (train, other))
    if ours != theirs:
        raise UsageError(
            f"The split '{split}' has {theirs} classes, the training split {ours}: give splits of "
            "one set."
        )


def labeled(found: features_lib.Features, split: str) -> features_lib.Features:
    """Those of the images that have labels.

    Args:
      found: all images of a split.
      split: what to call it in a message.

    Raises:
      UsageError: none has.
    """
    has_label = found.labels >= 0
    if not has_label.any():
        raise UsageError(
            f"None of the {len(has_label):,} images of the {split} split has a label: give another "
            "split or set. What can be said without labels, configs/knn.py says."
        )
    return found if has_label.all() else found.at(has_label)


def hold_out(count: int, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of N images are for validation, and which are not, both in order.

    Args:
      count: N, 3 at least.
      fraction: to hold out, at most `VALIDATION_IMAGES`; at least one image unless it is 0.
      seed: decides which.

    Raises:
      UsageError: less than 3 images.
    """
    if count < 3:
        raise UsageError(f"The training split has {count} usable images; 3 are the least.")
    number = min(max(1, round(fraction * count)), count - 2, VALIDATION_IMAGES) if fraction else 0
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[:number]), np.sort(order[number:])


def count_left_out(
    splits: Sequence[datasets.Dataset], found: Sequence[features_lib.Features]
) -> dict[str, int]:
    """How many images of splits are not counted: bad ones, and those without a label if any is.

    Args:
      splits: that were to be measured.
      found: what could be used of each.
    """
    labels = [features.labels for features in found]
    bad = sum(split.num_images for split in splits) - sum(map(len, labels))
    unlabeled = sum(int((x < 0).sum()) for x in labels)
    return {"bad": bad} | ({"unlabeled": unlabeled} if unlabeled else {})
