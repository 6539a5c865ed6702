"""Does the loader's memory stay flat? Draws 20,000 batches of small images and watches it.

python -m experiments.input_pipeline.memory [--batches=20000]
"""

import argparse
import pathlib
import sys
import tempfile
import time

import numpy as np
import PIL.Image
import psutil

from byol_jax.data import datasets, train_loader


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=20_000)
    count = parser.parse_args().batches
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(500):
            pixels = rng.integers(0, 256, (48, 64, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(pathlib.Path(folder) / f"{number}.jpg")
        (pathlib.Path(folder) / "bad.jpg").write_bytes(b"bad")
        data = datasets.load("folder", "all", data_dir=folder)
        crop = train_loader.Crop(32)
        batches = train_loader.TrainBatches(data, batch_size=8, seed=0, crop=crop)
        process, start, first = psutil.Process(), time.monotonic(), None
        for number in range(1, count + 1):
            next(batches)
            if number % (count // 10) == 0:
                used = process.memory_info().rss / 2**20
                first = first or used
                seconds = time.monotonic() - start
                print(f"{number:>6} batches {seconds:6.0f} s {used:7.1f} MiB", file=sys.stderr)
        print(f"growth after the first tenth: {used - first:.1f} MiB")
        batches.close()


if __name__ == "__main__":
    main()
