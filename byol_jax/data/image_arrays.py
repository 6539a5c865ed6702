"""Arrays of images that people hand over: what they may be, and how to convert others."""

from typing import Any

import numpy as np


def require_images(images: Any) -> np.ndarray:
    """Images as an array, uint8 or float, [N, H, W, 3]; values of floats are not looked at.

    Args:
      images: of NumPy, a memmap, an array of JAX, or a list of images of one size.

    Raises:
      ValueError: they are something else; says how to convert them.
    """
    try:
        images = images if isinstance(images, np.ndarray) else np.asarray(images)
    except ValueError:  # a list of images of several sizes
        raise ValueError(
            "images are of several sizes: resize them to one size and np.stack them."
        ) from None
    is_float = np.issubdtype(images.dtype, np.floating)
    if images.ndim != 4 or images.shape[-1] != 3 or not (is_float or images.dtype == np.uint8):
        raise ValueError(
            "images must be uint8, or float in [0, 1], of shape [N, H, W, 3], not "
            f"{images.dtype} {list(images.shape)}.{how_to_convert(images)}"
        )
    if 0 in images.shape:
        raise ValueError(f"images are empty: their shape is {list(images.shape)}.")
    return images


def require_unit_range(images: np.ndarray) -> None:
    """Raises ValueError unless all values are in [0, 1]."""
    low, high = images.min(), images.max()
    if np.isnan(low):
        raise ValueError("images hold NaN: replace or leave out the images that do.")
    if low < 0 or high > 1:
        hint = "divide by 255, or give uint8" if low >= 0 and high <= 255 else "undo what scaled it"
        raise ValueError(
            f"float images must be in [0, 1]; these are in [{low:.4g}, {high:.4g}]: {hint}. "
            "Normalization by mean and standard deviation is done by the encoder."
        )


def how_to_convert(images: np.ndarray) -> str:
    """What to type to make uint8 RGB images [N, H, W, 3] of others; empty if nobody knows."""
    shape = images.shape
    if images.dtype == object:
        return " Resize the images to one size and np.stack them."
    if len(shape) == 3 and shape[-1] == 3:
        return " A single image needs a batch axis: images[None]."
    if len(shape) == 3:
        return " Gray images: np.repeat(images[..., None], 3, axis=-1)."
    if len(shape) != 4:
        return ""
    if shape[-1] == 1:
        return " Gray images: np.repeat(images, 3, axis=-1)."
    if shape[-1] == 4:
        return " Leave out the alpha channel: images[..., :3]."
    if shape[1] in (1, 3, 4) and shape[-1] != 3:
        return " Channels come last: images.transpose(0, 2, 3, 1)."
    if np.issubdtype(images.dtype, np.floating):
        return " Of values in [0, 1] make np.rint(images * 255).astype(np.uint8)."
    return " Of values from 0 to 255 make images.astype(np.uint8)."
