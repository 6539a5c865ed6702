"""Cuts training pictures with what is known of their pixels, on the host.

Labels and depth are never mixed: the nearest pixel is taken. Shapes: H x W pixels.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np


class Cut(NamedTuple):
    """What is drawn for an image.

    Attributes:
      scale: factor of both sides.
      top: of the crop, in the scaled and padded image.
      left: likewise.
      flip: left to right.
    """

    scale: float
    top: int
    left: int
    flip: bool


def draw_cut(
    uniforms: np.ndarray, shape: tuple[int, int], crop: int, scales: tuple[float, float]
) -> Cut:
    """The cut that four numbers, uniform on [0, 1), stand for.

    Args:
      uniforms: [4].
      shape: of the image, height and width.
      crop: side of the crop.
      scales: least and greatest factor, between which it is uniform.
    """
    u = uniforms.tolist()
    scale = scales[0] + (scales[1] - scales[0]) * u[0]
    height, width = scaled_size(shape, scale)
    top, left = (int(u[i] * (max(side - crop, 0) + 1)) for i, side in ((1, height), (2, width)))
    return Cut(scale, top, left, u[3] < 0.5)


def scaled_size(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of a scaled image, rounded half up."""
    return tuple(max(1, math.floor(scale * side + 0.5)) for side in shape)


def cut_labels(
    pixels: np.ndarray,
    labels: np.ndarray,
    cut: Cut,
    *,
    crop: int,
    fill: np.ndarray,
    ignored: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Scales, pads at the right and bottom, cuts and perhaps flips an image and its labels.

    Args:
      pixels: uint8 [H, W, 3].
      labels: uint8 [H, W].
      cut: what was drawn.
      crop: side of the result.
      fill: color of padding, [3].
      ignored: label of padding.

    Returns:
      float32 [crop, crop, 3] in 0 to 255, bilinear and not smoothed; uint8 [crop, crop], nearest.
    """
    height, width = scaled_size(labels.shape, cut.scale)
    rows, columns = (slice(start, start + crop) for start in (cut.top, cut.left))
    scaled = resize_bilinear(pixels.astype(np.float32), (height, width))[rows, columns]
    near = resize_nearest(labels, (height, width))[rows, columns]
    image = np.empty((crop, crop, 3), np.float32)
    image[:] = fill
    target = np.full((crop, crop), ignored, labels.dtype)
    part = slice(0, scaled.shape[0]), slice(0, scaled.shape[1])
    image[part], target[part] = scaled, near
    return (image[:, ::-1], target[:, ::-1]) if cut.flip else (image, target)


def resize_bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [H, W, ...] to a height and width; centers at half pixels, not smoothed."""
    if values.shape[:2] == size:
        return values
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_area(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 [H, W, ...] to a height and width; means of pixels where it shrinks."""
    shrinks = size[0] < values.shape[0] or size[1] < values.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(values, size[::-1], interpolation=method)


def resize_nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W] to a height and width; pixel i comes from floor((i + 1/2) old / new)."""
    rows, columns = (
        np.minimum((2 * np.arange(new) + 1) * old // (2 * new), old - 1)
        for old, new in zip(values.shape, size, strict=True)
    )
    return values[rows[:, None], columns]


def center(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle [h, w, ...] of [H, W, ...], which is at least as large."""
    top, left = ((old - new) // 2 for old, new in zip(values.shape[:2], size, strict=True))
    return values[top : top + size[0], left : left + size[1]]
