"""The formats of an export: one function each, which writes it, reads it back, and says what came.

Shapes: b images of a batch, S image size, F embedding size.
"""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders, export_contents
from byol_jax.export import detectron2, stablehlo, torch_export
from byol_jax.models import byol_network, encoder_spec, inference, norms

UsageError = config_lib.UsageError

TOLERANCE = 1e-4  # largest difference, relative to the largest number of the embeddings


class Head(NamedTuple):
    """A linear classifier on the embedding.

    Attributes:
      weights: float32 [F, C].
      biases: float32 [C]; the softmax of the logits are calibrated probabilities.
      classes: their names.
    """

    weights: np.ndarray
    biases: np.ndarray
    classes: tuple[str, ...]


class Export(NamedTuple):
    """What is to be written.

    Attributes:
      folder: where, for now.
      card: of the encoder.
      params: of the encoder, and of the projector if that is asked for.
      state: batch-norm statistics.
      projector: if it is exported, too.
      encode: uint8 images [b, S, S, 3] -> embedding (or projection, or logits) [b, F], to be
        compiled.
      images: uint8 [b, S, S, 3] to check with.
      expected: float32 [b, F], what they give.
      head: a classifier, if it is exported, too.
    """

    folder: pathlib.Path
    card: encoder_spec.EncoderSpec
    params: Any
    state: Any
    projector: byol_network.HeadSpec | None
    encode: Callable[[jax.Array], jax.Array]
    images: np.ndarray
    expected: np.ndarray
    head: Head | None = None


def _safetensors(export: Export) -> dict[str, Any]:
    """Weights are compared bit by bit, embeddings by the numbers."""
    trees = [
        jax.tree.map(lambda leaf: leaf.load(), tree, is_leaf=lambda x: hasattr(x, "load"))
        for tree in export_contents.open_weights(export.folder)
    ]
    if encoders.fingerprint(*trees) != encoders.fingerprint(export.params, export.state):
        raise UsageError("The weights that were written are not those that were read back.")
    return {"read_by": torch_export.version("safetensors"), "bit_identical": True}


def _torch(export: Export) -> dict[str, Any]:
    torch_export.save(export.folder, export.params, export.state, export.head)
    if not torch_export.has("torch"):
        return {"read_by": None, "note": "not checked: torch is not installed"}
    check = _compare("torch", torch_export.load(export.folder), export)
    if _fits_torchvision(export) and torch_export.has("torchvision"):
        plain = torch_export.load_into_torchvision(export.folder, export.card)
        check["torchvision"] = _compare("torchvision", plain, export)
        require_equal("torchvision", check["torchvision"])
    return check


def _stablehlo(export: Export) -> dict[str, Any]:
    path = export.folder / stablehlo.FILE
    classes = export.head.classes if export.head else ()
    stablehlo.save(path, export.encode, image_size=export.card.image_size, classes=classes)
    return _compare("jax", stablehlo.load(path), export) | {"platforms": stablehlo.PLATFORMS}


def _onnx(export: Export) -> dict[str, Any]:
    if not (export.folder / torch_export.TENSORS).exists():
        raise UsageError("ONNX is made from torch's files: add torch to --config.formats.")
    torch_export.save_onnx(
        export.folder, export.card.image_size, export.head.classes if export.head else ()
    )
    if not torch_export.has("onnxruntime"):
        return {"read_by": None, "note": "not checked: onnxruntime is not installed"}
    return _compare("onnxruntime", torch_export.load_onnx(export.folder), export)


def _detectron2(export: Export) -> dict[str, Any]:
    """Names and shapes are detectron2's; weights are compared bit by bit."""
    path = export.folder / detectron2.WEIGHTS
    tensors = detectron2.tensors_of(export.params, export.state)
    torch_export.save_tensors(path, tensors)
    detectron2.write_config(export.folder, export.card)
    found = torch_export.read_tensors(path)
    if set(found) != set(tensors) or any(
        found[key].tobytes() != tensors[key].tobytes() for key in tensors
    ):
        raise UsageError("The weights that were written are not those that were read back.")
    check = {"read_by": torch_export.version("torch"), "bit_identical": True}
    if export.card.padding != "torch":
        check["warning"] = (
            "detectron2 pads as PyTorch does and this encoder was trained with padding 'same': its "
            "features move until it is fine-tuned; configs/detection.py pads as trained"
        )
    return check


