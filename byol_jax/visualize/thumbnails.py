"""Small JPEGs of images, for people to look at: one by one, and many on a sheet.

Shapes: H rows, W columns, n images, S side of a square.
"""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
import PIL.Image

QUALITIES = (88, 75, 60, 45, 30)  # of sheets, from which the first that fits is taken


def square(pixels: np.ndarray, size: int) -> np.ndarray:
    """The middle square of uint8 [H, W, 3], shrunk to [S, S, 3]; a small one is left as it is."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return fit(pixels[top : top + side, left : left + side], size)


def fit(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W, 3], shrunk so that its longer side is S; a smaller one is left as it is."""
    height, width = pixels.shape[:2]
    scale = size / max(height, width)
    if scale >= 1:
        return pixels
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(PIL.Image.fromarray(pixels).resize(shape, PIL.Image.Resampling.BOX))


def jpeg(pixels: np.ndarray, *, quality: int = 88) -> str:
    """uint8 [H, W, 3] as a JPEG in base64, its colors at full resolution."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    return base64.b64encode(file.getvalue()).decode()


def sheet(tiles: np.ndarray, *, most_bytes: int) -> tuple[str, int]:
    """Many squares as one JPEG in base64, and how many of them stand in a row.

    Args:
      tiles: uint8 [n, S, S, 3].
      most_bytes: of the base64; the quality is lowered for it, but not below all use.
    """
    columns = math.ceil(math.sqrt(len(tiles)))
    whole = grid(tiles, columns=columns)
    for quality in QUALITIES:
        text = jpeg(whole, quality=quality)
        if len(text) <= most_bytes:
            break
    return text, columns


def grid(tiles: np.ndarray | Sequence[np.ndarray], *, columns: int) -> np.ndarray:
    """Squares [n, S, S, 3] row by row on one image; what is left of the last row is black."""
    tiles = np.asarray(tiles)
    rows = -(-len(tiles) // columns)
    size = tiles.shape[1]
    whole = np.zeros((rows * columns, size, size, 3), np.uint8)
    whole[: len(tiles)] = tiles
    whole = whole.reshape(rows, columns, size, size, 3).transpose(0, 2, 1, 3, 4)
    return whole.reshape(rows * size, columns * size, 3)
