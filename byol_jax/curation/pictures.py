"""Small pictures of images, and of what people make of an image: resized, recompressed, cropped.

Shapes: N images, T side of a picture.
"""

import io
from collections.abc import Callable, Sequence
from concurrent import futures

import numpy as np
import PIL.Image

from byol_jax.curation import alignment
from byol_jax.data import datasets, image_decoding
from byol_jax.host import machine
from byol_jax.workdir import console

LEAST_SIDE = 8


def load(data: datasets.Dataset, index: int, size: int = 2 * alignment.SIDE) -> np.ndarray:
    """One whole image, uint8 [H, W, 3], decoded no larger than it has to be for a size."""
    if isinstance(data, datasets.ArrayDataset):
        return np.asarray(data.images[index])
    encoded = image_decoding.EncodedImage(data.records.read(int(index))[0], data.grey_ranges)
    side = min(encoded.height, encoded.width)
    shrink = next((factor for factor in (8, 4, 2) if side >= factor * size), 1)
    return encoded.decode(shrink=shrink, fast=True)


def small(data: datasets.Dataset, indices: Sequence[int]) -> np.ndarray:
    """Pictures float32 [N, T, T, 3] of images that can be decoded."""
    return _each(indices, lambda index: load(data, index), title="pictures")


def variants(data: datasets.Dataset, indices: Sequence[int], *, seed: int) -> np.ndarray:
    """Pictures float32 [N, T, T, 3] of a near-duplicate of each image; see `vary`."""

    def make(index: int) -> np.ndarray:
        rng = np.random.default_rng([seed, int(index)])
        return vary(load(data, index, 256), int(index) % 3, rng)

    return _each(indices, make, title="near-duplicates to compare with")


def _each(indices: Sequence[int], make: Callable[[int], np.ndarray], *, title: str) -> np.ndarray:
    found = np.empty((len(indices), alignment.SIDE, alignment.SIDE, 3), np.float32)
    bar = console.progress_bar(total=len(indices), unit="img", title=title, delay=2)
    with bar, futures.ThreadPoolExecutor(machine.processors()) as pool:
        for row, pixels in enumerate(pool.map(lambda i: alignment.shrink(make(i)), indices)):
            found[row] = pixels
            bar.update()
    return found


def vary(pixels: np.ndarray, kind: int, rng: np.random.Generator) -> np.ndarray:
    """What may become of an image, uint8 [H, W, 3], as it is passed on.

    Args:
      pixels: of the image.
      kind: 0: resized to 50-80 %; 1: recompressed as a JPEG of quality 40 to 75; 2: cropped by 5 %
        of each side. All are JPEGs in the end.
      rng: draws sizes, qualities and places.
    """
    image, quality = PIL.Image.fromarray(pixels), 90
    width, height = image.size
    if kind == 0:
        scale = rng.uniform(0.5, 0.8)
        sides = (max(LEAST_SIDE, round(side * scale)) for side in image.size)
        image = image.resize(tuple(sides), PIL.Image.Resampling.BICUBIC)
    elif kind == 1:
        quality = int(rng.integers(40, 76))
    else:
        wide, high = (max(1, round(side * 0.95)) for side in image.size)
        left, top = rng.integers(0, width - wide + 1), rng.integers(0, height - high + 1)
        image = image.crop((left, top, left + wide, top + high))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file).convert("RGB"))
