"""Sets of TFDS that know something of every pixel: labels in a second image, or depth in meters.

Labels are those of the only other image of one channel, such as ``segmentation_mask`` of
oxford_iiit_pet; depth is the feature ``depth``, as of nyu_depth_v2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets, image_formats, pixel_targets, tfds_source

UsageError = config_lib.UsageError
BadImageError = image_formats.BadImageError

PREFIX = "tfds:"
DEPTH = "depth"


def load_masks(name: str, split: str, *, data_dir: str, num_classes: int) -> datasets.RecordDataset:
    """Images with labels of pixels, `pixel_targets.IGNORED` where none counts.

    Args:
      name: of a prepared set.
      split: its name, or a TFDS split expression.
      data_dir: TFDS's folder; empty: as of `tfds_source.open_set`.
      num_classes: labels are below it.

    Raises:
      UsageError: the set is not prepared, or has no image of labels, or several.
    """
    tfds_set = tfds_source.open_set(name, data_dir)
    shapes = {key: feature.shape for key, feature in tfds_set.builder.info.features.items()}
    masks = [k for k, s in shapes.items() if k != "image" and len(s or ()) == 3 and s[-1] == 1]
    if len(masks) != 1:
        raise UsageError(
            f"{name} has {len(masks)} images of one channel besides its pictures, where one holds "
            f"the labels: its features are {list(shapes)}."
        )

    def target(feature: Any) -> np.ndarray:
        return pixel_targets.parse_labels(feature.bytes_list.value[0], num_classes=num_classes)

    return _load(tfds_set, split, masks[0], target)


def load_depths(name: str, split: str, *, data_dir: str) -> datasets.RecordDataset:
    """Images with depth in meters; arguments and errors as of `load_masks`."""
    tfds_set = tfds_source.open_set(name, data_dir)
    features = tfds_set.builder.info.features
    shape = features[DEPTH].shape if DEPTH in features else ()
    if len(shape or ()) not in (2, 3) or None in shape or (*shape, 1)[2] != 1:
        raise UsageError(f"{name} has no 'depth' of a known size: its features are {[*features]}.")

    def target(feature: Any) -> np.ndarray:
        values = np.asarray(feature.float_list.value, np.float32)
        if values.size != np.prod(shape):
            raise BadImageError(
                f"depth has {values.size:,} numbers, not {' x '.join(map(str, shape))}"
            )
        return pixel_targets.require_depth(values.reshape(shape[:2]))

    return _load(tfds_set, split, DEPTH, target)


def _load(
    tfds_set: tfds_source.Set, split: str, key: str, target: Callable[[Any], np.ndarray]
) -> datasets.RecordDataset:
    records = _Records(tfds_source.Records(tfds_set, split), key, target)
    about = f"{split} of {tfds_set.name} of TFDS: {len(records):,} images, targets in '{key}'."
    return datasets.RecordDataset(records, len(records), 0, about=about)


class _Records:
    """Records with what is known of their pixels."""

    def __init__(self, records: tfds_source.Records, key: str, target: Callable[[Any], np.ndarray]):
        self._records, self._key, self._target = records, key, target

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> tuple[bytes, int]:
        """The image's file, and -1."""
        return self._records.read(index)[0], -1

    def target(self, index: int) -> np.ndarray:
        """[H, W] labels or depth.

        Raises:
          BadImageError: it is damaged, or means nothing.
        """
        feature = self._records.features(index).get(self._key)
        if feature is None:
            raise BadImageError(f"has no '{self._key}'")
        return self._target(feature)

    def label(self, index: int) -> int:
        """-1."""
        return -1

    def file_name(self, index: int) -> str:
        """The name of the image's file, or empty."""
        return self._records.file_name(index)

    def name(self, index: int) -> str:
        """What to call the image in a message."""
        return self._records.name(index)
