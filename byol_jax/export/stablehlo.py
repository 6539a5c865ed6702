r"""An encoder as one StableHLO file, which JAX runs without Haiku and without this package.

import pathlib, jax.export
encode = jax.export.deserialize(bytearray(pathlib.Path("encoder.stablehlo").read_bytes())).call
features = encode(images)  # uint8 [b, S, S, 3] -> float32 [b, F], for any b

A classifier gives a dictionary: logits [b, C], probabilities [b, C], and classes, the names as rows
of UTF-8: [bytes(row).rstrip(b"\0").decode() for row in encode(images)["classes"]].
"""

import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.export
import numpy as np

FILE = "encoder.stablehlo"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def save(
    path: pathlib.Path,
    encode: Callable[[jax.Array], jax.Array],
    *,
    image_size: int,
    classes: Sequence[str] = (),
) -> None:
    """Writes the file.

    Args:
      path: of the file.
      encode: uint8 images [b, S, S, 3] -> embedding [b, F].
      image_size: S.
      classes: of a classifier, whose logits ``encode`` gives.
    """
    names = _rows(classes)

    def classify(images: jax.Array) -> dict[str, jax.Array]:
        logits = encode(images)
        return {"logits": logits, "probabilities": jax.nn.softmax(logits), "classes": names}

    shape = jax.export.symbolic_shape(f"b, {image_size}, {image_size}, 3")
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    exported = jax.export.export(jax.jit(classify if classes else encode), platforms=PLATFORMS)(
        images
    )
    path.write_bytes(exported.serialize())


def _rows(classes: Sequence[str]) -> np.ndarray:
    """Names as rows of bytes, filled up with zeros."""
    encoded = [name.encode("utf-8", "surrogateescape") for name in classes]
    width = max(map(len, encoded), default=1)
    return np.array([list(name.ljust(width, b"\0")) for name in encoded], np.uint8)


def load(path: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
    """The function of a file, on NumPy arrays; of a classifier that which gives logits."""
    exported = jax.export.deserialize(bytearray(path.read_bytes()))

    def encode(images: np.ndarray) -> np.ndarray:
        found = exported.call(images)
        return np.asarray(found["logits"] if isinstance(found, dict) else found)

    return encode
