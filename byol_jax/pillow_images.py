"""Images through Pillow: opened, turned and made RGB in little memory; slower and more tolerant."""

import importlib
import io
import warnings
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import PIL.Image

from byol_jax import grey, image_files, image_formats

if image_formats.HAS_HEIF:
    importlib.import_module("pillow_heif").register_heif_opener()

PIL.Image.MAX_IMAGE_PIXELS = None  # sizes are checked by `images`
warnings.filterwarnings("ignore", module="PIL")  # about damage that can be ignored

_ORIENTATION = 274  # of EXIF and TIFF
_STRIP = 1 << 20  # pixels that are converted at a time

# Bytes that a pixel takes while it is decoded and converted, at most; measured, in
# experiments/decoding. Three of them are the result.
BYTES_PER_PIXEL = {
    "JPEG": 17,  # all coefficients of a progressive one
    "PNG": 8,
    "BMP": 8,
    "TIFF": 20,  # a strip of 16-bit RGBA may be the whole image
    "WEBP": 24,
    "AVIF": 24,
    "HEIF": 24,
}


def open_image(data: bytes, name: str) -> PIL.Image.Image:
    """Reads the header.

    Raises:
      image_formats.BadImageError: it is damaged.
    """
    try:
        return PIL.Image.open(io.BytesIO(data), formats=[name])
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        _raise_damaged(name, error)


def orientation(image: PIL.Image.Image, data: bytes) -> int:
    """What EXIF or XMP say of it; 1, upright, if they cannot be read.

    Pillow decodes a PNG to look behind its pixels, so only if there may be something.
    """
    names = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
    if image.format == "PNG" and not any(name in data for name in names):
        return 1
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # as above
        image_files.require_system(error, f"a {image.format} image")
        return 1


def turns_itself(image: PIL.Image.Image) -> bool:
    """Whether Pillow turns the image when it is decoded, and tells its upright size before."""
    return image.format == "TIFF" and _ORIENTATION in image.tag_v2


def bytes_needed(image: PIL.Image.Image) -> int:
    """Memory for decoding and converting an image, at most."""
    width, height = image.size
    # A tile of a TIFF is decoded whole, and may be larger than the image.
    tags = getattr(image, "tag_v2", {})
    tile = [tags.get(tag) for tag in (322, 323)]
    is_tiled = all(isinstance(side, int) for side in tile)
    pixels = max(width * height, tile[0] * tile[1] if is_tiled else 0)
    return pixels * BYTES_PER_PIXEL[image.format if image.format != "MPO" else "JPEG"]


def to_rgb(image: PIL.Image.Image, data: bytes, ranges: grey.Ranges) -> np.ndarray:
    """The pixels, uint8 [H, W, 3], not turned; what is transparent is on white.

    Args:
      image: from `open_image`.
      data: the file.
      ranges: of grey values of more than 8 bits, where the file does not say it.

    Raises:
      image_formats.BadImageError: it is damaged, or its values mean nothing without ``ranges``.
    """
    load(image)
    try:
        return _convert(image, data, ranges)
    except image_formats.BadImageError:
        raise
    except Exception as error:  # as above
        _raise_damaged(image.format, error)


def _convert(image: PIL.Image.Image, data: bytes, ranges: grey.Ranges) -> np.ndarray:
    kind = grey.kind(image)
    low_high = _range(image, data, kind, ranges) if kind else None
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    top = 0
    for strip in _strips(image):
        part = _grey_to_bytes(strip, image, kind, low_high) if kind else _strip_to_rgb(strip)
        pixels[top : top + strip.height] = part
        top += strip.height
    return pixels


def load(image: PIL.Image.Image) -> None:
    """Decodes the image.

    Raises:
      image_formats.BadImageError: it is damaged.
    """
    try:
        image.load()
    except Exception as error:  # as above
        _raise_damaged(image.format, error)


def unstated_grey(image: PIL.Image.Image, data: bytes) -> tuple[str, np.ndarray] | None:
    """Kind and values of deep grey of which the file does not say what is white; else None."""
    kind = grey.kind(image)
    if not kind or grey.stated_range(image):
        return None
    load(image)
    if image.format == "PNG" and grey.significant_bits(data):
        return None
    return kind, grey.values(image, kind)


def _raise_damaged(name: str, error: Exception) -> NoReturn:
    image_files.require_system(error, f"a {name} image")
    raise image_formats.BadImageError(f"damaged {name}: {error}") from None


def _range(
    image: PIL.Image.Image, data: bytes, kind: str, ranges: grey.Ranges
) -> tuple[float, float]:
    if stated := grey.stated_range(image):
        return stated
    bits = grey.significant_bits(data) if image.format == "PNG" else None
    if bits:
        parts = [grey.values(strip, kind) for strip in _strips(image)]
        return grey.FULL if grey.is_scaled_up(parts, bits) else (0, 2**bits - 1)
    if kind in ranges:
        return ranges[kind]
    if kind == "float":
        raise image_formats.BadImageError("floating-point pixels, and their range is not known")
    lowest, highest = image.getextrema() if image.mode == "I" else grey.FULL
    if lowest < 0 or highest > grey.FULL[1]:
        raise image_formats.BadImageError(
            "grey values of more than 16 bits, and their range is not known"
        )
    return grey.FULL


def _strips(image: PIL.Image.Image) -> Iterator[PIL.Image.Image]:
    width, height = image.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        yield image
        return
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(top + rows, height)))


def _grey_to_bytes(
    strip: PIL.Image.Image, image: PIL.Image.Image, kind: str, low_high: tuple[float, float]
) -> np.ndarray:
    shades = grey.to_bytes(grey.values(strip, kind), *low_high)
    return (255 - shades if grey.is_inverted(image) else shades)[:, :, None]


def _strip_to_rgb(strip: PIL.Image.Image) -> np.ndarray:
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        white = PIL.Image.new("RGBA", strip.size, "white")
        strip = PIL.Image.alpha_composite(white, strip)
    return np.asarray(strip.convert("RGB"))
