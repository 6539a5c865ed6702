"""Memory that images may take: bounded before decoding, one large one at a time, and kept to."""

import pathlib
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent import futures

import numpy as np
import PIL.Image
import pytest

from byol_jax.data import image_decoding
from tests.data.image_decoding_test import jpeg_with_size, png_chunk
from tests.support import systems
from tests.support.samples import drawn_picture, encode

ROOT = pathlib.Path(__file__).parents[2]
PICTURE = drawn_picture(45, 61)


def large_cmyk_jpeg():
    data = bytearray(encode(PIL.Image.fromarray(PICTURE).convert("CMYK"), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 12_000, 12_000)
    return bytes(data)


def large_progressive_jpeg():
    data = bytearray(encode(PICTURE, "JPEG", progressive=True))
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", 14_000, 10_700)
    return bytes(data)


def large_webp():
    data = bytearray(encode(PICTURE, "WEBP", lossless=True))
    bits = struct.unpack_from("<I", data, 21)[0] & ~0xFFFFFFF
    struct.pack_into("<I", data, 21, bits | 11_999 | 11_999 << 14)
    return bytes(data)


def tiff_of_a_huge_tile():
    tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, 65_536), (323, 32_768), (324, 200), (325, 99)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(300)


@pytest.mark.parametrize(
    ("make", "gigabytes"),
    [
        (large_cmyk_jpeg, "1.9"),
        (large_progressive_jpeg, "1.3"),
        (large_webp, "2.7"),
        (tiff_of_a_huge_tile, "2.1"),
    ],
)
def test_an_image_that_needs_too_much_memory_is_refused_before_it_takes_it(make, gigabytes):
    with pytest.raises(
        image_decoding.BadImageError, match=f"needs {gigabytes} GB to decode, more than"
    ):
        image_decoding.EncodedImage(make())


def test_a_jpeg_that_is_decoded_row_by_row_may_be_as_large_as_any():
    image = image_decoding.EncodedImage(jpeg_with_size(15_000, 10_000))
    assert image.bytes_needed() == 450_000_000
    assert image.bytes_needed(shrink=8) < 10_000_000


@pytest.mark.parametrize(("limit", "most"), [(1000, 1), (10**9, 4)])
def test_large_images_are_decoded_one_at_a_time(monkeypatch, limit, most):
    monkeypatch.setattr(image_decoding, "LARGE_BYTES", limit)
    lock, now, peak = threading.Lock(), [0], [0]
    decode = image_decoding.pillow_images.to_rgb

    def watched(*arguments):
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
        time.sleep(0.05)
        pixels = decode(*arguments)
        with lock:
            now[0] -= 1
        return pixels

    monkeypatch.setattr(image_decoding.pillow_images, "to_rgb", watched)
    data = encode(PICTURE)
    with futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: image_decoding.EncodedImage(data).decode(), range(8)))
    assert peak[0] <= most if most == 1 else peak[0] > 1


def largest_png():
    """As many pixels as are allowed, with alpha and interlaced by nothing: a few hundred KB."""
    side = 12_240
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    packer = zlib.compressobj(1)
    rows = bytes((1 + 4 * side) * 120)
    body = b"".join(packer.compress(rows) for _ in range(side // 120)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def decode_largest():
    """What a child does: prints the peak of its memory above what it had before, in bytes."""
    data = largest_png()
    before = memory("VmRSS")
    pixels = image_decoding.EncodedImage(data).decode()
    print(memory("VmHWM") - before, pixels.min(), len(data))


def memory(key):
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(key))


@systems.NEEDS_PROC
@pytest.mark.slow
def test_the_largest_png_keeps_to_the_limit():
    program = "from tests.data import image_memory_test; image_memory_test.decode_largest()"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    peak, least, size = map(int, done.stdout.split())
    assert least == 255 and size < 5_000_000  # transparent: white
    assert peak <= image_decoding.MAX_BYTES
    assert peak >= 7 * 12_240**2 * 0.95


def test_converting_in_strips_changes_nothing(monkeypatch):
    alpha = np.dstack([PICTURE, PICTURE[:, :, 0]])
    files = [encode(PICTURE), encode(alpha), encode(PIL.Image.fromarray(PICTURE).quantize(9))]
    whole = [image_decoding.EncodedImage(data).decode() for data in files]
    monkeypatch.setattr(image_decoding.pillow_images, "_STRIP", 200)
    for data, pixels in zip(files, whole, strict=True):
        np.testing.assert_array_equal(image_decoding.EncodedImage(data).decode(), pixels)
