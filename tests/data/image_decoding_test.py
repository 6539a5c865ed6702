"""Image files of every kind against the pictures they were made from, and files that are not."""

import struct
import time
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import pytest

from byol_jax.data import image_decoding
from tests.support.samples import SIDES, assert_shows, drawn_picture, encode, lay

PICTURE = drawn_picture(45, 61)
GRAY = np.asarray(PIL.Image.fromarray(PICTURE).convert("L"))


def decode(data, **options):
    return image_decoding.EncodedImage(data).decode(**options)


def in_three(gray):
    return np.repeat(np.asarray(gray)[:, :, None], 3, axis=2)


# Formats and pixels of all kinds.


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF"])
def test_formats_without_loss_come_out_as_they_went_in(name):
    image = image_decoding.EncodedImage(encode(PICTURE, name))
    assert (image.format, image.height, image.width) == (name, 45, 61)
    assert_shows(image.decode(), PICTURE, 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"compression": "jpeg", "quality": 95}),
    ],
)
@pytest.mark.parametrize("fast", [False, True])
def test_compressed_images_are_near_the_picture(name, options, fast):
    image = image_decoding.EncodedImage(encode(PICTURE, name, **options))
    assert (image.format, image.height, image.width) == (name, 45, 61)
    assert_shows(image.decode(fast=fast), PICTURE, 2)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_gray_becomes_three_equal_channels(name):
    pixels = decode(encode(GRAY, name, quality=95))
    assert_shows(pixels, in_three(GRAY), 1.5)
    assert np.ptp(pixels.astype(int), axis=2).max() <= (1 if name == "WEBP" else 0)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("LA", "PNG"), ("LA", "TIFF")],
)
def test_what_is_transparent_becomes_white(mode, name):
    alpha = np.tile(np.linspace(0, 255, 61).astype(np.uint8), (45, 1))
    gray = mode == "LA"
    channels = np.dstack([GRAY if gray else PICTURE, alpha])
    picture = in_three(GRAY) if gray else PICTURE
    fraction = alpha[:, :, None] / 255
    expected = fraction * picture + (1 - fraction) * 255
    options = {"lossless": True} if name == "WEBP" else {}
    data = encode(PIL.Image.fromarray(channels, mode), name, **options)
    assert_shows(decode(data), expected, 1)
    assert (decode(data)[:, 0] == 255).all()


def test_a_palette_is_looked_up():
    image = PIL.Image.fromarray(PICTURE).quantize(64)
    assert image.mode == "P"
    assert_shows(decode(encode(image, "PNG")), np.asarray(image.convert("RGB")), 0)
    assert_shows(decode(encode(image, "BMP")), np.asarray(image.convert("RGB")), 0)


def test_the_transparent_entry_of_a_palette_becomes_white():
    image = PIL.Image.fromarray((np.arange(256).reshape(16, 16) % 3).astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    pixels = decode(encode(image, "PNG", transparency=1))
    colors = np.array([[10, 20, 30], [255, 255, 255], [70, 80, 90]])
    np.testing.assert_array_equal(pixels, colors[np.arange(256).reshape(16, 16) % 3])


def test_the_transparent_color_of_an_rgb_png_becomes_white():
    picture = np.full((9, 9, 3), 7, np.uint8)
    picture[4] = 1, 2, 3
    pixels = decode(encode(picture, "PNG", transparency=(1, 2, 3)))
    assert (pixels[4] == 255).all() and (np.delete(pixels, 4, 0) == 7).all()


@pytest.mark.parametrize("name", ["PNG", "TIFF", "BMP"])
def test_one_bit_becomes_black_and_white(name):
    bits = GRAY > 120
    assert_shows(decode(encode(PIL.Image.fromarray(bits), name)), in_three(bits * 255), 0)


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bits_of_gray_keep_the_upper_eight(name):
    deep = GRAY.astype(np.uint16) * 256 + np.arange(61, dtype=np.uint16)
    assert_shows(decode(encode(deep, name)), in_three(GRAY), 0)


def test_big_endian_sixteen_bits_are_read_too():
    deep = (GRAY.astype(np.uint16) * 256).astype(">u2")
    image = PIL.Image.frombytes("I;16B", (61, 45), deep.tobytes())
    assert_shows(decode(encode(image, "TIFF")), in_three(GRAY), 0)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_unknown_range_are_refused(dtype):
    with pytest.raises(image_decoding.BadImageError, match="more than 16 bits|floating-point"):
        decode(encode(PICTURE[:, :, 0].astype(dtype) * 1000, "TIFF"))


def test_cmyk_becomes_rgb():
    image = PIL.Image.fromarray(PICTURE).convert("CMYK")
    assert_shows(decode(encode(image, "JPEG", quality=98)), PICTURE, 3)
    assert_shows(decode(encode(image, "TIFF")), PICTURE, 3)


# Orientation.


def oriented(name, orientation, picture=PICTURE):
    exif = PIL.Image.Exif()
    exif[274] = orientation
    return encode(lay(picture, orientation), name, exif=exif, quality=95)


@pytest.mark.parametrize("shrink", [1, 2])
@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_come_out_upright(name, orientation, shrink):
    image = image_decoding.EncodedImage(oriented(name, orientation))
    assert (image.height, image.width) == PICTURE.shape[:2]
    pixels = image.decode(shrink=shrink)
    if shrink > 1 and name == "JPEG":
        # Averages of 2 x 2 pixels; at an odd side the last ones are of half as many.
        frame = np.pad(PICTURE, [(0, 1), (0, 1), (0, 0)], mode="edge").astype(float)
        if "bottom" in SIDES[orientation]:  # what was the last row is the first that is shown
            frame = np.roll(frame, 1, axis=0)
            frame[0] = frame[1]
        if "right" in SIDES[orientation]:
            frame = np.roll(frame, 1, axis=1)
            frame[:, 0] = frame[:, 1]
        assert_shows(pixels, frame.reshape(23, 2, 31, 2, 3).mean((1, 3)), 2)
    else:
        assert_shows(pixels, PICTURE, 2)


def test_an_unknown_orientation_turns_nothing():
    exif = PIL.Image.Exif()
    exif[274] = 99
    assert_shows(decode(encode(PICTURE, "PNG", exif=exif)), PICTURE, 0)
    assert_shows(decode(encode(PICTURE, "JPEG", exif=exif, quality=95)), PICTURE, 2)


def test_damaged_exif_turns_nothing():
    data = encode(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20), quality=95)
    assert_shows(decode(data), PICTURE, 2)


