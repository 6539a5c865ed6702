"""Where images come from: the embedded set, or any TFDS image set that fits in memory.

A split is a pair of arrays: images [N, H, W, 3] uint8 and labels [N] int32.
"""

import os
from typing import NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax import patterns

UsageError = config_lib.UsageError


class Images(NamedTuple):
    """One split in memory.

    Attributes:
      images: [N, H, W, 3] uint8, RGB.
      labels: [N] int32 in [0, num_classes).
      num_classes: number of classes of the data set, also of those absent from this split.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int


# TFDS names of sets that fit in memory and hold images of one size. Others of that kind work too,
# as 'tfds:<name>'; these are the ones that an error message should suggest.
TFDS_SETS = ("cifar10", "cifar100", "svhn_cropped", "mnist", "fashion_mnist", "stl10")
DATASETS = ("patterns", *TFDS_SETS)


def load(name: str, split: str, *, data_dir: str | None = None) -> Images:
    """Loads one split into memory.

    Args:
      name: a name in `DATASETS`, or ``tfds:NAME`` for another TFDS image set.
      split: ``train``, ``validation`` or ``test`` for the embedded set, else a TFDS split
        expression such as ``train[:90%]``.
      data_dir: TFDS's folder of prepared sets; None means $TFDS_DATA_DIR or TFDS's default.

    Raises:
      UsageError: unknown set or split, a set that is not prepared, images of several sizes,
        labels out of range.
    """
    if name == "patterns":
        images = Images(*patterns.load(split), len(patterns.CLASS_NAMES))
    elif name in TFDS_SETS:
        images = _load_tfds(name, split, data_dir)
    elif name.startswith("tfds:"):
        images = _load_tfds(name.removeprefix("tfds:"), split, data_dir)
    else:
        hint = config_lib.suggest(name, DATASETS)
        raise UsageError(f"Unknown data.name: '{name}'.{hint} Other TFDS sets: tfds:<name>.")
    _check(images, f"{name} ({split})")
    return images


def _load_tfds(name: str, split: str, data_dir: str | None) -> Images:
    import tensorflow_datasets as tfds  # seconds to import; the embedded set needs none of it

    builder = _tfds_builder(tfds, name, data_dir)
    try:
        source = builder.as_data_source(split)
    except (ValueError, KeyError) as error:
        valid = ", ".join(builder.info.splits)
        raise UsageError(f"{name} has no split '{split}'. Valid: {valid}. ({error})") from None
    features = builder.info.features
    if "image" not in features or "label" not in features:
        raise UsageError(f"{name} is not a labelled image set: its features are {list(features)}.")
    examples = [(example["image"], example["label"]) for example in source]
    return Images(
        _stack([image for image, _ in examples], name),
        np.array([label for _, label in examples], np.int32),
        features["label"].num_classes,
    )


def _tfds_builder(tfds, name: str, data_dir: str | None):
    where = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        builder = tfds.builder(name, data_dir=os.path.expanduser(where))
    except tfds.core.registered.DatasetNotFoundError:
        hint = config_lib.suggest(name, tfds.list_builders(with_community_datasets=False))
        raise UsageError(f"TFDS has no set '{name}'.{hint.split(' Valid:')[0]}") from None
    if not builder.info.splits or str(builder.info.file_format.value) != "array_record":
        raise UsageError(
            f"{name} is not prepared as ArrayRecord in {where}. To download and prepare it:\n"
            "  pip install '.[prepare]'\n"
            f"  tfds build {name} --file_format=array_record --data_dir={where}\n"
            "If it is prepared elsewhere, set TFDS_DATA_DIR or --config.data.dir."
        )
    return builder


def _stack(images: list[np.ndarray], name: str) -> np.ndarray:
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise UsageError(
            f"The images of {name} come in {len(shapes)} sizes, such as {sorted(shapes)[:3]}; "
            "only sets of one size can be held in memory so far."
        )
    stacked = np.stack(images)
    return np.repeat(stacked, 3, axis=-1) if stacked.shape[-1] == 1 else stacked


def _check(data: Images, what: str) -> None:
    images, labels, num_classes = data
    if not len(images):
        raise UsageError(f"{what} holds no image.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise UsageError(
            f"{what}: images must be uint8 [N, H, W, 3], not {images.dtype} {images.shape}."
        )
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(labels) != len(images) or bad.size:
        example = f", such as {labels[bad[0]]} at image {bad[0]}" if bad.size else ""
        raise UsageError(
            f"{what}: {len(images)} images need as many labels in [0, {num_classes}); "
            f"there are {len(labels)}, {bad.size} of them out of range{example}."
        )
