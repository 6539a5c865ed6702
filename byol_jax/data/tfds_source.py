"""TFDS image sets on disk, without TensorFlow: finds them, and reads their records.

A set is read from ArrayRecord files. One that was prepared as TFRecord, TFDS's default, has to be
converted once (`configs/convert.py`).
"""

import functools
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib

UsageError = config_lib.UsageError
NO_LABEL = -1

# What the reference calls the splits of ImageNet: it holds 10,000 training images out.
SPLIT_NAMES: Mapping[str, Mapping[str, str]] = {
    "imagenet2012": {
        "train": "train[10000:]",
        "valid": "train[:10000]",
        "train_and_valid": "train",
        "test": "validation",
    }
}


class Set(NamedTuple):
    """A prepared set.

    Attributes:
      builder: of TFDS; its info holds splits and features.
      name: as the user gave it.
    """

    builder: Any
    name: str

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without labels."""
        features = self.builder.info.features
        return getattr(features["label"], "num_classes", 0) if "label" in features else 0

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; empty without labels."""
        features = self.builder.info.features
        return list(getattr(features["label"], "names", ())) if "label" in features else []

    @property
    def num_labels(self) -> int:
        """Number of classes of a set like VOC, whose images may have several; 0 of all others."""
        features = self.builder.info.features
        if "label" in features or "labels" not in features:
            return 0
        return getattr(getattr(features["labels"], "feature", None), "num_classes", 0) or 0

    @property
    def image_shape(self) -> tuple[int | None, ...]:
        """(height, width, channels), None for what differs between images."""
        return self.builder.info.features["image"].shape


class Records:
    """One split of a set, record by record, images still encoded.

    Args:
      tfds_set: what `open_set` gives.
      split: a TFDS split expression such as ``train[:90%]``, or a name in `SPLIT_NAMES`.

    Raises:
      UsageError: no such split, or an empty one.
    """

    def __init__(self, tfds_set: Set, split: str):
        self._source = _open_split(tfds_set, split)
        self._name = f"{tfds_set.name}/{split}"
        self._num_labels, self._num_classes = tfds_set.num_labels, tfds_set.num_classes or 0
        has_difficult = "labels_no_difficult" in tfds_set.builder.info.features
        self._counted = "labels_no_difficult" if has_difficult else "labels"

    def __len__(self) -> int:
        return len(self._source)

    def features(self, index: int) -> Any:
        """What a record holds, by name, as messages of TensorFlow's."""
        # TFDS's own parser takes five times as long, for features of any kind.
        return _example_type().FromString(self._source.data_source[index]).features.feature

    def read(self, index: int) -> tuple[bytes, int]:
        """The image's file, and its label (-1 if there is none)."""
        features = self.features(index)
        return features["image"].bytes_list.value[0], self._label(index, features)

    def label(self, index: int) -> int:
        """The label of an image, -1 if it has none."""
        return self._label(index, self.features(index))

    def _label(self, index: int, features: Any) -> int:
        values = features["label"].int64_list.value if "label" in features else ()
        label = values[0] if values and self._num_classes else NO_LABEL
        if label != NO_LABEL and not 0 <= label < self._num_classes:
            raise UsageError(
                f"{self._name}[{index}] has the label {label}, but labels of the set are in "
                f"[0, {self._num_classes}), or -1 for none. Prepare it anew."
            )
        return label

    def file_name(self, index: int) -> str:
        """The name of an image's file, or empty if the set does not know it."""
        features = self.features(index)
        names = features["file_name"].bytes_list.value if "file_name" in features else ()
        return names[0].decode(errors="replace") if names else ""

    def multi_labels(self, index: int) -> np.ndarray:
        """int8 [T] for each class: 1 the image has it, 0 it has not.

        -1: all that it has of it is difficult to see, which VOC's evaluation does not count.
        """
        features = self.features(index)
        multi_labels = np.zeros(self._num_labels, np.int8)
        multi_labels[list(features["labels"].int64_list.value)] = -1
        multi_labels[list(features[self._counted].int64_list.value)] = 1
        return multi_labels

    def name(self, index: int) -> str:
        """What to call an image in a message: its file name if the set knows it."""
        name = self.file_name(index)
        return f"{self._name}[{index}]" + (f" ({name})" if name else "")


