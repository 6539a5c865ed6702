"""Which decoder may have which file, orders of orientation, and what strange files come out as."""

import pathlib
import struct
import subprocess
import sys

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from byol_jax.data import image_decoding, jpeg_header
from tests.support import jpegs
from tests.support.samples import assert_shows, drawn_picture, encode, lay

ROOT = pathlib.Path(__file__).parents[2]
PICTURE = drawn_picture(45, 61)
GRAY = np.asarray(PIL.Image.fromarray(PICTURE).convert("L"))
JPEG = encode(PICTURE, "JPEG", quality=95)


def decode(data, **options):
    return image_decoding.EncodedImage(data).decode(**options)


# Which JPEGs the fast decoder may have.


@pytest.mark.parametrize(
    "options",
    [
        *({"subsampling": number} for number in (0, 1, 2)),
        {"progressive": True},
        {"restart_marker_blocks": 3},
        {"comment": b"a comment"},
        {"exif": b"Exif\0\0" + PIL.Image.Exif().tobytes()},
    ],
)
def test_usual_jpegs_take_the_fast_path(options):
    header = jpeg_header.read(encode(PICTURE, "JPEG", **options))
    assert (header.height, header.width) == (45, 61)
    assert header.is_one_pass == ("progressive" not in options)
    assert jpeg_header.read(encode(GRAY, "JPEG", **options))


def changed_frame(**changes):
    """The picture's JPEG with bytes of its frame changed, by their place after the marker."""
    data = bytearray(JPEG)
    at = data.index(b"\xff\xc0")
    for place, value in changes.items():
        data[at + int(place.removeprefix("at"))] = value
    return bytes(data)


FRAME = jpegs.frame(0xC0, 45, 61, [(1, 0x22, 0), (2, 0x11, 1), (3, 0x11, 1)])


@pytest.mark.parametrize(
    "data",
    [
        jpegs.lossless(45, 61),
        jpegs.lossless(45, 61, channels=1),
        encode(PIL.Image.fromarray(PICTURE).convert("CMYK"), "JPEG"),
        *(changed_frame(at1=marker) for marker in (0xC3, 0xC5, 0xC9, 0xCA, 0xCB, 0xCF)),
        changed_frame(at4=12),  # bits
        changed_frame(at5=0, at6=0),  # the height comes later
        changed_frame(at7=0, at8=0),
        changed_frame(at9=2),
        changed_frame(at3=20),  # length
        changed_frame(at11=0x24),  # 4:1:0
        changed_frame(at11=0x11, at14=0x22),
        jpegs.with_segments(JPEG, FRAME),
        jpegs.with_segments(JPEG, FRAME, before=jpegs.SOS),
        jpegs.with_segments(JPEG, b"stray"),
        jpegs.with_segments(JPEG, b"\xff\xd8"),
        jpegs.with_segments(JPEG, jpegs.segment(0xCC, b"\0\0")),
        jpegs.with_segments(JPEG, jpegs.segment(0xDC, b"\0\1")),
        *(JPEG[:length] for length in (2, 3, 20, 158, 300, JPEG.index(b"\xff\xda") + 4)),
    ],
)
def test_unusual_jpegs_do_not(data):
    assert jpeg_header.read(data) is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_a_lossless_jpeg_is_read_whole_whatever_it_is_shrunk_by(channels, shrink):
    pixels = decode(jpegs.lossless(40, 24, channels=channels), shrink=shrink, fast=True)
    np.testing.assert_array_equal(pixels, np.full((40, 24, 3), 128))


def fuzz(first, last):
    """Runs cases in a child; its exit status and the case that it tried last."""
    command = [sys.executable, "-m", "tests.support.image_fuzz", str(first), str(last)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.split()[-1:], done.stderr[-500:]


def test_no_changed_header_crashes_a_decoder():
    code, case, text = fuzz(0, 200)
    assert code == 0, (case, text)


@pytest.mark.slow
@pytest.mark.parametrize("first", [200, 20_200])
def test_no_changed_header_of_many_crashes_a_decoder(first):
    code, case, text = fuzz(first, first + 20_000)
    assert code == 0, (case, text)


# What Pillow reads is read.


@pytest.mark.parametrize(
    "data",
    [
        jpegs.with_segments(JPEG, b"stray bytes"),
        jpegs.with_segments(JPEG, jpegs.segment(0xE2, b"ICC_PROFILE\0\x09\x02" + bytes(9))),
        jpegs.with_segments(JPEG, b"\xff" * 5),
    ],
)
@pytest.mark.parametrize("shrink", [1, 2])
def test_jpegs_with_a_clumsy_header_are_read(data, shrink):
    assert decode(data, shrink=shrink).shape[0] in (45, 23)
    assert_shows(decode(data), PICTURE, 2)


@pytest.mark.parametrize("luma", [0x42, 0x24, 0x31, 0x14, 0x44])
def test_unusual_sampling_is_read(luma):
    data = jpegs.flat(64, 96, [luma, 0x11, 0x11] if luma != 0x44 else [luma])  # 0x42: 4:1:0
    assert jpeg_header.read(data) is None
    for shrink in (1, 2, 8):
        np.testing.assert_array_equal(decode(data, shrink=shrink), np.full((64, 96, 3), 128))


def big_tiff(pixels):
    """An uncompressed BigTIFF of RGB."""
    height, width, _ = pixels.shape
    tags = [(256, 3, width), (257, 3, height), (259, 3, 1), (262, 3, 2), (277, 3, 3), (284, 3, 1)]
    tags += [(258, 3, (8, 8, 8)), (273, 16, 0), (278, 3, height), (279, 16, pixels.size)]
    start = 16 + 8 + 20 * len(tags) + 8
    body = struct.pack("<Q", len(tags))
    for tag, kind, value in sorted(tags):
        value = start if tag == 273 else value
        many = value if isinstance(value, tuple) else (value,)
        packed = b"".join(struct.pack("<H" if kind == 3 else "<Q", v) for v in many)
        body += struct.pack("<HHQ", tag, kind, len(many)) + packed.ljust(8, b"\0")
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16)
    return head + body + bytes(8) + pixels.tobytes()


