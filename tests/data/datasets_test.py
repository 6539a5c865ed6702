"""The embedded set, folders, TFDS sets prepared in a temporary folder, and what is refused."""

import io
import os
import shutil
import sys

import cloudpickle
import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax.data import datasets, image_decoding, tfds_source
from tests.support.samples import encode


class ByolTestShapes(tfds.core.GeneratorBasedBuilder):
    """Twenty images whose every pixel is the image's number.

    The "mixed" ones vary in size and know their file's name, the "unlabeled" ones have no label.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name) for name in ("gray", "rgb", "mixed", "unlabeled")
    ]
    pkg_dir_path = "."

    def _info(self):
        name = self.builder_config.name
        size = None if name == "mixed" else 8
        features = {
            "image": tfds.features.Image(shape=(size, size, 1 if name == "gray" else 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
            "file_name": tfds.features.Text(),
        }
        if name == "unlabeled":
            features.pop("label")
        if name != "mixed":
            features.pop("file_name")
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

    def _generate_examples(self, n):
        for number in range(n):
            size = 8 + number if self.builder_config.name == "mixed" else 8
            shape = (size, size) if self.builder_config.name == "gray" else (size, size, 3)
            values = {
                "image": io.BytesIO(encode(np.full(shape, number, np.uint8))),
                "label": number % 3,
                "file_name": f"picture {number}.png",
            }
            yield number, {key: values[key] for key in self.info.features}


class Imagenet2012(ByolTestShapes):
    """Called like ImageNet; has three training images more than are held out, labels in order."""

    name = "imagenet2012"
    BUILDER_CONFIGS = []

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=1000),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10_003), "validation": self._generate_examples(2)}

    def _generate_examples(self, n):
        data = encode(np.zeros((8, 8, 3), np.uint8))
        for number in range(n):
            yield number, {"image": io.BytesIO(data), "label": number % 1000}


class ByolTestVoc(tfds.core.GeneratorBasedBuilder):
    """Like VOC: several classes an image, some of them only in objects that are hard to see."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = []
    pkg_dir_path = "."
    CLASSES = ["cat", "dog", "sheep"]
    COUNTS = {"train": 20, "validation": 10, "test": 15}

    def _info(self):
        classes = tfds.features.Sequence(tfds.features.ClassLabel(names=self.CLASSES))
        image = tfds.features.Image(shape=(None, None, 3))
        features = {"image": image, "labels": classes, "labels_no_difficult": classes}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(count) for name, count in self.COUNTS.items()}

    def _generate_examples(self, n):
        for number in range(n):
            pixels = np.zeros((20, 24, 3), np.uint8)
            pixels[..., 0], pixels[..., 1] = 200 * (number % 2), 200 * (number // 2 % 2)
            pixels[..., 2] = number
            seen = [c for c in (0, 1) if pixels[0, 0, c]]
            difficult = [2] if number % 5 == 4 else []
            yield (
                number,
                {
                    "image": io.BytesIO(encode(pixels)),
                    "labels": [*seen, *difficult],
                    "labels_no_difficult": seen,
                },
            )


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for name in ("gray", "rgb", "mixed", "unlabeled"):
        ByolTestShapes(
            config=name, data_dir=folder, file_format="array_record"
        ).download_and_prepare()
    return str(folder)


@pytest.fixture(scope="module")
def imagenet_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    Imagenet2012(data_dir=folder, file_format="array_record").download_and_prepare()
    return str(folder)


@pytest.mark.parametrize("name", ["rgb", "gray"])
def test_a_tfds_set_comes_into_memory_as_rgb(name, tfds_folder):
    data = datasets.load(f"tfds:byol_test_shapes/{name}", "train", data_dir=tfds_folder)
    assert data.images.shape == (20, 8, 8, 3) and data.images.dtype == np.uint8
    assert data.num_classes == 3 and data.labels.dtype == np.int32
    numbers = data.images[:, 0, 0, 0]
    np.testing.assert_array_equal(np.sort(numbers), np.arange(20))
    np.testing.assert_array_equal(data.labels, numbers % 3)
    np.testing.assert_array_equal(
        data.images, numbers[:, None, None, None] + np.zeros((1, 8, 8, 3))
    )


def test_splits_can_be_sliced_as_tfds_does(tfds_folder):
    data = datasets.load("tfds:byol_test_shapes/rgb", "train[:25%]", data_dir=tfds_folder)
    assert len(data.images) == 5


def test_the_folder_may_come_from_the_environment(tfds_folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", tfds_folder)
    assert len(datasets.load("tfds:byol_test_shapes/rgb", "test").images) == 6


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        (
            "tfds:byol_test_shapes/rgb",
            "valid",
            "no split 'valid'. Valid: (train, test|test, train)",
        ),
        ("tfds:byol_test_shape", "train", "Did you mean"),
        ("tfds:two words", "train", "two words"),
        ("cifar100", "train", "not prepared.*prepare.*cifar100"),
        ("cifar", "train", "Did you mean 'cifar10'"),
        ("patterns", "trian", "Did you mean 'train'"),
    ],
)
def test_mistakes_name_what_is_valid(name, split, message, tfds_folder):
    with pytest.raises(datasets.UsageError, match=f"(?s){message}"):
        datasets.load(name, split, data_dir=tfds_folder)