_OF_TORCH = ("torch", "onnx")  # written by way of `torch_module`, which has batch norm only

FORMATS: dict[str, Callable[[Export], dict[str, Any]]] = {
    "safetensors": _safetensors,
    "torch": _torch,
    "stablehlo": _stablehlo,
    "onnx": _onnx,
    "detectron2": _detectron2,
}


def require_writable(
    names: Iterable[str],
    card: encoder_spec.EncoderSpec,
    projector: byol_network.HeadSpec | None,
) -> None:
    """Checks that formats can hold a network, before anything is written.

    Raises:
      UsageError: naming those that can.
    """
    if "detectron2" in names:
        _require_detectron2(card, projector)
    ours = [name for name in FORMATS if name not in (*_OF_TORCH, "detectron2")]
    others = [name for name in names if name in _OF_TORCH]
    plain = projector and byol_network.HeadSpec(projector.hidden_size, projector.output_size)
    if not others or (card.norm_spec == norms.BATCH_NORM and projector == plain):
        return
    what = "an encoder" if card.norm_spec != norms.BATCH_NORM else "a projector"
    raise UsageError(
        f"{' and '.join(others)}: not for {what} of other layers than the reference's (model.norm, "
        f"model.weight_standardization, model.head_*): add --config.formats={','.join(ours)}."
    )


def _require_detectron2(
    card: encoder_spec.EncoderSpec, projector: byol_network.HeadSpec | None
) -> None:
    if projector or not detectron2.fits(card):
        raise UsageError(
            f"detectron2 has no such network: its R50-C4 takes {', '.join(detectron2.DEPTHS)} of "
            "width 1 with ImageNet's stem and batch norm, and no projector. Leave detectron2 out "
            "of --config.formats."
        )
    if not torch_export.has("torch"):
        raise UsageError(
            "detectron2's file is written by PyTorch: pip install torch, or leave detectron2 out "
            "of --config.formats."
        )


def _compare(package: str, encode: torch_export.Encode, export: Export) -> dict[str, Any]:
    """The largest difference on the test batch; other batch sizes must work, too."""
    difference = max(
        float(np.abs(encode(export.images[:count]) - export.expected[:count]).max())
        for count in (1, len(export.images))
    )
    return {
        "read_by": torch_export.version(package),
        "max_difference": difference,
        "max_relative_difference": difference / float(np.abs(export.expected).max()),
    }


def require_equal(name: str, check: dict[str, Any]) -> None:
    """Checks what a format's function said.

    Raises:
      UsageError: embeddings differ by more than `TOLERANCE`, or are no numbers.
    """
    relative = check.get("max_relative_difference", 0.0)
    if not relative <= TOLERANCE:
        raise UsageError(
            f"The {name} export gives other embeddings than the encoder: relative difference "
            f"{relative:.1e}, at most {TOLERANCE:.0e} are allowed. Nothing was written."
        )


def _fits_torchvision(export: Export) -> bool:
    return torch_export.fits_torchvision(export.card) and not export.projector


def advise_torch(export: Export) -> dict[str, Any]:
    """Which module to use in PyTorch, and what torchvision's own would make of the weights."""
    if _fits_torchvision(export):
        name = export.card.encoder
        plain = f"torchvision.models.{name}() with fc = Identity()"
        if export.head:
            plain = f"torchvision.models.{name}(num_classes={len(export.head.classes)})"
        return {
            "use": plain,
            "plain_load": "exact",
        }
    advice = {"use": torch_export.MODULE}
    plain = export._replace(card=export.card._replace(padding="torch"))
    if not _fits_torchvision(plain):
        return advice | {"plain_load": "impossible: torchvision has no such network"}
    trees = export.params, export.state
    forward = encoder_spec.make_forward(plain.card)
    pixels = inference.resize(export.images, export.card.image_size)
    apply = jax.jit(lambda trees, x: forward.apply(*trees, None, x, False, part="encoder"))
    found = np.asarray(apply(trees, pixels)[0].embedding)
    if export.head:
        found = found @ export.head.weights + export.head.biases
    error = np.abs(found - export.expected)
    return advice | {
        "plain_load": "strict",
        "plain_load_relative_difference": float(error.max() / np.abs(export.expected).max()),
    }
