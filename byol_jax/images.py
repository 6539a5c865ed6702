"""Decodes image files that nobody has vetted, to RGB.

A JPEG takes libjpeg-turbo's path, shrunk while it is decoded if asked; everything else, and
CMYK, goes through Pillow, which is allowed the formats of `FORMATS` and no others.
"""

import io
import struct
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps
import simplejpeg

MIN_SIDE = 8  # px; there is nothing to learn from less
MAX_PIXELS = 150_000_000  # checked before decoding: 450 MB of RGB, a sane camera's limit

FORMATS = {  # format: its file name extensions
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
EXTENSIONS = {extension: name for name, group in FORMATS.items() for extension in group}

# JPEG's markers (ITU-T T.81, table B.1).
_BASELINE = (b"\xff\xc0", b"\xff\xc1")
_SCAN, _END = b"\xff\xda", b"\xff\xd9"

_ORIENTATION = 274  # of EXIF
# Flips and turns that undo an EXIF orientation, as (transpose, rows reversed, columns reversed).
_UPRIGHT = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

PIL.Image.MAX_IMAGE_PIXELS = None  # sizes are checked here
warnings.filterwarnings("ignore", module="PIL")  # about damage that can be ignored


class BadImageError(ValueError):
    """A file that cannot be used as an image; the text is the reason."""


class EncodedImage:
    """An image file whose header has been read and found sane.

    Args:
      data: the bytes of the file.

    Attributes:
      format: a key of `FORMATS`.
      height, width: in pixels, upright, that is after EXIF's orientation has been applied.

    Raises:
      BadImageError: not an image of a known format, or too small, or too large.
    """

    def __init__(self, data: bytes):
        self.format = sniff(data)
        self._data = data
        self._pillow = None
        self._is_turbo, self._frame = False, None
        if self.format == "JPEG":
            self._frame = _baseline_frame(data)
            height, width, self._is_turbo = _jpeg_header(data, self._frame)
        # Pillow is slow to open, so of JPEGs only for those that may have something to turn.
        if not self._is_turbo or data.find(b"Exif\0\0", 0, 4096) >= 0:
            self._pillow = _open(data, self.format)
            width, height = self._pillow.size
        _check_size(height, width)  # first, since Pillow decodes a PNG to find its EXIF
        self._upright = _UPRIGHT.get(self._orientation()) if self._pillow is not None else None
        # The size that Pillow reports of a TIFF is upright already.
        is_turned = self._upright is not None and self._upright[0] and self.format != "TIFF"
        self.height, self.width = (width, height) if is_turned else (height, width)

    def _orientation(self) -> int:
        try:
            return self._pillow.getexif().get(_ORIENTATION, 1)
        except Exception as error:  # Pillow raises whatever a damaged file leads it to
            raise BadImageError(f"damaged {self.format}: {error}") from None

    def decode(self, *, shrink: int = 1, fast: bool = False, rows: int = 0) -> np.ndarray:
        """The pixels, uint8 [H, W, 3], RGB.

        Args:
          shrink: 1, 2, 4 or 8: a JPEG comes out smaller by this factor, rounded up (its high
            frequencies are left out, which costs less than decoding them); others are not shrunk.
          fast: interpolate a JPEG's colours by the nearest pixel.
          rows: so many of the upper rows are needed (0: all): a JPEG that is decoded fast and
            neither shrunk nor turned comes out without the others. A missing end is still found,
            other damage below is not.

        Raises:
          BadImageError: the file is damaged.
        """
        if not self._is_turbo:
            return self._decode_by_pillow()
        if 0 < rows < self.height and fast and shrink == 1 and self._upright is None:
            pixels = _decode_upper(self._data, self._frame, rows, self.width)
            if pixels is not None:
                return pixels
        pixels = _decode_jpeg(self._data, self.height, self.width, self._upright, shrink, fast)
        return _turn(pixels, self._upright)

    def _decode_by_pillow(self) -> np.ndarray:
        try:
            return _to_rgb(PIL.ImageOps.exif_transpose(self._pillow))
        except BadImageError:
            raise
        except Exception as error:  # Pillow raises whatever a damaged file leads it to
            raise BadImageError(f"damaged {self.format}: {error}") from None


def sniff(data: bytes) -> str:
    """The format, a key of `FORMATS`, by the first bytes of a file."""
    if not data:
        raise BadImageError("empty file")
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:2] == b"BM":
        return "BMP"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    raise BadImageError(f"not an image: none of {', '.join(FORMATS)}")


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE:
        raise BadImageError(f"{width} x {height} px: too small, the shorter side is < {MIN_SIDE}")
    if height * width > MAX_PIXELS:
        raise BadImageError(f"{width} x {height} px: too large, more than {MAX_PIXELS:,} pixels")