def test_the_embedded_set_has_its_splits():
    train, test = (datasets.load("patterns", split) for split in ("train", "test"))
    assert train.num_classes == test.num_classes == 10
    assert set(train.labels) == set(range(10))
    assert train.fingerprint == ""


def test_images_of_many_sizes_are_read_one_by_one(tfds_folder):
    data = datasets.load("tfds:byol_test_shapes/mixed", "train", data_dir=tfds_folder)
    assert isinstance(data, datasets.RecordDataset)
    assert data.num_images == len(data.records) == 20 and data.num_classes == 3
    numbers = []
    for index in range(20):
        encoded, label = data.records.read(index)
        pixels = image_decoding.EncodedImage(encoded).decode()
        number = int(pixels[0, 0, 0])
        np.testing.assert_array_equal(pixels, np.full((8 + number, 8 + number, 3), number))
        assert label == number % 3
        assert data.records.name(index).endswith(f"train[{index}] (picture {number}.png)")
        numbers.append(number)
    assert sorted(numbers) == list(range(20))


def test_a_set_can_be_sent_to_worker_processes(tfds_folder):
    data = datasets.load("tfds:byol_test_shapes/mixed", "train", data_dir=tfds_folder)
    sent = cloudpickle.loads(cloudpickle.dumps(data))
    assert [sent.records.read(i) for i in range(20)] == [data.records.read(i) for i in range(20)]


def test_a_set_without_labels_is_read_one_by_one(tfds_folder):
    data = datasets.load("tfds:byol_test_shapes/unlabeled", "train", data_dir=tfds_folder)
    assert isinstance(data, datasets.RecordDataset) and data.num_classes == 0
    assert {data.records.read(index)[1] for index in range(20)} == {-1}
    assert data.records.name(3) == "byol_test_shapes/unlabeled/train[3]"


def test_what_is_too_large_for_memory_is_read_one_by_one(tfds_folder, monkeypatch):
    monkeypatch.setattr(datasets, "MEMORY_LIMIT", 20 * 8 * 8 * 3 - 1)
    data = datasets.load("tfds:byol_test_shapes/rgb", "train", data_dir=tfds_folder)
    assert isinstance(data, datasets.RecordDataset) and data.num_classes == 3
    whole = datasets.load("tfds:byol_test_shapes/rgb", "test", data_dir=tfds_folder)
    assert isinstance(whole, datasets.ArrayDataset)