# Shrinking while decoding.


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("size", [(96, 128), (97, 131), (100, 129), (90, 64)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_shrunk_jpeg_has_the_rounded_up_size_and_shows_the_same(shrink, size, options):
    picture = drawn_picture(*size)
    image = image_decoding.EncodedImage(encode(picture, "JPEG", quality=95, **options))
    pixels = image.decode(shrink=shrink, fast=True)
    height, width = (-(-side // shrink) for side in size)
    assert pixels.shape == (height, width, 3)
    assert (image.height, image.width) == size  # of the whole image still
    padding = [(0, height * shrink - size[0]), (0, width * shrink - size[1]), (0, 0)]
    blocks = np.pad(picture, padding, mode="edge").astype(float)
    means = blocks.reshape(height, shrink, width, shrink, 3).mean((1, 3))
    assert_shows(pixels, means, 2)


@pytest.mark.parametrize("mode", ["CMYK", "RGB"])
def test_what_cannot_be_shrunk_keeps_its_size(mode):
    image = PIL.Image.fromarray(PICTURE).convert(mode)
    data = encode(image, "JPEG" if mode == "CMYK" else "PNG", quality=95)
    assert decode(data, shrink=4).shape == PICTURE.shape


# Files that cannot be used.


def png_chunk(kind, payload):
    checked = kind + payload
    return struct.pack(">I", len(payload)) + checked + struct.pack(">I", zlib.crc32(checked))


def png_with_size(width, height):
    """A PNG whose header, with a right checksum, claims a size that its data do not have."""
    data = encode(PICTURE, "PNG")
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return data[:8] + header + data[33:]


def jpeg_with_size(width, height):
    data = bytearray(encode(PICTURE, "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "^empty file$"),
        (b"no image, only text", "not an image: none of JPEG, PNG, WEBP, BMP, TIFF"),
        (b"\xff", "not an image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "damaged PNG"),
        (b"BM" + bytes(60), "damaged BMP"),
        (b"RIFF\0\0\0\0WEBP" + bytes(60), "damaged WEBP"),
        (b"II*\0" + bytes(60), "damaged TIFF"),
        (b"\xff\xd8\xff\xe0" + np.random.RandomState(0).bytes(4000), "damaged JPEG"),
        (b"\xff\xd8\xff\xd9", "damaged JPEG"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_what_is_no_image_is_refused_with_the_reason(data, reason):
    with pytest.raises(image_decoding.BadImageError, match=reason):
        decode(data)


def test_formats_that_nobody_asked_for_are_refused():
    for name, reason in (("GIF", "GIF is not read"), ("PPM", "not an image")):
        with pytest.raises(image_decoding.BadImageError, match=reason):
            decode(encode(drawn_picture(32, 32), name))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (2, 30000)])
def test_tiny_sides_are_refused(name, size):
    if name == "WEBP" and max(size) > 16383:
        pytest.skip("larger than WebP can be")
    with pytest.raises(image_decoding.BadImageError, match=f"{size[1]} x {size[0]} px: too small"):
        decode(encode(np.zeros((*size, 3), np.uint8), name))


@pytest.mark.parametrize("side", [12_500, 40_000])
@pytest.mark.parametrize("make", [png_with_size, jpeg_with_size])
def test_a_header_that_claims_too_much_is_refused_before_decoding(make, side):
    data = make(side, side)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(image_decoding.BadImageError, match=f"{side} x {side} px: too large"):
        decode(data)
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1 and peak < 1 << 24


def test_as_many_pixels_as_allowed_are_not_refused_by_their_header():
    assert image_decoding.EncodedImage(jpeg_with_size(15_000, 10_000)).width == 15_000
    for data in (jpeg_with_size(15_000, 10_001), png_with_size(15_000, 10_001)):
        with pytest.raises(image_decoding.BadImageError, match="too large"):
            image_decoding.EncodedImage(data)


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("shrink", [1, 2])
def test_a_cut_jpeg_is_refused(fraction, progressive, shrink):
    whole = encode(drawn_picture(200, 150), "JPEG", quality=95, progressive=progressive)
    scan = whole.index(b"\xff\xda") + 20
    with pytest.raises(image_decoding.BadImageError, match="truncated JPEG|damaged JPEG"):
        decode(whole[: scan + int(fraction * (len(whole) - scan))], shrink=shrink)


@pytest.mark.parametrize("length", [3, 10, 100, 300])
def test_a_jpeg_cut_in_its_header_is_refused(length):
    with pytest.raises(image_decoding.BadImageError, match="JPEG"):
        decode(encode(PICTURE, "JPEG")[:length])


@pytest.mark.parametrize("name", ["PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.9])
def test_other_cut_files_are_refused(name, fraction):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    data = encode(noise, name)
    with pytest.raises(image_decoding.BadImageError, match=f"damaged {name}"):
        decode(data[: int(fraction * len(data))])


def test_a_png_with_a_wrong_checksum_is_refused():
    data = bytearray(encode(PICTURE, "PNG"))
    data[len(data) // 2] ^= 255
    with pytest.raises(image_decoding.BadImageError, match="damaged PNG"):
        decode(bytes(data))


# The upper rows alone.


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"restart_marker_blocks": 3}, {"progressive": True}, {"comment": b"\xff\xd9"}]
)
def test_upper_rows_are_those_of_the_whole_jpeg(subsampling, options):
    data = encode(drawn_picture(90, 70), "JPEG", quality=90, subsampling=subsampling, **options)
    whole = decode(data, fast=True)
    for rows in (1, 8, 15, 16, 17, 47, 88, 89, 90):
        upper = decode(data, fast=True, rows=rows)
        assert len(upper) == (90 if "progressive" in options else rows)
        np.testing.assert_array_equal(upper[:rows], whole[:rows])


def test_gray_jpegs_have_upper_rows_too():
    data = encode(np.asarray(PIL.Image.fromarray(PICTURE).convert("L")), "JPEG")
    upper = decode(data, fast=True, rows=20)
    np.testing.assert_array_equal(upper, decode(data, fast=True)[:20])


@pytest.mark.parametrize("name", ["PNG", "WEBP", "BMP", "TIFF"])
def test_other_formats_and_turned_or_shrunk_jpegs_have_all_rows(name):
    assert decode(encode(PICTURE, name), fast=True, rows=9).shape == PICTURE.shape
    exif = PIL.Image.Exif()
    exif[274] = 3
    turned = encode(PICTURE, "JPEG", exif=exif)
    np.testing.assert_array_equal(decode(turned, fast=True, rows=9), decode(turned, fast=True))
    assert decode(encode(PICTURE, "JPEG"), fast=True, rows=9, shrink=2).shape == (23, 31, 3)


@pytest.mark.parametrize("fraction", [0.3, 0.8, 0.99])
@pytest.mark.parametrize("tail", [b"", bytes(5000)])
def test_a_jpeg_cut_below_the_upper_rows_is_refused(fraction, tail):
    whole = encode(drawn_picture(200, 150), "JPEG", quality=95)
    for cut in (int(fraction * len(whole)), len(whole) - 1):
        with pytest.raises(image_decoding.BadImageError, match="truncated JPEG"):
            decode(whole[:cut] + tail, fast=True, rows=20)


def test_a_jpeg_that_ends_within_the_upper_rows_is_refused():
    whole = encode(drawn_picture(200, 150), "JPEG", quality=95)
    with pytest.raises(image_decoding.BadImageError, match="truncated JPEG"):
        decode(whole[: len(whole) // 2] + whole[-2:], fast=True, rows=150)


# Files that are not quite right, and are read.


@pytest.mark.parametrize("tail", [b"\0" * 100, b"junk after the end", b"\xff\xd8\xff\xe0 again"])
def test_bytes_after_the_end_of_a_jpeg_are_ignored(tail):
    data = encode(PICTURE, "JPEG", quality=95)
    np.testing.assert_array_equal(decode(data + tail), decode(data))
    np.testing.assert_array_equal(decode(data + tail, shrink=2), decode(data, shrink=2))


def test_extraneous_bytes_before_the_end_marker_of_a_jpeg_are_ignored():
    data = encode(PICTURE, "JPEG", quality=95)
    np.testing.assert_array_equal(decode(data[:-2] + bytes(5) + data[-2:]), decode(data))
