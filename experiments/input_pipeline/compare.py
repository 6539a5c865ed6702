"""Ours against tf.data, in turns on the same machine: images a second, two 224 px views each.

    TFDS_DATA_DIR=... python -m experiments.input_pipeline.compare --packed=FOLDER [--rounds=5]

Needs TensorFlow, which byol_jax itself does not: pip install tensorflow-cpu. Every measurement
has a process of its own, so that no library's idle threads disturb another one's.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from byol_jax.data import datasets, train_loader
from byol_jax.host import processes

SIZE, BATCH, SECONDS = 224, 64, 5.0
COPIES = 300  # of 200 images: as many as a small data set has
SOURCES = ("tf.data", "JPEG", "packed")


def tf_batches(data):
    """The reference's way: for each view decode the window alone and resize it bicubically."""
    import tensorflow as tf

    path = pathlib.Path(tempfile.mkdtemp()) / "images.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:  # as TFDS stores images by default
        for index in range(data.num_images // COPIES):
            value = tf.train.BytesList(value=[data.records.read(index)[0]])
            features = tf.train.Features(feature={"image": tf.train.Feature(bytes_list=value)})
            writer.write(tf.train.Example(features=features).SerializeToString())

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
    processes.settle()  # as main_loop does before every task
    crop = train_loader.Crop(SIZE)
    return train_loader.TrainBatches(data, batch_size=BATCH, seed=0, crop=crop)


def measure(name, packed):
    """Images a second of one source and milliseconds of CPU an image, after start-up."""
    folder = packed if name == "packed" else None
    data = datasets.load("imagenet2012", "+".join(["train"] * COPIES), data_dir=folder)
    batches = tf_batches(data) if name == "tf.data" else our_batches(data)
    for _ in range(8):  # what start-up has prefetched
        next(batches)
    start, busy, count = time.perf_counter(), time.process_time(), 0
    while (elapsed := time.perf_counter() - start) < SECONDS:
        next(batches)
        count += BATCH
    return count / elapsed, 1e3 * (time.process_time() - busy) / count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--packed", required=True, help="configs/pack.py's output_dir")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=SOURCES, help="only this one, in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        print(*measure(arguments.measure, arguments.packed), flush=True)
        return
    results = {name: {"images_per_second": [], "cpu_ms": []} for name in SOURCES}
    for _ in range(arguments.rounds):
        for name in SOURCES:  # in turns, so that all see the same machine
            command = [sys.executable, "-m", __spec__.name, f"--packed={arguments.packed}"]
            done = subprocess.run(
                [*command, f"--measure={name}"], check=True, stdout=subprocess.PIPE, text=True
            )
            rate, cpu = done.stdout.split()[-2:]
            results[name]["images_per_second"].append(round(float(rate)))
            results[name]["cpu_ms"].append(round(float(cpu), 2))
        print({name: values["images_per_second"][-1] for name, values in results.items()})
    for name, values in results.items():
        print(describe(name, values, results["tf.data"]))
    folder = pathlib.Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "compare.json").write_text(json.dumps(results, indent=2) + "\n")


def describe(name, values, base):
    """Medians, and the median of each round's ratio to tf.data."""
    pairs = zip(values["images_per_second"], base["images_per_second"], strict=True)
    ratio = statistics.median(rate / other for rate, other in pairs)
    rate, cpu = (statistics.median(values[key]) for key in ("images_per_second", "cpu_ms"))
    less = statistics.median(base["cpu_ms"]) / cpu
    return (
        f"{name:<8} {rate:6.0f} images/s, {ratio:.2f} x tf.data; "
        f"{cpu:.2f} ms of CPU an image, tf.data's / {less:.2f}"
    )


if __name__ == "__main__":
    main()
