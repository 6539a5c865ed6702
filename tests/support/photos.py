"""Photographs for tests: pieces of those that the reference's values were made for."""

import functools

import jax
import numpy as np

from tests.support import golden_data


@functools.cache
def photos(size, count=64):
    """uint8 [count, size, size, 3]: small photos, then windows of a large one, some mirrored."""
    golden = golden_data.load("augment_ops")
    small = golden["pipeline|images"][:22]  # the last two are drawn
    rng = np.random.default_rng(0)
    pieces = [*small[:count]]
    while len(pieces) < count:
        side = rng.integers(64, 224)
        top, left = rng.integers(0, 224 - side, 2)
        window = golden["image224"][top : top + side, left : left + side]
        pieces.append(window[:, ::-1] if len(pieces) % 2 else window)
    return np.stack([_resize(piece, size) for piece in pieces])


def _resize(pixels, size):
    resized = jax.image.resize(pixels.astype(np.float32), (size, size, 3), "cubic")
    return np.clip(np.rint(np.asarray(resized)), 0, 255).astype(np.uint8)
