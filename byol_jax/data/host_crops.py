"""Cuts training views and evaluation crops out of encoded images, on the host.

An image is decoded once for both of its views. Windows are distributed as the reference draws
them. Training views are resized by OpenCV (bicubic, a = -3/4); evaluation crops exactly as the
reference's (bicubic, Keys 1981, a = -1/2); neither smooths before shrinking.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from byol_jax.augment import resize_kernels
from byol_jax.data import image_decoding

cv2.setNumThreads(1)  # the pipeline's own threads are enough

CENTER_SHARE = 0.875  # of the shorter side, that the reference evaluates


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_window(
    uniforms: np.ndarray,
    height: int,
    width: int,
    *,
    area_range: tuple[float, float] = (0.08, 1.0),
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3),
) -> Window:
    """The training window that four numbers, uniform on [0, 1), stand for.

    The fraction of the area and the logarithm of width / height are uniform on their ranges, the
    corner is uniform where the window fits; a side longer than the image is cut, not drawn again,
    as in the reference.
    """
    u = uniforms.tolist()
    pixels = (area_range[0] + (area_range[1] - area_range[0]) * u[0]) * height * width
    low, high = math.log(aspect_range[0]), math.log(aspect_range[1])
    sides = window_sides(pixels, low + (high - low) * u[1], height, width)
    top, left = int(u[2] * (height - sides[0] + 1)), int(u[3] * (width - sides[1] + 1))
    return Window(top, left, *sides)


def draw_windows(
    uniforms: np.ndarray,
    image: image_decoding.EncodedImage,
    *,
    area_range: tuple[float, float] | None = (0.08, 1.0),
) -> tuple[Window, ...]:
    """A training window of the image for each row of four numbers, as `draw_window` draws it.

    Without a range of areas each is the largest square in the middle.
    """
    if area_range is None:
        return (center_window(image.height, image.width, fraction=1.0),) * len(uniforms)
    return tuple(
        draw_window(row, image.height, image.width, area_range=area_range) for row in uniforms
    )


def window_sides(pixels: float, log_aspect: float, height: int, width: int) -> tuple[int, int]:
    """Height and width of a window of so many pixels and this log(width / height)."""
    aspect = math.exp(log_aspect)
    high, wide = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
    return min(max(high, 1), height), min(max(wide, 1), width)


def center_window(height: int, width: int, *, fraction: float = CENTER_SHARE) -> Window:
    """The reference's evaluation window: a centered square, a fraction of the shorter side."""
    side = int(np.float32(fraction) * min(height, width))
    return Window((height - side + 1) // 2, (width - side + 1) // 2, side, side)


def train_views(
    image: image_decoding.EncodedImage, windows: tuple[Window, ...], out: np.ndarray
) -> None:
    """Cuts windows, given in pixels of the whole image, and resizes them.

    A JPEG is decoded at 1/2, 1/4 or 1/8 if no window gets below the size of its view by that.

    Args:
      image: where to cut.
      windows: one for every view.
      out: where the views go, uint8 [windows, S, S, 3].

    Raises:
      images.BadImageError: the image is damaged.
    """
    with image.room(shrink=_shrink(windows, out.shape[1])):
        cut(decode(image, windows, out.shape[1]), image, windows, out)


def decode(
    image: image_decoding.EncodedImage, windows: tuple[Window, ...], size: int
) -> np.ndarray:
    """The image as small as the windows allow and down to the lowest, uint8 [H, W, 3]."""
    bottom = max(window.top + window.height for window in windows)
    return image.decode(shrink=_shrink(windows, size), fast=True, rows=bottom)


def _shrink(windows: tuple[Window, ...], size: int) -> int:
    """By how much a JPEG may be smaller so that no window gets below the size of its view."""
    smallest = min(min(window.height, window.width) for window in windows)
    return next((factor for factor in (8, 4, 2) if smallest >= factor * size), 1)


def cut(
    pixels: np.ndarray,
    image: image_decoding.EncodedImage,
    windows: tuple[Window, ...],
    out: np.ndarray,
) -> None:
    """Cuts windows of the whole image out of its decoded form and resizes them to ``out``."""
    for window, view in zip(windows, out, strict=True):
        top, left, height, width = _scale(window, image, pixels.shape)
        part = pixels[top : top + height, left : left + width]
        cv2.resize(part, view.shape[:2], dst=view, interpolation=cv2.INTER_CUBIC)


def _scale(window: Window, image: image_decoding.EncodedImage, shape: tuple[int, ...]) -> Window:
    """A window of the whole image as one of its decoded, perhaps smaller form."""
    if shape[1] == image.width:  # not shrunk; there may be fewer rows
        return window
    down, across = shape[0] / image.height, shape[1] / image.width
    top, left = round(window.top * down), round(window.left * across)
    high, wide = round(window.height * down), round(window.width * across)
    return Window(top, left, min(high, shape[0] - top), min(wide, shape[1] - left))


def center_crop(
    image: image_decoding.EncodedImage,
    size: int,
    *,
    fraction: float = CENTER_SHARE,
    is_reduced: bool = False,
) -> np.ndarray:
    """The reference's evaluation crop, uint8 [size, size, 3].

    A large photo has high frequencies that no pixel of a small crop can show; they come out as
    noise, as in the reference. Decoded at 1/2, 1/4 or 1/8, as training views are, it is smoother.

    Args:
      image: where to cut.
      size: in pixels.
      fraction: of the shorter side; 1: the largest square.
      is_reduced: decode a JPEG smaller by the rule of training views.

    Raises:
      images.BadImageError: the image is damaged.
    """
    window = center_window(image.height, image.width, fraction=fraction)
    shrink = _shrink((window,), size) if is_reduced else 1
    with image.room(shrink=shrink):
        pixels = image.decode(shrink=shrink)
        window = _scale(window, image, pixels.shape)
        crop = pixels[window.top :, window.left :][: window.height, : window.width]
        return np.rint(resize(crop, size)).astype(np.uint8)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bicubic (Keys 1981, a = -1/2) as TensorFlow's, without smoothing: float32 in [0, 255].

    Args:
      pixels: [H, W, 3].
      size: of the square that comes out, [size, size, 3].
    """
    rows, row_weights = _taps(pixels.shape[0], size)
    columns, column_weights = _taps(pixels.shape[1], size)
    pixels = np.einsum("it,itwc->iwc", row_weights, pixels[rows].astype(np.float32))
    pixels = np.einsum("jt,ijtc->ijc", column_weights, pixels[:, columns])
    return np.clip(pixels, 0, 255)


def _taps(old_size: int, new_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Four source pixels and their weights, [new_size, 4] each, for every pixel."""
    center = (np.arange(new_size, dtype=np.float32) + 0.5) * np.float32(old_size / new_size) - 0.5
    first = np.floor(center)
    part = np.rint((center - first) * 1024) / 1024  # as finely as TensorFlow resolves it
    pixel = first[:, None].astype(int) + np.arange(-1, 3)
    weights = resize_kernels.cubic(np.abs(part[:, None] - np.arange(-1, 3)))
    weights *= (pixel >= 0) & (pixel < old_size)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(pixel, 0, old_size - 1), weights.astype(np.float32)
