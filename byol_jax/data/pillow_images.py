"""Images through Pillow: opened, turned and made RGB in little memory; slower and more tolerant."""

import importlib
import io
import warnings
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import PIL.Image

from byol_jax.data import deep_color, gray, image_files, image_formats

if image_formats.HAS_HEIF:
    importlib.import_module("pillow_heif").register_heif_opener()

PIL.Image.MAX_IMAGE_PIXELS = None  # sizes are checked by `images`
warnings.filterwarnings("ignore", module="PIL")  # about damage that can be ignored

_ORIENTATION = 274  # of EXIF and TIFF
_LAYOUT = (258, 277, 322, 323)  # TIFF's bits, samples per pixel, width and height of a tile
_STRIP = 1 << 20  # pixels that are converted at a time

# Bytes that a pixel takes while it is decoded and converted, at most; measured by
# experiments/decoding. Three of them are the result.
_BYTES_PER_PIXEL = {
    "JPEG": 13,  # with all coefficients of a progressive CMYK one
    "MPO": 13,  # JPEGs in one file
    "PNG": 8,
    "BMP": 8,
    "WEBP": 19,  # the decoder composes a frame of an animation out of others
    "AVIF": 15,
    "HEIF": 19,
}
_LOWER_BYTES = 5  # of a pixel, more, where the lower bytes of 16 bits are in an image of their own


def open_image(data: bytes, name: str) -> PIL.Image.Image:
    """Reads the header.

    Raises:
      image_formats.BadImageError: it is damaged.
    """
    try:
        return PIL.Image.open(io.BytesIO(data), formats=[name])
    except PIL.UnidentifiedImageError:
        raise image_formats.BadImageError(f"damaged {name}: its header cannot be read") from None
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
    return image.format == "TIFF" and image.tag_v2.get(_ORIENTATION, 1) != 1


