"""Draws labeled photos of 1,024 px: the embedded patterns, enlarged, under fine grain.

python -m experiments.decoding.photos FOLDER [TRAIN TEST]
"""

import pathlib
import sys

import cv2
import numpy as np
import simplejpeg

from byol_jax.data import patterns

SIDE = 1024
GRAIN = 40  # standard deviation of a pixel's own brightness, in levels


def draw(pattern: np.ndarray, rng: np.random.Generator) -> bytes:
    """A JPEG of a pattern [32, 32, 3]; its grain is of one and of two pixels."""
    photo = cv2.resize(pattern, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    fine = rng.standard_normal((SIDE, SIDE, 1), np.float32)
    coarse = rng.standard_normal((SIDE // 2, SIDE // 2), np.float32)
    grain = fine + np.repeat(np.repeat(coarse, 2, 0), 2, 1)[:, :, None]
    photo = np.clip(photo + GRAIN / 2**0.5 * grain, 0, 255).astype(np.uint8)
    return simplejpeg.encode_jpeg(photo, 85, colorspace="RGB", colorsubsampling="420")


def main() -> None:
    """Writes FOLDER/train and FOLDER/test, a folder for each class."""
    folder = pathlib.Path(sys.argv[1])
    counts = [int(count) for count in sys.argv[2:]] or [1500, 500]
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "test"), counts, strict=True):
        pixels, labels = patterns.load(split)
        for index in range(count):
            path = folder / split / patterns.CLASS_NAMES[labels[index]] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw(pixels[index], rng))


if __name__ == "__main__":
    main()
