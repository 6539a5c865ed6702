"""What is put on an encoder's last map to predict something for every pixel.

Shapes: b images, h x w cells of a map, H x W pixels.
"""

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.models import resnet


class FcnHead(hk.Module):
    """Two dilated 3x3 convolutions with batch norm and ReLU, then 1x1 (paper, appendix D.4).

    Args:
      num_classes: channels of the output.
      layers: how convolutions and batch norms are built.
      channels: of the two convolutions.
      dilation: of the two convolutions.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        layers: resnet.Layers,
        channels: int = 256,
        dilation: int = 6,
        name: str = "fcn_head",
    ):
        super().__init__(name=name)
        self._num_classes, self._layers = num_classes, layers
        self._channels, self._dilation = channels, dilation

    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        """Logits [b, h, w, num_classes] of maps [b, h, w, c]."""
        for i in range(2):
            conv = self._layers.conv(self._channels, 3, name=f"conv_{i}", dilation=self._dilation)
            x = jax.nn.relu(self._layers.norm(f"batchnorm_{i}")(conv(x), is_training))
        return hk.Conv2D(self._num_classes, 1, name="classifier")(x)


class UpProjection(hk.Module):
    """Doubles a map by the fast up-projection of Laina et al. (2016, section 3.2).

    Args:
      channels: of the output.
      layers: how convolutions and batch norms are built.
    """

    def __init__(self, channels: int, *, layers: resnet.Layers, name: str):
        super().__init__(name=name)
        self._channels, self._layers = channels, layers

    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        """Maps [b, 2h, 2w, channels] of maps [b, h, w, c]."""
        norm = self._layers.norm
        main, side = (self._double(x, branch) for branch in ("main", "side"))
        main = jax.nn.relu(norm("batchnorm_main")(main, is_training))
        main = self._layers.conv(self._channels, 3, name="conv")(main)
        main = norm("batchnorm_out")(main, is_training)
        return jax.nn.relu(main + norm("batchnorm_side")(side, is_training))

    def _double(self, x: jax.Array, branch: str) -> jax.Array:
        shape = (5, 5, x.shape[-1], self._channels)
        # A quarter of the taps meet anything but zeros of the unpooled map.
        init = hk.initializers.TruncatedNormal(float(np.sqrt(4 / (25 * x.shape[-1]))))
        return unpool_conv(x, hk.get_parameter(f"w_{branch}", shape, x.dtype, init))


def unpool_conv(x: jax.Array, w: jax.Array) -> jax.Array:
    """A 5x5 convolution of maps doubled by zeros, without computing with the zeros.

    Args:
      x: [b, h, w, c]; cell (i, j) goes to (2i, 2j), zeros between.
      w: [5, 5, c, d].

    Returns:
      [b, 2h, 2w, d], of the size that padding by 2 on all sides keeps.
    """
    rows = []
    for r, pad_rows in enumerate(((1, 1), (0, 1))):  # even rows meet three taps, odd ones two
        parts = [
            jax.lax.conv_general_dilated(
                x,
                w[r::2, c::2],
                (1, 1),
                (pad_rows, pad_columns),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for c, pad_columns in enumerate(((1, 1), (0, 1)))
        ]
        rows.append(jnp.stack(parts, axis=3))  # [b, h, w, 2, d]
    b, height, width, channels = (*x.shape[:3], w.shape[-1])
    return jnp.stack(rows, axis=2).reshape(b, 2 * height, 2 * width, channels)


class DepthHead(hk.Module):
    """Up-projections, then a 3x3 convolution to one number a pixel (paper, appendix D.6).

    Args:
      channels: of each up-projection.
      layers: how convolutions and batch norms are built.
    """

    def __init__(self, channels: Sequence[int], *, layers: resnet.Layers, name: str = "depth_head"):
        super().__init__(name=name)
        self._channels, self._layers = channels, layers

    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        """Depth [b, H, W] of maps [b, h, w, c]; H = 2^n h of n up-projections."""
        for i, channels in enumerate(self._channels):
            x = UpProjection(channels, layers=self._layers, name=f"up_{i}")(x, is_training)
        return hk.Conv2D(1, 3, name="depth")(x)[..., 0]


def resize_corners(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear [b, h, w, c] to [b, H, W, c], corner cells on corner pixels (align_corners=True).

    Right for maps of odd sides under "SAME": cell i is centered on pixel i times the stride.
    """
    rows, columns = (_corner_matrix(old, new) for old, new in zip(x.shape[1:3], size, strict=True))
    precise = jax.lax.Precision.HIGHEST
    return jnp.einsum("Hh,bhwc,Ww->bHWc", rows, x, columns, precision=precise)


def _corner_matrix(old: int, new: int) -> np.ndarray:
    """[new, old] weights, one row a new pixel."""
    place = np.linspace(0, old - 1, new) if new > 1 else np.zeros(1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(old))).astype(np.float32)