@functools.cache
def _example_type() -> Any:
    """TensorFlow's message for a record, which cannot be sent to a worker process."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example


def _open_split(tfds_set: Set, split: str) -> Any:
    builder, name = tfds_set
    names = SPLIT_NAMES.get(name, {})
    try:
        source = builder.as_data_source(names.get(split, split))
    except (ValueError, KeyError) as error:
        valid = ", ".join(sorted({*builder.info.splits, *names}))
        raise UsageError(f"{name} has no split '{split}'. Valid: {valid}. ({error})") from None
    if not len(source):
        raise UsageError(f"The split '{split}' of {name} holds no image.")
    return source


def open_set(name: str, data_dir: str | None) -> Set:
    """Opens a prepared set.

    Args:
      name: of TFDS, such as ``imagenette/160px-v2``, or any folder of a set below ``data_dir``.
      data_dir: TFDS's folder of prepared sets; empty or None: $TFDS_DATA_DIR, or TFDS's default.

    Raises:
      UsageError: no such set, not prepared, prepared as TFRecord, or not an image set.
    """
    where, builder = _find(name, data_dir)
    if builder.info.file_format and str(builder.info.file_format.value) == "tfrecord":
        raise UsageError(
            f"{name} in {where} is prepared as TFRecord, which has no random access. "
            "To convert it, once and without TensorFlow:\n"
            "  python -m byol_jax.main_loop --config=configs/convert.py "
            f"--config.data.name={name} --config.data.dir={shlex.quote(str(where))}"
        )
    if str(builder.info.file_format.value) != "array_record":
        raise UsageError(f"{name} in {where} is no ArrayRecord set but {builder.info.file_format}.")
    if "image" not in builder.info.features:
        features = list(builder.info.features)
        raise UsageError(f"{name} is not an image set: its features are {features}.")
    return Set(builder, name)


def find_folder(name: str, data_dir: str | None) -> pathlib.Path:
    """The folder that holds a prepared set's files, of whatever format.

    Raises:
      UsageError: no such set, or not prepared.
    """
    return pathlib.Path(_find(name, data_dir)[1].data_dir)


def _find(name: str, data_dir: str | None) -> tuple[str, Any]:
    import tensorflow_datasets as tfds  # seconds to import; the embedded set needs none of it
    from google.protobuf import json_format

    where = os.path.expanduser(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    )
    config_lib.require_local(where, flag="TFDS_DATA_DIR")
    try:
        builder = tfds.builder(name, data_dir=where)
    except tfds.core.registered.DatasetNotFoundError:
        hint = config_lib.suggest(name, tfds.list_builders(with_community_datasets=False))
        hint = hint.split(" Valid:")[0]
        raise UsageError(f"TFDS has no set '{name}', and {where} neither.{hint}") from None
    except json_format.ParseError as error:
        raise UsageError(
            f"A dataset_info.json of '{name}' in {where} is damaged ({error}). Get it once more "
            "from where it came, or prepare the set anew."
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(
            f"TFDS cannot open '{name}': {reason}. Either this is no name of a set, or its "
            f"dataset_info.json in {where} does not describe one."
        ) from None
    if not builder.info.splits:
        raise UsageError(
            f"{name} is not prepared in {where}. To download and prepare it:\n"
            "  pip install '.[prepare]'\n"
            f"  tfds build {name} --file_format=array_record --data_dir={where}\n"
            "If it is prepared elsewhere, set TFDS_DATA_DIR or --config.data.dir."
        )
    return where, builder


def load(tfds_set: Set, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split [N, H, W, 3] uint8, which must have one size, and labels [N]."""
    examples = list(_open_split(tfds_set, split))
    pixels = np.stack([example["image"] for example in examples])
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    return pixels, np.array([example["label"] for example in examples], np.int32)