def test_images_of_several_classes_have_tags_instead_of_a_label(tmp_path):
    ByolTestVoc(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    train, test = (
        datasets.load("tfds:byol_test_voc", split, data_dir=str(tmp_path))
        for split in ("train", "test")
    )
    assert (train.num_classes, train.num_labels, train.records.read(0)[1]) == (0, 3, -1)
    both = datasets.join(train, test.select(np.array([14, 3])))
    assert both.num_labels == 3 and both.take(21).num_images == 21
    indices = np.array([21, 0, 13, 20])
    for index, multi_labels in zip(indices, datasets.multi_labels(both, indices), strict=True):
        red, green, number = image_decoding.EncodedImage(both.records.read(index)[0]).decode()[0, 0]
        assert multi_labels.tolist() == [red > 0, green > 0, -1 if number % 5 == 4 else 0]
    assert datasets.load("patterns", "test").num_labels == 0


def test_the_first_images_can_be_taken(tfds_folder):
    stream = datasets.load("tfds:byol_test_shapes/mixed", "train", data_dir=tfds_folder)
    whole = datasets.load("tfds:byol_test_shapes/rgb", "train", data_dir=tfds_folder)
    for data in (stream, whole):
        assert data.take(5).num_images == 5 and data.take(5).num_classes == 3
        assert data.take(50).num_images == data.num_images == 20
    np.testing.assert_array_equal(whole.take(5).images, whole.images[:5])
    np.testing.assert_array_equal(whole.take(5).labels, whole.labels[:5])


@pytest.mark.parametrize(
    ("split", "num_images"),
    [("train", 3), ("valid", 10_000), ("train_and_valid", 10_003), ("test", 2), ("train[:7]", 7)],
)
def test_imagenet_has_the_references_splits(split, num_images, imagenet_folder):
    data = datasets.load("imagenet2012", split, data_dir=imagenet_folder)
    assert data.num_images == num_images and data.num_classes == 1000


def test_held_out_images_of_imagenet_are_the_first_of_its_training_images(imagenet_folder):
    """As in the reference: TFDS's train[:10000] and train[10000:]."""
    train, valid, both = (
        datasets.load("imagenet2012", split, data_dir=imagenet_folder).records
        for split in ("train", "valid", "train_and_valid")
    )
    labels = [both.read(index)[1] for index in (0, 1, 9_999, 10_000, 10_002)]
    assert labels[:3] == [valid.read(index)[1] for index in (0, 1, 9_999)]
    assert labels[3:] == [train.read(index)[1] for index in (0, 2)]


def test_a_folder_of_images_is_a_data_set(tmp_path):
    pixels = np.full((9, 9, 3), 5, np.uint8)
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(pixels))
    data = datasets.load("folder", "all", data_dir=str(tmp_path))
    assert data.num_images == 3 and data.num_classes == 2 and data.fingerprint
    assert sorted(data.records.read(index)[1] for index in range(3)) == [0, 0, 1]
    assert data.records.read(0)[0] == encode(pixels)


def test_a_set_prepared_as_tfrecord_says_how_to_convert_it(tfds_folder, tmp_path):
    shutil.copytree(f"{tfds_folder}/byol_test_shapes/rgb", tmp_path / "byol_test_shapes" / "rgb")
    info = tmp_path / "byol_test_shapes" / "rgb" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(
        datasets.UsageError, match="(?s)TFRecord.*configs/convert.py.*byol_test_shapes/rgb"
    ):
        datasets.load("tfds:byol_test_shapes/rgb", "train", data_dir=str(tmp_path))


def test_a_set_without_images_is_refused(tmp_path):
    class ByolTestNumbers(ByolTestShapes):
        BUILDER_CONFIGS = []

        def _info(self):
            features = tfds.features.FeaturesDict({"number": np.int32})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _generate_examples(self, n):
            for number in range(n):
                yield number, {"number": number}

    ByolTestNumbers(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(datasets.UsageError, match="not an image set.*number"):
        tfds_source.open_set("byol_test_numbers", str(tmp_path))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1], "must be uint8"),
        (np.zeros((2, 4, 4, 4), np.uint8), [0, 1], "must be uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 3], "such as 3 at image 1"),
        (np.zeros((2, 4, 4, 3), np.uint8), [-2, 0], "such as -2 at image 0"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], "there are 1"),
    ],
)
def test_images_and_labels_are_checked(images, labels, message):
    with pytest.raises(ValueError, match=message):
        datasets.ArrayDataset(images, np.array(labels, np.int32), 3)


def test_images_in_memory_may_lack_labels():
    images = np.zeros((3, 4, 4, 3), np.uint8)
    data = datasets.ArrayDataset(images, np.array([-1, 2, 0], np.int32), 3)
    assert len(data) == data.num_images == 3


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_classes_of_a_folder_have_names_that_can_be_written(tmp_path):
    for owner in (b"caf\xe9", b"b"):
        (tmp_path / os.fsdecode(owner)).mkdir()
        (tmp_path / os.fsdecode(owner) / "1.png").write_bytes(b"")
    data = datasets.load("folder", "all", data_dir=str(tmp_path))
    assert datasets.class_names(data, "folder", str(tmp_path)) == ["b", "caf\\xe9"]


def test_a_label_of_a_set_on_disk_that_is_out_of_range_is_named():
    records = tfds_source.Records.__new__(tfds_source.Records)
    records._name, records._num_classes = "set/train", 3
    example = tfds_source._example_type()()
    values = example.features.feature["label"].int64_list.value
    values.append(2)
    assert records._label(4, example.features.feature) == 2
    for label, is_right in [(-1, True), (3, False), (-2, False)]:
        values[0] = label
        if is_right:
            assert records._label(4, example.features.feature) == label
            continue
        with pytest.raises(datasets.UsageError, match=rf"set/train\[4\] has the label {label},"):
            records._label(4, example.features.feature)
