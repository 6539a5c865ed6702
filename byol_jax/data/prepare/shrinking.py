"""Makes images smaller: a JPEG of a shorter side of so many pixels."""

import cv2
import numpy as np
import simplejpeg

from byol_jax.data import gray, image_decoding


def shrink(
    data: bytes, *, shorter_side: int, quality: int, ranges: gray.Ranges | None = None
) -> bytes:
    """An image as a JPEG whose shorter side is at most so many pixels; none is enlarged.

    Args:
      data: the bytes of the file.
      shorter_side: in pixels.
      quality: of JPEG.
      ranges: of grayscale of more than 8 bits, which becomes 8 bits.

    Raises:
      image_decoding.BadImageError: not an image that can be used.
    """
    image = image_decoding.EncodedImage(data, ranges)
    side = min(image.height, image.width)
    if image.format == "JPEG" and side <= shorter_side:
        image.decode(shrink=8, fast=True)  # only to see whether it is damaged
        return data
    factor = next((n for n in (8, 4, 2) if side >= n * shorter_side), 1)
    pixels = image.decode(shrink=factor)
    if side > shorter_side:
        size = [max(round(n * shorter_side / side), 1) for n in (image.width, image.height)]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    pixels = np.ascontiguousarray(pixels)
    return simplejpeg.encode_jpeg(pixels, quality, colorspace="RGB", colorsubsampling="420")
