"""An encoder as one StableHLO file, which JAX runs without Haiku and without this package.

import pathlib, jax.export
encode = jax.export.deserialize(bytearray(pathlib.Path("encoder.stablehlo").read_bytes())).call
features = encode(images)  # uint8 [b, S, S, 3] -> float32 [b, F], for any b
"""

import pathlib
from collections.abc import Callable

import jax
import jax.export
import numpy as np

FILE = "encoder.stablehlo"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def save(path: pathlib.Path, encode: Callable[[jax.Array], jax.Array], *, image_size: int) -> None:
    """Writes the file.

    Args:
      path: of the file.
      encode: uint8 images [b, S, S, 3] -> embedding [b, F].
      image_size: S.
    """
    shape = jax.export.symbolic_shape(f"b, {image_size}, {image_size}, 3")
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    exported = jax.export.export(jax.jit(encode), platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())


def load(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """The function of a file, on NumPy arrays."""
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    return lambda images: np.asarray(exported.call(images))
