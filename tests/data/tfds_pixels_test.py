"""Sets of TFDS with labels and depth of every pixel, written here and read back."""

import io
import json

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from byol_jax.config import UsageError
from byol_jax.data import pillow_images, pixel_sets
from byol_jax.data.prepare import array_record
from tests.support import pixel_worlds

SCENES = [pixel_worlds.draw(number) for number in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    pairs = [(labels[..., None], depth.astype(np.float16)) for _, labels, depth in SCENES]
    mask = tfds.features.Image(shape=(None, None, 1))
    write(root, "drawn_masks", "segmentation_mask", mask, [labels for labels, _ in pairs])
    depth = tfds.features.Tensor(shape=(40, 48), dtype=np.float16)
    write(root, "drawn_depth", "depth", depth, [depth for _, depth in pairs])
    return root


def write(root, name, key, feature, targets):
    """A set of TFDS with one shard, written without TensorFlow."""
    picture = tfds.features.Image(shape=(None, None, 3))
    features = tfds.features.FeaturesDict({"image": picture, key: feature})
    top = root / name / "1.0.0"
    top.mkdir(parents=True)
    records = []
    for (image, *_), target in zip(SCENES, targets, strict=True):
        example = {"image": io.BytesIO(pillow_images.encode_png(image))}
        is_image = isinstance(feature, tfds.features.Image)
        example[key] = io.BytesIO(png(target[..., 0])) if is_image else target
        records.append(features.serialize_example(features.encode_example(example)))
    array_record.write_shard(top / f"{name}-train.array_record-00000-of-00001", records)
    features.save_config(top)
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split = {"name": "train", "filepathTemplate": template, "shardLengths": [str(len(records))]}
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (top / array_record.INFO).write_text(json.dumps(info))


def png(values):
    file = io.BytesIO()
    PIL.Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def test_labels_and_depth_are_those_that_were_written(folder):
    place = pixel_sets.Place(str(folder), num_classes=4)
    labels = pixel_sets.find(pixel_sets.LABELED, "tfds:drawn_masks")(place, "train")
    depths = pixel_sets.find(pixel_sets.DEPTHS, "tfds:drawn_depth")(place, "train")
    for number, (image, mask, depth) in enumerate(SCENES):
        found = pixel_sets.read_example(labels, number)
        np.testing.assert_array_equal(found.pixels, image)
        np.testing.assert_array_equal(found.target, mask)
        found = pixel_sets.read_example(depths, number)
        np.testing.assert_array_equal(found.target, depth.astype(np.float16))


def test_a_label_beyond_the_classes_is_a_bad_image(folder):
    place = pixel_sets.Place(str(folder), num_classes=1)
    data = pixel_sets.find(pixel_sets.LABELED, "tfds:drawn_masks")(place, "train")
    assert not list(pixel_sets.examples(data))


@pytest.mark.parametrize("sets, name, message", [
    (pixel_sets.LABELED, "tfds:drawn_depth", "0 images of one channel"),
    (pixel_sets.DEPTHS, "tfds:drawn_masks", "no 'depth' of a known size"),
    (pixel_sets.LABELED, "tfds:nothing", "TFDS has no set 'nothing'"),
])  # fmt: skip
def test_a_set_without_them_is_refused_with_its_features(sets, name, message, folder):
    with pytest.raises(UsageError, match=message):
        pixel_sets.find(sets, name)(pixel_sets.Place(str(folder), num_classes=4), "train")
