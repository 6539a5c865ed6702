"""Decodes image files that nobody has vetted, to RGB.

A JPEG whose header holds nothing unusual takes libjpeg-turbo's path, shrunk while it is decoded if
asked; everything else goes through Pillow, which is allowed the formats of `FORMATS` and no others.
"""

import contextlib
import threading

import numpy as np
import simplejpeg

from byol_jax.data import gray, image_files, image_formats, jpeg_header, pillow_images

MIN_SIDE = 8  # px; there is nothing to learn from less
MAX_PIXELS = 150_000_000  # checked before decoding: 450 MB of RGB, a sane camera's limit
MAX_BYTES = 1_300_000_000  # of memory to decode one image in, checked before decoding
# Images that need more than this are decoded one after the other in a process, however many threads
# read: else each of them could need `MAX_BYTES` at the same time.
LARGE_BYTES = 256_000_000

# Which file name extensions are read, and which are of images and are not.
FORMATS, EXTENSIONS, UNREAD = (
    image_formats.FORMATS,
    image_formats.EXTENSIONS,
    image_formats.UNREAD,
)
BadImageError, sniff = image_formats.BadImageError, image_formats.sniff
ReadError, read_file = image_files.ReadError, image_files.read

_END = b"\xff\xd9"  # of a JPEG
_SAMPLE_BYTES = 6  # of the coefficients of a pixel of a JPEG, at most

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

_large_images = threading.RLock()


class EncodedImage:
    """An image file whose header has been read and found sane.

    Args:
      data: the bytes of the file.
      ranges: of gray values of more than 8 bits in its set, where a file does not say it itself.

    Attributes:
      format: a key of `FORMATS`.
      height, width: in pixels, upright, that is after EXIF's orientation has been applied.

    Raises:
      BadImageError: not an image of a known format, or too small, or too large.
    """

    def __init__(self, data: bytes, ranges: gray.Ranges | None = None):
        self.format = sniff(data)
        self._data, self._ranges = data, ranges or {}
        self._header = jpeg_header.read(data) if self.format == "JPEG" else None
        self._pillow, self._upright, self._needed = None, None, 0
        if self._header:
            height, width = self._header.height, self._header.width
        else:
            self._pillow = pillow_images.open_image(data, self.format)
            width, height = self._pillow.size
            self._needed = pillow_images.bytes_needed(self._pillow, data)
        _check_size(height, width)
        self.height, self.width = height, width
        self._check_memory()  # first, since Pillow may decode a PNG to find its EXIF
        if not self._header or self._header.has_orientation:
            self._find_orientation()

    def _find_orientation(self) -> None:
        """Sets what has to be turned; Pillow is slow to open, so not for every JPEG."""
        try:
            image = self._pillow or pillow_images.open_image(self._data, self.format)
        except BadImageError:  # the other decoder may still like it
            return
        with self.room():
            upright = _UPRIGHT.get(pillow_images.orientation(image, self._data))
        is_turned = upright is not None and upright[0]
        if is_turned and not pillow_images.turns_itself(image):
            self.height, self.width = self.width, self.height
        # Pillow turns a TIFF itself, whatever tells it to.
        self._upright = upright if self.format != "TIFF" else None

    def bytes_needed(self, *, shrink: int = 1) -> int:
        """Memory that decoding may take, the result included, at most."""
        if not self._header:
            return self._needed
        pixels = self.height * self.width
        result = 3 * pixels // shrink**2 * (2 if self._upright else 1)
        return result + (0 if self._header.is_one_pass else _SAMPLE_BYTES * pixels)

    def _check_memory(self) -> None:
        needed = self.bytes_needed()
        if needed > MAX_BYTES:
            raise BadImageError(
                f"{self.width} x {self.height} px: needs {needed / 1e9:.1f} GB to decode, more "
                f"than {MAX_BYTES / 1e9:.1f}"
            )

    def room(self, *, shrink: int = 1) -> contextlib.AbstractContextManager:
        """Holds other large images up while this one is in memory, if it is large itself."""
        is_large = self.bytes_needed(shrink=shrink) > LARGE_BYTES
        return _large_images if is_large else contextlib.nullcontext()

    def decode(self, *, shrink: int = 1, fast: bool = False, rows: int = 0) -> np.ndarray:
        """The pixels, uint8 [H, W, 3], RGB.

        Args:
          shrink: 1, 2, 4 or 8: a JPEG comes out smaller by this factor, rounded up (its high
            frequencies are left out, which costs less than decoding them); others are not shrunk,
            nor are JPEGs that only Pillow may have.
          fast: interpolate a JPEG's colors by the nearest pixel.
          rows: so many of the upper rows are needed (0: all): a JPEG that is decoded fast and
            neither shrunk nor turned comes out without the others. A missing end is still found,
            other damage below is not.

        Raises:
          BadImageError: the file is damaged.
          ReadError: there is not enough memory.
        """
        with self.room(shrink=shrink):
            try:
                if self._header:
                    return self._decode_by_turbo(shrink, fast, rows)
                return self._decode_by_pillow()
            except MemoryError as error:
                image_files.require_system(error, f"{self.width} x {self.height} pixels")

    def _decode_by_turbo(self, shrink: int, fast: bool, rows: int) -> np.ndarray:
        header = self._header
        if 0 < rows < self.height and fast and shrink == 1 and self._upright is None:
            pixels = _decode_upper(self._data, header, rows) if header.is_one_pass else None
            if pixels is not None:
                return pixels
        try:
            pixels = _decode_jpeg(self._data, header, shrink, fast)
        except BadImageError as error:
            if "truncated" in str(error):
                raise
            return self._decode_by_pillow()
        return _turn(pixels, self._upright)

    def _decode_by_pillow(self) -> np.ndarray:
        image = self._pillow or pillow_images.open_image(self._data, self.format)
        self._pillow = None  # to free its memory; it is opened again if need be
        pixels = pillow_images.to_rgb(image, self._data, self._ranges)
        del image
        pixels = _turn(pixels, self._upright)
        if pixels.shape[:2] != (self.height, self.width):
            raise BadImageError(f"damaged {self.format}: its size is not the one it tells")
        return pixels

    def unstated_gray(self) -> tuple[str, np.ndarray] | None:
        """Kind and values of gray of more than 8 bits whose range the file does not tell.

        Raises:
          BadImageError: the file is damaged.
        """
        if self._header:
            return None
        with self.room():
            image = pillow_images.open_image(self._data, self.format)
            return pillow_images.unstated_gray(image, self._data)


