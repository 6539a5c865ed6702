"""The embedded set, TFDS sets prepared for real in a temporary folder, and what is refused."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from byol_jax import datasets


def _png(pixels):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "png")
    file.seek(0)
    return file


class ByolTestShapes(tfds.core.GeneratorBasedBuilder):
    """Twenty images whose every pixel is the image's number; the "mixed" ones vary in size."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("grey", "rgb", "mixed")]
    pkg_dir_path = "."

    def _info(self):
        channels = 1 if self.builder_config.name == "grey" else 3
        size = None if self.builder_config.name == "mixed" else 8
        features = {
            "image": tfds.features.Image(shape=(size, size, channels)),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

    def _generate_examples(self, n):
        for number in range(n):
            size = 8 + number if self.builder_config.name == "mixed" else 8
            shape = (size, size) if self.builder_config.name == "grey" else (size, size, 3)
            pixels = np.full(shape, number, np.uint8)
            yield number, {"image": _png(pixels), "label": number % 3}


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for name in ("grey", "rgb", "mixed"):
        ByolTestShapes(
            config=name, data_dir=folder, file_format="array_record"
        ).download_and_prepare()
    return str(folder)


@pytest.mark.parametrize("name", ["rgb", "grey"])
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
        ("tfds:byol_test_shapes/mixed", "train", "come in 20 sizes"),
        ("tfds:byol_test_shapes/rgb", "valid", "no split 'valid'. Valid: train, test"),
        ("tfds:byol_test_shape", "train", "Did you mean"),
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


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1], "must be uint8"),
        (np.zeros((2, 4, 4, 4), np.uint8), [0, 1], "must be uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 3], "such as 3 at image 1"),
        (np.zeros((2, 4, 4, 3), np.uint8), [-1, 0], "such as -1 at image 0"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], "there are 1"),
        (np.zeros((0, 4, 4, 3), np.uint8), [], "no image"),
    ],
)
def test_images_and_labels_are_checked(images, labels, message):
    with pytest.raises(datasets.UsageError, match=message):
        datasets._check(datasets.Images(images, np.array(labels, np.int32), 3), "these")
