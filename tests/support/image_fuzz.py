"""Decodes images with changed headers, in a process of its own that a decoder may crash.

python -m tests.support.image_fuzz FIRST LAST: prints the number of each case before it is tried.
"""

import struct
import sys
import zlib

import numpy as np
import PIL.Image

from byol_jax.data import image_decoding
from tests.support import jpegs
from tests.support.samples import drawn_picture, encode

PICTURE = drawn_picture(24, 40)
GRAY = PICTURE[:, :, 1]


def originals():
    """Small files of all formats and kinds."""
    for options in ({}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_blocks": 2}):
        yield encode(PICTURE, "JPEG", **options)
    yield encode(GRAY, "JPEG")
    yield encode(PIL.Image.fromarray(PICTURE).convert("CMYK"), "JPEG")
    yield jpegs.lossless(24, 40)
    yield jpegs.lossless(24, 40, channels=1)
    yield jpegs.flat(24, 40, [0x22, 0x11, 0x11])
    yield jpegs.flat(24, 40, [0x42, 0x11, 0x11])
    for pixels in (PICTURE, GRAY, GRAY.astype(np.uint16), GRAY > 99):
        yield encode(pixels, "PNG")
        yield encode(pixels, "TIFF")
    yield encode(PICTURE, "BMP")
    yield encode(PICTURE, "WEBP")
    yield encode(PICTURE, "WEBP", lossless=True)
    yield encode(PICTURE, "TIFF", compression="tiff_lzw")
    yield encode(GRAY.astype(np.float32), "TIFF", compression="tiff_adobe_deflate")
    if "AVIF" in image_decoding.FORMATS:
        yield encode(PICTURE, "AVIF", speed=10)


ORIGINALS = list(originals())


def change(data, random):
    """The file with some of its header changed."""
    if data[:2] == b"\xff\xd8":
        return change_jpeg(data, random)
    if data[:4] == b"\x89PNG":
        return change_png(data, random)
    changed = bytearray(data)
    # A TIFF's directory may stand at the end.
    start = 0 if random.rand() < 0.5 else max(len(data) - 200, 0)
    for _ in range(random.randint(1, 4)):
        changed[start + random.randint(min(200, len(data)))] = number(random)
    return bytes(changed)


def number(random):
    """A byte, more often one that means something."""
    return int(random.choice([0, 1, 2, 3, 4, 8, 12, 16, 255, random.randint(256)]))


def change_jpeg(data, random):
    """Segments with other bytes, twice, left out, in another order, or of another marker."""
    parts, rest = jpegs.segments(data)
    for _ in range(random.randint(1, 4)):
        at = random.randint(len(parts))
        marker, payload = parts[at]
        kind = random.randint(6)
        if kind < 3 and payload:
            changed = bytearray(payload)
            changed[random.randint(min(len(payload), 20))] = number(random)
            parts[at] = marker, bytes(changed)
        elif kind == 3:
            others = [*range(0xC0, 0xD0), *range(0xDA, 0xE2), 0xEE, 0xFE]
            parts[at] = int(random.choice(others)), payload
        elif kind == 4:
            parts.insert(random.randint(len(parts)), parts[at])
        elif len(parts) > 1:
            del parts[at]
    if random.rand() < 0.2:  # a second frame, or a height, within the scan
        cut = random.randint(len(rest))
        extra = jpegs.frame(number(random), 64, 64, [(1, 0x11, 0)] * 3)
        rest = rest[:cut] + extra + rest[cut:]
    return jpegs.join(parts, rest)


def change_png(data, random):
    """A header or a chunk with other bytes and right checksums."""
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    at = 0 if random.rand() < 0.7 else random.randint(len(chunks))
    name, payload = chunks[at]
    changed = bytearray(payload)
    for _ in range(random.randint(1, 3) if payload else 0):
        changed[random.randint(min(len(payload), 20))] = number(random)
    chunks[at] = name, bytes(changed)
    return data[:8] + b"".join(
        struct.pack(">I", len(payload))
        + name
        + payload
        + struct.pack(">I", zlib.crc32(name + payload))
        for name, payload in chunks
    )


def attempt(data):
    """Everything that is done with an image, at every scale."""
    for options in (
        {},
        {"rows": 9, "fast": True},
        *({"shrink": n, "fast": True} for n in (2, 4, 8)),
    ):
        try:
            image = image_decoding.EncodedImage(data, {"float": (0, 255)})
            if image.height * image.width > 4_000_000:
                return  # it would take its time, and no other way
            pixels = image.decode(**options)
        except image_decoding.BadImageError:
            continue
        assert pixels.shape[1] == -(-image.width // options.get("shrink", 1)) or (
            pixels.shape[:2] == (image.height, image.width)
        )
        pixels.copy()  # reads all of it


def main(first, last):
    """Tries the cases from first to last."""
    for case in range(first, last):
        print(case, flush=True)
        data = ORIGINALS[case % len(ORIGINALS)]
        attempt(change(data, np.random.RandomState(case)))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
