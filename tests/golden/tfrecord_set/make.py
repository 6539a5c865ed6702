"""Writes the TFRecord set of this folder; run once, with TensorFlow and TFDS installed.

    python tests/golden/tfrecord_set/make.py

Image number n of a split is n % 7 + 16 pixels wide and n % 9 + 16 high; its pixel in row y and
column x is (8 * y, 8 * x, 16 * n), and its label is n % 3. File names are split_n.png.
"""

import io
import pathlib

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

HERE = pathlib.Path(__file__).parent


def _png(number):
    rows, columns = np.mgrid[: number % 9 + 16, : number % 7 + 16]
    pixels = np.stack([8 * rows, 8 * columns, np.full_like(rows, 16 * number)], axis=-1)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels.astype(np.uint8)).save(file, "png")
    file.seek(0)
    return file


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Thirteen training images and five test images, in three shards each."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="small", description="The only one.")]
    pkg_dir_path = HERE

    def _info(self):
        features = {
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        counts = {"train": 13, "test": 5}
        return {name: self._generate_examples(name, count) for name, count in counts.items()}

    def _generate_examples(self, split, count):
        for number in range(count):
            name = f"{split}_{number}.png"
            yield name, {"file_name": name, "image": _png(number), "label": number % 3}


if __name__ == "__main__":
    shards = tfds.download.DownloadConfig(num_shards=3)
    TinyShapes(data_dir=HERE, file_format="tfrecord").download_and_prepare(download_config=shards)