def test_a_big_tiff_is_read():
    np.testing.assert_array_equal(decode(big_tiff(PICTURE)), PICTURE)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("exif", [b"garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"MM"])
def test_exif_that_cannot_be_read_turns_nothing(name, exif):
    options = {"lossless": True} if name == "WEBP" else {}
    if name == "TIFF":
        pytest.skip("its tags are the image's own")
    assert_shows(decode(encode(PICTURE, name, exif=exif, quality=95, **options)), PICTURE, 2)


# Orientation, wherever it is written.


def exif_of(orientation):
    exif = PIL.Image.Exif()
    exif[274] = orientation
    return exif.tobytes()


def xmp_of(orientation):
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


FAR = [jpegs.segment(0xED, bytes(60_000)), jpegs.segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(9000))]


@pytest.mark.parametrize("orientation", [3, 6, 7])
@pytest.mark.parametrize("kind", ["exif", "xmp"])
@pytest.mark.parametrize("before", [[], FAR])
def test_a_jpeg_is_turned_however_far_its_orientation_is(orientation, kind, before):
    data = encode(lay(PICTURE, orientation), "JPEG", quality=95)
    head = b"Exif\0\0" if kind == "exif" else b"http://ns.adobe.com/xap/1.0/\0"
    body = exif_of(orientation).removeprefix(b"Exif\0\0") if kind == "exif" else xmp_of(orientation)
    data = jpegs.with_segments(data, *before, jpegs.segment(0xE1, head + body))
    image = image_decoding.EncodedImage(data)
    assert (image.height, image.width) == PICTURE.shape[:2]
    assert_shows(image.decode(), PICTURE, 2)
    assert_shows(decode(jpegs.with_segments(data, b"stray")), PICTURE, 2)


@pytest.mark.parametrize("orientation", [3, 6, 7])
@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", *image_decoding.FORMATS.keys() & {"AVIF"}])
@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_other_formats_are_turned_as_pillow_turns_them(orientation, name, kind):
    options = {"xmp": xmp_of(orientation)} if kind == "xmp" else {"exif": exif_of(orientation)}
    if name == "PNG" and kind == "xmp":
        info = PIL.PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp_of(orientation).decode(), zip=True)
        options = {"pnginfo": info}
    if name == "TIFF" and kind == "xmp":
        options = {"tiffinfo": {700: xmp_of(orientation)}}
    data = encode(lay(PICTURE, orientation), name, quality=95, **options)
    image = image_decoding.EncodedImage(data)
    assert (image.height, image.width) == PICTURE.shape[:2]
    assert_shows(image.decode(), PICTURE, 3)


def test_a_png_is_turned_by_what_stands_behind_its_pixels():
    data = encode(lay(PICTURE, 6), "PNG", exif=exif_of(6))
    at = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[at : at + 4], "big")
    moved = data[:at] + data[at + length : -12] + data[at : at + length] + data[-12:]
    assert moved.index(b"eXIf") > moved.index(b"IDAT")
    np.testing.assert_array_equal(decode(moved), PICTURE)


# Formats that a plug-in reads, or nobody.


@pytest.mark.skipif("AVIF" not in image_decoding.FORMATS, reason="this Pillow has no AVIF")
def test_an_avif_is_read():
    assert image_decoding.EXTENSIONS[".avif"] == "AVIF"
    assert_shows(decode(encode(PICTURE, "AVIF", quality=95)), PICTURE, 3)


def test_no_extension_is_read_and_unread():
    assert not image_decoding.EXTENSIONS.keys() & image_decoding.UNREAD.keys()
    assert {".heic", ".avif"} <= image_decoding.EXTENSIONS.keys() | image_decoding.UNREAD.keys()


@pytest.mark.skipif("HEIF" in image_decoding.FORMATS, reason="pillow-heif is installed")
def test_a_heic_file_says_what_to_install():
    data = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(64)
    with pytest.raises(
        image_decoding.BadImageError, match="HEIC is not read: pip install pillow-heif"
    ):
        image_decoding.EncodedImage(data)
