"""Weights with which pixels are resized, by their distance, for the device and for the host.

No JAX here: processes that decode images import it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def cubic(distance: Any, *, where: Callable[..., Any] = np.where) -> Any:
    """Bicubic (Keys 1981) with a = -1/2, as the reference resizes.

    Args:
      distance: of a pixel from what is computed, 0 or more, in pixels; of NumPy or of JAX.
      where: ``np.where`` or ``jnp.where``, as ``distance`` is.
    """
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    return where(distance < 1, near, where(distance < 2, far, 0))
