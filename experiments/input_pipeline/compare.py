"""Ours against tf.data, in turns on the same machine: images a second, two 224 px views each.

    TFDS_DATA_DIR=... python experiments/input_pipeline/compare.py [--packed=FOLDER] [--rounds=5]

Needs TensorFlow, which byol_jax itself does not: pip install tensorflow-cpu.
"""

import argparse
import gc
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf

from byol_jax import datasets, input_pipeline

SIZE, BATCH, SECONDS = 224, 64, 4.0
COPIES = 300  # of 200 images: as many as a small data set has


def write_tfrecord(encoded, path):
    """The images as TFDS stores them by default."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in encoded:
            value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
            features = tf.train.Features(feature={"image": value})
            writer.write(tf.train.Example(features=features).SerializeToString())


def tf_batches(path):
    """The reference's way: for each view decode the window alone and resize it bicubically."""

    def view(data):
        height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(data))
        pixels = tf.cast(height * width, tf.float32) * tf.random.uniform([], 0.08, 1.0)
        ratio = tf.exp(tf.random.uniform([], tf.math.log(3 / 4), tf.math.log(4 / 3)))
        w = tf.minimum(tf.cast(tf.round(tf.sqrt(pixels * ratio)), tf.int32), width)
        h = tf.minimum(tf.cast(tf.round(tf.sqrt(pixels / ratio)), tf.int32), height)
        top = tf.random.uniform([], 0, height - h + 1, tf.int32)
        left = tf.random.uniform([], 0, width - w + 1, tf.int32)
        image = tf.image.decode_and_crop_jpeg(data, tf.stack([top, left, h, w]), channels=3)
        image = tf.image.resize(image, [SIZE, SIZE], tf.image.ResizeMethod.BICUBIC)
        return tf.clip_by_value(image / 255.0, 0.0, 1.0)

    def views(record):
        features = {"image": tf.io.FixedLenFeature([], tf.string)}
        data = tf.io.parse_single_example(record, features)["image"]
        return view(data), view(data)

    rows = tf.data.TFRecordDataset(str(path)).repeat().shuffle(200)
    rows = rows.map(views, tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True)
    return iter(rows.prefetch(tf.data.AUTOTUNE))


def our_batches(data):
    crop = input_pipeline.Crop(SIZE)
    return input_pipeline.TrainBatches(data, batch_size=BATCH, seed=0, crop=crop)


def rate(batches):
    for _ in range(4):  # what start-up has prefetched
        next(batches)
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < SECONDS:
        next(batches)
        count += 1
    return count * BATCH / elapsed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--packed", help="output_dir of configs/pack.py for the same set")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    split = "+".join(["train"] * COPIES)
    data = datasets.load("imagenet2012", split)
    encoded = [data.records.read(i)[0] for i in range(data.num_images // COPIES)]
    path = pathlib.Path(tempfile.mkdtemp()) / "images.tfrecord"
    write_tfrecord(encoded, path)
    sources = {"tf.data": lambda: tf_batches(path), "JPEG": lambda: our_batches(data)}
    if arguments.packed:
        packed = datasets.load("imagenet2012", split, data_dir=arguments.packed)
        sources["packed"] = lambda: our_batches(packed)
    rates = {name: [] for name in sources}
    for _ in range(arguments.rounds):
        for name, make in sources.items():  # in turns, so that all see the same machine
            batches = make()
            rates[name].append(rate(batches))
            if name != "tf.data":
                batches.close()
            del batches
            gc.collect()
            time.sleep(1)  # until the threads of this one have ended
        print({name: round(values[-1]) for name, values in rates.items()}, file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"{name:<8} {median:8.0f} images/s  {median / medians['tf.data']:.2f} x tf.data")
    results = pathlib.Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "compare.json").write_text(json.dumps(rates, indent=2) + "\n")


if __name__ == "__main__":
    main()
