"""How far evaluation crops are from what training sees of the same window, decoded either way.

    python -m experiments.decoding.crops NAME DIR SPLIT

Prints the mean PSNR to the training view of the center window, and milliseconds a crop.
"""

import sys
import time

import numpy as np

from byol_jax.data import datasets, host_crops, image_decoding

COUNT = 40
SIZES = (32, 64, 96, 128)


def psnr(ours: np.ndarray, other: np.ndarray) -> float:
    """In decibels, of levels in [0, 255]."""
    return 10 * np.log10(255**2 / np.square(ours.astype(float) - other).mean())


def main() -> None:
    """One row for each size of crops; images too small to be reduced for it are left out."""
    name, folder, split = sys.argv[1:]
    data = datasets.load(name, split, data_dir=folder)
    encoded = [data.records.read(index)[0] for index in range(min(COUNT, data.num_images))]
    print("| crop | images | PSNR, full | PSNR, reduced | ms, full | ms, reduced |")
    print("|---|---|---|---|---|---|")
    for size in SIZES:
        rows, seconds = [], np.zeros(2)
        for image in map(image_decoding.EncodedImage, encoded):
            window = host_crops.center_window(image.height, image.width)
            if window.height < 2 * size:
                continue
            view = np.empty((1, size, size, 3), np.uint8)
            host_crops.train_views(image, (window,), view)
            ticks = [time.thread_time()]
            crops = []
            for is_reduced in (False, True):
                crops.append(host_crops.center_crop(image, size, is_reduced=is_reduced))
                ticks.append(time.thread_time())
            seconds += np.diff(ticks)
            rows.append([psnr(crop, view[0]) for crop in crops])
        if rows:
            full, reduced = np.mean(rows, axis=0)
            cost = 1000 * seconds / len(rows)
            print(
                f"| {size} px | {len(rows)} | {full:.1f} dB | {reduced:.1f} dB "
                f"| {cost[0]:.1f} | {cost[1]:.1f} |"
            )


if __name__ == "__main__":
    main()
