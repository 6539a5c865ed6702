"""Reads the header of a JPEG, to decide which decoder may have it.

libjpeg-turbo's fast path is native code that trusts what it finds: shrinking a lossless JPEG while
it is decoded writes beyond the end of the image. Only what is known to be safe passes; the rest is
for Pillow.
"""

from typing import NamedTuple

# Markers (ITU-T T.81, table B.1): frames of 8-bit Huffman coding, in one pass or progressive.
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = frozenset((_BASELINE, _EXTENDED, _PROGRESSIVE))
_EXIF_OR_XMP, _SCAN = 0xE1, 0xDA
# What else may stand before the first scan: tables of Huffman codes and quantization, the restart
# interval, applications' segments, comments. Everything else is rare, and not for the fast path.
_SEGMENTS = frozenset((0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE))

# Sampling factors, horizontal then vertical, of luma and of both chroma components: 4:4:4, 4:4:0,
# 4:2:2, 4:2:0, 4:1:1, and the same ratios in other words.
_SAMPLINGS = frozenset(
    bytes((luma, chroma, chroma))
    for luma, chroma in (
        *((0x11, 0x11), (0x12, 0x11), (0x21, 0x11), (0x22, 0x11), (0x41, 0x11)),
        *((0x12, 0x12), (0x21, 0x21), (0x22, 0x12), (0x22, 0x21)),
    )
) | {b"\x11", b"\x12", b"\x21", b"\x22"}  # of gray, where they mean nothing


class Header(NamedTuple):
    """What is known of a JPEG that the fast path may decode.

    Attributes:
      frame: where its frame header begins, at the marker.
      height, width: in pixels, as stored.
      is_one_pass: its pixels come row by row; else all coefficients are in memory first.
      has_orientation: an EXIF or XMP segment may say how to turn it.
    """

    frame: int
    height: int
    width: int
    is_one_pass: bool
    has_orientation: bool


def read(data: bytes) -> Header | None:
    """The header of a JPEG for the fast path; None for anything out of the ordinary.

    That is: more or less than one frame before the first scan, lossless or arithmetic coding, more
    than 8 bits, 2 or 4 components, unusual sampling, a height that is told later, bytes between
    segments, and a header that ends early.
    """
    place, frame, has_orientation = 2, 0, False
    try:
        while data[place] == 0xFF and (marker := data[place + 1]) != _SCAN:
            length = data[place + 2] << 8 | data[place + 3]
            if marker in _FRAMES and not frame:
                frame = place
            elif marker not in _SEGMENTS or length < 2:
                return None
            elif marker == _EXIF_OR_XMP and not has_orientation:
                has_orientation = _tells_orientation(data, place, length)
            place += 2 + length
        if not frame or data[place] != 0xFF or not _is_plain(data, frame):
            return None
        count, in_scan = data[frame + 9], data[place + 4]
    except IndexError:
        return None
    height, width = data[frame + 5] << 8 | data[frame + 6], data[frame + 7] << 8 | data[frame + 8]
    is_one_pass = data[frame + 1] != _PROGRESSIVE and in_scan == count
    return Header(frame, height, width, is_one_pass, has_orientation)


def _tells_orientation(data: bytes, place: int, length: int) -> bool:
    if data.startswith(b"Exif\0\0", place + 4):
        return True
    return data.find(b"tiff:Orientation", place + 4, place + 2 + length) >= 0


def _is_plain(data: bytes, frame: int) -> bool:
    """Whether length, precision, sizes and components of a frame (T.81, B.2.2) are as usual."""
    length, count = data[frame + 2] << 8 | data[frame + 3], data[frame + 9]
    sampling = data[frame + 11 : frame + 10 + 3 * count : 3]
    return (
        length == 8 + 3 * count
        and data[frame + 4] == 8
        and any(data[frame + 5 : frame + 7])
        and any(data[frame + 7 : frame + 9])
        and len(sampling) == count
        and sampling in _SAMPLINGS
    )