def _open(data: bytes, name: str) -> PIL.Image.Image:
    try:
        return PIL.Image.open(io.BytesIO(data), formats=[name])
    except Exception as error:
        raise BadImageError(f"damaged {name}: {error}") from None


def _jpeg_header(data: bytes, frame: int | None) -> tuple[int, int, bool]:
    """Height, width, and whether libjpeg-turbo can turn it into RGB."""
    if frame is not None and data[frame + 9 : frame + 10] in (b"\1", b"\3"):  # grey, or RGB
        height, width = struct.unpack_from(">HH", data, frame + 5)
        return height, width, True
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise BadImageError(f"damaged JPEG: {error}") from None
    return height, width, colors not in ("CMYK", "YCCK")


def _decode_jpeg(data, height, width, upright, shrink, fast) -> np.ndarray:
    if upright is not None and upright[0]:
        height, width = width, height
    options = {"fastdct": True, "fastupsample": fast}
    if shrink > 1:
        # The decoder takes the smallest of its scales that has at least so many pixels.
        sides = {"min_height": -(-height // shrink), "min_width": -(-width // shrink)}
        options |= sides | {"min_factor": 2}
    try:
        return simplejpeg.decode_jpeg(data, strict=True, **options)
    except ValueError as error:
        # Strictness is there to find cut files; other complaints are about what can be ignored.
        if "remature end" in str(error):
            raise BadImageError("truncated JPEG") from None
        reason = error
    try:
        return simplejpeg.decode_jpeg(data, strict=False, **options)
    except ValueError:
        raise BadImageError(f"damaged JPEG: {reason}") from None


def _decode_upper(data: bytes, frame: int | None, rows: int, width: int) -> np.ndarray | None:
    """The upper rows of a JPEG, uint8 [rows, width, 3]; None if they cannot be had alone.

    The decoder stops at the last row that the header tells of, and then looks for the end mark.
    It complains of the bytes on the way there; whatever else it says, the whole has to be decoded.
    """
    if frame is None or data.rfind(_END, frame) < 0:
        return None
    short = bytearray(data)
    short[frame + 5 : frame + 7] = rows.to_bytes(2, "big")
    pixels = np.empty((rows, width, 3), np.uint8)
    try:
        simplejpeg.decode_jpeg(short, fastdct=True, fastupsample=True, strict=True, buffer=pixels)
    except ValueError as error:
        return pixels if "extraneous bytes before marker" in str(error) else None
    return pixels


def _baseline_frame(data: bytes) -> int | None:
    """Where a JPEG that is coded in one pass describes its frame (T.81, B.2.2); else None."""
    place = 2
    while (marker := data[place : place + 2]) not in _BASELINE:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if marker[:1] != b"\xff" or marker == _SCAN or length < 2:
            return None
        place += 2 + length
    return place


def _turn(pixels: np.ndarray, upright: tuple[bool, bool, bool] | None) -> np.ndarray:
    if upright is None:
        return pixels
    transpose, flip_rows, flip_columns = upright
    pixels = pixels.transpose(1, 0, 2) if transpose else pixels
    pixels = pixels[::-1] if flip_rows else pixels
    pixels = pixels[:, ::-1] if flip_columns else pixels
    return np.ascontiguousarray(pixels)


def _to_rgb(image: PIL.Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]; what is transparent becomes white, 16 bits become 8."""
    if image.mode.startswith("I"):  # 16 bits of grey
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise BadImageError("grey values of more than 16 bits")
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise BadImageError("floating-point pixels")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


UNREAD_FORMATS = {  # images that are not read: format, and its file name extensions
    "HEIC": (".heic", ".heif", ".hif"),
    "AVIF": (".avif",),
    "JPEG XL": (".jxl",),
    "JPEG 2000": (".jp2", ".j2k", ".jpx"),
    "GIF": (".gif",),
    "DICOM": (".dcm",),
    "camera RAW": (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
}
UNREAD_EXTENSIONS = {ending: name for name, group in UNREAD_FORMATS.items() for ending in group}
