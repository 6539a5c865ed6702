"""Small data sets for the tests of the pipelines: in memory, encoded, and with bad images."""

import numpy as np

from byol_jax.data import datasets
from tests.support.samples import drawn_picture, encode

N = 40  # encoded images; Grain takes longer to shuffle fewer


def numbered(n):
    """Images in memory whose every pixel, and label, is their number."""
    numbers = np.arange(n)
    pixels = np.broadcast_to(numbers[:, None, None, None], (n, 2, 2, 3)).astype(np.uint8)
    return datasets.ArrayDataset(pixels, numbers.astype(np.int32), n)


class Encoded:
    """Files in memory, labeled by their numbers; counts how often each was read."""

    def __init__(self, files):
        self.files = files
        self.reads = [0] * len(files)

    def __len__(self):
        return len(self.files)

    def read(self, index):
        self.reads[index] += 1
        return self.files[index], index

    def name(self, index):
        return f"file {index}"


def stream(files):
    return datasets.RecordDataset(Encoded(files), len(files), len(files))


# Pictures of many sizes, as JPEG and as PNG.
FILES = [
    encode(drawn_picture(30 + number, 70 - number, seed=number), ("JPEG", "PNG")[number % 2])
    for number in range(N)
]


def with_bad(*indices):
    """The files, of which some are cut, and some no images."""
    files = list(FILES)
    for index in indices:
        files[index] = files[index][: len(files[index]) * 9 // 10] if index % 2 == 0 else b"<html>"
    return files