def bytes_needed(image: PIL.Image.Image, data: bytes) -> int:
    """Memory for decoding and converting an image, at most."""
    width, height = image.size
    lower = width * height * (_LOWER_BYTES if deep_color.is_deep(image, data) else 0)
    if image.format != "TIFF":
        return width * height * _BYTES_PER_PIXEL[image.format] + lower
    bits, samples, tile_width, tile_height = (_number(image, tag) for tag in _LAYOUT)
    # A strip may be the whole image, and a tile larger than that.
    stored = max(width * height, tile_width * tile_height) * max(1, bits * samples // 8)
    return width * height * (11 if turns_itself(image) else 7) + stored + lower


def _number(image: PIL.Image.Image, tag: int) -> int:
    found = image.tag_v2.get(tag, 1)
    found = max(found, default=1) if isinstance(found, tuple) else found
    return max(1, found) if isinstance(found, int) else 1


def to_rgb(image: PIL.Image.Image, data: bytes, ranges: gray.Ranges) -> np.ndarray:
    """The pixels, uint8 [H, W, 3], not turned; what is transparent is on white.

    Args:
      image: from `open_image`.
      data: the file.
      ranges: of gray values of more than 8 bits, where the file does not say it.

    Raises:
      image_formats.BadImageError: it is damaged, or its values mean nothing without ``ranges``.
    """
    try:
        lower = deep_color.open_lower(image, data) if deep_color.is_deep(image, data) else None
        load(image)
        if lower:
            load(lower)
            return _convert_deep(image, lower, data, ranges)
        return _convert(image, data, ranges)
    except (image_formats.BadImageError, image_files.ReadError):
        raise
    except Exception as error:  # as above
        _raise_damaged(image.format, error)


def _convert(image: PIL.Image.Image, data: bytes, ranges: gray.Ranges) -> np.ndarray:
    kind = gray.kind(image)
    parts = (gray.values(strip, kind) for strip in _strips(image))
    low_high = _range(image, data, kind, ranges, parts) if kind else None
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    top = 0
    for strip in _strips(image):
        part = _gray_to_bytes(strip, image, kind, low_high) if kind else _strip_to_rgb(strip)
        pixels[top : top + strip.height] = part
        top += strip.height
    return pixels


def _convert_deep(
    image: PIL.Image.Image, lower: PIL.Image.Image, data: bytes, ranges: gray.Ranges
) -> np.ndarray:
    """The same of colors of 16 bits."""
    low_high = _range(image, data, "unsigned", ranges, _deep_values(image, lower, data))
    shade = gray.to_bytes(np.arange(65536, dtype=np.uint16), *low_high)
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    top = 0
    for strip, part in zip(_strips(image), _deep_values(image, lower, data), strict=True):
        shades = np.broadcast_to(shade[part], (*part.shape[:2], 3))
        if strip.has_transparency_data:
            alpha = np.asarray(strip)[:, :, 3:]
            strip = PIL.Image.fromarray(np.concatenate([shades, alpha], axis=2))
            shades = _strip_to_rgb(strip)
        pixels[top : top + strip.height] = shades
        top += strip.height
    return pixels


def _deep_values(
    image: PIL.Image.Image, lower: PIL.Image.Image, data: bytes
) -> Iterator[np.ndarray]:
    for upper_strip, lower_strip in zip(_strips(image), _strips(lower), strict=True):
        yield deep_color.values(upper_strip, lower_strip, data)


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG; quick to write rather than small."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def load(image: PIL.Image.Image) -> None:
    """Decodes the image.

    Raises:
      image_formats.BadImageError: it is damaged.
    """
    try:
        image.load()
    except Exception as error:  # as above
        _raise_damaged(image.format, error)


def unstated_gray(image: PIL.Image.Image, data: bytes) -> tuple[str, np.ndarray] | None:
    """Kind and values of more than 8 bits of which the file does not say what is white; or None."""
    is_deep = deep_color.is_deep(image, data)
    kind = "unsigned" if is_deep else gray.kind(image)
    if not kind or gray.stated_range(image):
        return None
    lower = deep_color.open_lower(image, data) if is_deep else None
    load(image)
    if image.format == "PNG" and gray.significant_bits(data):
        return None
    if lower is None:
        return kind, gray.values(image, kind)
    load(lower)
    return kind, deep_color.values(image, lower, data)


def _raise_damaged(name: str, error: Exception) -> NoReturn:
    image_files.require_system(error, f"a {name} image")
    raise image_formats.BadImageError(f"damaged {name}: {error}") from None


def _range(
    image: PIL.Image.Image,
    data: bytes,
    kind: str,
    ranges: gray.Ranges,
    parts: Iterator[np.ndarray],
) -> tuple[float, float]:
    if stated := gray.stated_range(image):
        return stated
    bits = gray.significant_bits(data) if image.format == "PNG" else None
    if bits:
        return gray.FULL if gray.is_scaled_up(list(parts), bits) else (0, 2**bits - 1)
    if kind in ranges:
        return ranges[kind]
    if kind == "float":
        raise image_formats.BadImageError("floating-point pixels, and their range is not known")
    lowest, highest = image.getextrema() if image.mode == "I" else gray.FULL
    if lowest < 0 or highest > gray.FULL[1]:
        raise image_formats.BadImageError(
            "gray values of more than 16 bits, and their range is not known"
        )
    return gray.FULL


def _strips(image: PIL.Image.Image) -> Iterator[PIL.Image.Image]:
    width, height = image.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        yield image
        return
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(top + rows, height)))


def _gray_to_bytes(
    strip: PIL.Image.Image, image: PIL.Image.Image, kind: str, low_high: tuple[float, float]
) -> np.ndarray:
    shades = gray.to_bytes(gray.values(strip, kind), *low_high)
    return (255 - shades if gray.is_inverted(image) else shades)[:, :, None]


def _strip_to_rgb(strip: PIL.Image.Image) -> np.ndarray:
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        white = PIL.Image.new("RGBA", strip.size, "white")
        strip = PIL.Image.alpha_composite(white, strip)
    return np.asarray(strip.convert("RGB"))
