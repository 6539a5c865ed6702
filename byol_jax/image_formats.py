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
    Unread("AVIF", "pip install 'pillow>=11.3' reads them"): () if HAS_AVIF else _AVIF,
    Unread("HEIC", "pip install pillow-heif reads them"): () if HAS_HEIF else _HEIF,
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