def _check_size(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE:
        raise BadImageError(f"{width} x {height} px: too small, the shorter side is < {MIN_SIDE}")
    if height * width > MAX_PIXELS:
        raise BadImageError(f"{width} x {height} px: too large, more than {MAX_PIXELS:,} pixels")


def _decode_jpeg(data: bytes, header: jpeg_header.Header, shrink: int, fast: bool) -> np.ndarray:
    options = {"fastdct": True, "fastupsample": fast}
    if shrink > 1:
        # The decoder takes the smallest of its scales that has at least so many pixels.
        sides = {"min_height": -(-header.height // shrink), "min_width": -(-header.width // shrink)}
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


def _decode_upper(data: bytes, header: jpeg_header.Header, rows: int) -> np.ndarray | None:
    """The upper rows of a JPEG, uint8 [rows, width, 3]; None if they cannot be had alone.

    The decoder stops at the last row that the header tells of, and then looks for the end mark.
    It complains of the bytes on the way there; whatever else it says, the whole has to be decoded.
    """
    if data.rfind(_END, header.frame) < 0:
        return None
    short = bytearray(data)
    short[header.frame + 5 : header.frame + 7] = rows.to_bytes(2, "big")
    pixels = np.empty((rows, header.width, 3), np.uint8)
    try:
        simplejpeg.decode_jpeg(short, fastdct=True, fastupsample=True, strict=True, buffer=pixels)
    except ValueError as error:
        return pixels if "extraneous bytes before marker" in str(error) else None
    return pixels


def _turn(pixels: np.ndarray, upright: tuple[bool, bool, bool] | None) -> np.ndarray:
    if upright is None:
        return pixels
    transpose, flip_rows, flip_columns = upright
    pixels = pixels.transpose(1, 0, 2) if transpose else pixels
    pixels = pixels[::-1] if flip_rows else pixels
    pixels = pixels[:, ::-1] if flip_columns else pixels
    return np.ascontiguousarray(pixels)
