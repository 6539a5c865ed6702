"""Image formats by file name extension and by first bytes: which are read, which are not.

HEIC is read where pillow-heif is installed, AVIF where Pillow was built with it.
"""

import importlib.util
from typing import NamedTuple

import PIL.features

_CONVERT = "convert them to PNG or JPEG"
HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
HAS_AVIF = "avif" in PIL.features.modules and PIL.features.check("avif")

_AVIF, _HEIF = (".avif", ".avifs"), (".heic", ".heif", ".heics", ".heifs", ".hif")
FORMATS = {  # that are read, by Pillow's name of each: file name extensions
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
if HAS_AVIF:
    FORMATS["AVIF"] = _AVIF
if HAS_HEIF:
    FORMATS["HEIF"] = _HEIF
EXTENSIONS = {extension: name for name, group in FORMATS.items() for extension in group}


class Unread(NamedTuple):
    """An image format that is known and not read.

    Attributes:
      name: what people call it.
      advice: what to do with such files, to follow a colon.
    """

    name: str
    advice: str


_UNREAD = {
    Unread("AVIF", "pip install 'pillow>=11.3' to read them"): () if HAS_AVIF else _AVIF,
    Unread("HEIC", "pip install pillow-heif to read them"): () if HAS_HEIF else _HEIF,
    Unread("GIF", _CONVERT): (".gif",),
    Unread("JPEG XL", _CONVERT): (".jxl",),
    Unread("JPEG 2000", _CONVERT): (".jp2", ".j2k", ".jpx", ".jpf", ".jpc"),
    Unread("camera raw", _CONVERT): (
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf"),
        *(".rw2", ".raf", ".pef", ".srw", ".rwl", ".3fr", ".iiq", ".x3f", ".raw"),
    ),
    Unread("DICOM", _CONVERT): (".dcm", ".dicom"),
    Unread("PPM", _CONVERT): (".ppm", ".pgm", ".pbm", ".pnm", ".pam"),
    Unread("TGA", _CONVERT): (".tga",),
    Unread("OpenEXR", _CONVERT): (".exr",),
    Unread("Radiance HDR", _CONVERT): (".hdr",),
    Unread("Photoshop", _CONVERT): (".psd", ".psb"),
    Unread("SVG", _CONVERT): (".svg", ".svgz"),
}
# By extension, in small letters; none of them is in `EXTENSIONS`.
UNREAD = {extension: unread for unread, group in _UNREAD.items() for extension in group}


class BadImageError(ValueError):
    """A file that cannot be used as an image; the text is the reason."""


def sniff(data: bytes) -> str:
    """The format, a key of `FORMATS`, by the first bytes of a file.

    Raises:
      BadImageError: it is of none of them; names the format where it is a known one.
    """
    if not data:
        raise BadImageError("empty file")
    name = next((name for name, is_it in _MAGIC.items() if is_it(data)), None)
    if name in FORMATS:
        return name
    unread = next((unread for unread in _UNREAD if unread.name == name), None)
    if unread:
        raise BadImageError(f"{name} is not read: {unread.advice}")
    raise BadImageError(f"not an image: none of {', '.join(FORMATS)}")


def _brands(data: bytes) -> set[bytes]:
    """The brands of an ISO base media file: what it says that it is compatible with."""
    end = min(int.from_bytes(data[:4], "big"), 256) if data[4:8] == b"ftyp" else 0
    return {data[at : at + 4] for at in (8, *range(16, end, 4))} if end else set()


_MAGIC = {
    "JPEG": lambda data: data[:3] == b"\xff\xd8\xff",
    "PNG": lambda data: data[:8] == b"\x89PNG\r\n\x1a\n",
    "WEBP": lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP",
    "BMP": lambda data: data[:2] == b"BM",
    # The last two are BigTIFF's.
    "TIFF": lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "AVIF": lambda data: not _brands(data).isdisjoint((b"avif", b"avis")),
    "HEIF" if HAS_HEIF else "HEIC": lambda data: (
        not _brands(data).isdisjoint((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1"))
    ),
    "GIF": lambda data: data[:6] in (b"GIF87a", b"GIF89a"),
    "JPEG XL": lambda data: data[:2] == b"\xff\x0a" or data[:12] == b"\0\0\0\x0cJXL \r\n\x87\n",
    "JPEG 2000": lambda data: (
        data[:4] == b"\xff\x4f\xff\x51" or data[:12] == b"\0\0\0\x0cjP  \r\n\x87\n"
    ),
    "Photoshop": lambda data: data[:4] == b"8BPS",
    "OpenEXR": lambda data: data[:4] == b"\x76\x2f\x31\x01",
    "DICOM": lambda data: data[128:132] == b"DICM",
}
