"""Colors of 16 bits, and gray of 16 bits with transparency, whose lower bytes Pillow leaves out.

Pillow gives the upper byte of each value. A second look at the file, with the bytes taken for the
other way round, gives the lower one.
"""

import io
import struct
import sys
import zlib

import numpy as np
import PIL.Image

_NATIVE = "L" if sys.byteorder == "little" else "B"
# Pillow's words for how values are stored, and the same with the bytes of each swapped.
_SWAPPED = {
    f"{mode};16{order}": f"{mode};16{'L' if (_NATIVE if order == 'N' else order) == 'B' else 'B'}"
    for mode in ("RGB", "RGBA", "RGBX", "RGBa")
    for order in "BLN"
}
_HEADER = 16  # where the content of a PNG's first chunk, IHDR, begins
_RGB, _GRAY_ALPHA, _RGB_ALPHA = 2, 4, 6  # PNG's types of colors


def is_deep(image: PIL.Image.Image, data: bytes) -> bool:
    """Whether an image has values of more bits than Pillow gives; a TIFF must not be decoded."""
    if "transparency" in image.info:  # one color of the image, compared in its own bits
        return False
    if image.format == "PNG":
        bits, colors = data[_HEADER + 8 : _HEADER + 10]
        return bits == 16 and colors in (_RGB, _GRAY_ALPHA, _RGB_ALPHA)
    return bool(image.tile) and all(_raw_mode(tile.args) in _SWAPPED for tile in image.tile)


def open_lower(image: PIL.Image.Image, data: bytes) -> PIL.Image.Image:
    """The lower bytes of a deep image, for `values`; not decoded yet."""
    if image.format == "PNG" and data[_HEADER + 9] == _GRAY_ALPHA:
        return PIL.Image.open(io.BytesIO(_as_bytes(data)), formats=["PNG"])
    lower = PIL.Image.open(io.BytesIO(data), formats=[image.format])
    lower.tile = [tile._replace(args=_swap(tile.args)) for tile in lower.tile]
    return lower


def values(upper: PIL.Image.Image, lower: PIL.Image.Image, data: bytes) -> np.ndarray:
    """The values of a part of an image without its transparency, uint16 [H, W, 1 or 3]."""
    low = np.asarray(lower)
    if upper.mode == "RGBA" and data.startswith(b"\x89PNG") and data[_HEADER + 9] == _GRAY_ALPHA:
        return low[:, :, :1].astype(np.uint16) << 8 | low[:, :, 1:2]
    return np.asarray(upper)[:, :, :3].astype(np.uint16) << 8 | low[:, :, :3]


def _raw_mode(arguments: str | tuple) -> str:
    return arguments if isinstance(arguments, str) else arguments[0]


def _swap(arguments: str | tuple) -> str | tuple:
    if isinstance(arguments, str):
        return _SWAPPED[arguments]
    return (_SWAPPED[arguments[0]], *arguments[1:])


def _as_bytes(data: bytes) -> bytes:
    """A PNG of gray and transparency of 16 bits as one of four times 8, which are its bytes."""
    header = b"IHDR" + data[_HEADER : _HEADER + 8] + bytes((8, _RGB_ALPHA))
    header += data[_HEADER + 10 : _HEADER + 13]
    checksum = struct.pack(">I", zlib.crc32(header))
    return data[: _HEADER - 4] + header + checksum + data[_HEADER + 17 :]
