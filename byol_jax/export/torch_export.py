"""An encoder for PyTorch and ONNX, and what these make of it, where they are installed."""

import importlib
import importlib.metadata
import importlib.util
import json
import pathlib
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import torch_checkpoint, torchvision_names
from byol_jax.models import encoder_spec, resnet

UsageError = config_lib.UsageError
Encode = Callable[[np.ndarray], np.ndarray]

TENSORS = "torch.safetensors"
MODULE = "encoder.py"
ONNX = "encoder.onnx"
_OPSET = 18


def has(*packages: str) -> bool:
    """Whether packages are installed, and work together."""
    try:
        return all(importlib.import_module(package) for package in packages)
    except (ImportError, RuntimeError):  # torchvision says so of a torch of another build
        return False


def save(
    folder: pathlib.Path, params: Mapping[str, Any], state: Mapping[str, Any], head: Any = None
) -> None:
    """Writes weights by torchvision's names, and the module that reads them.

    Args:
      folder: of the export.
      params: of the encoder, and of a projector if that is exported.
      state: batch-norm statistics.
      head: a classifier, as in `formats.Export`.
    """
    tensors = torchvision_names.to_torch(params, state)
    if head:
        tensors["fc.weight"] = np.ascontiguousarray(head.weights.T)
        tensors["fc.bias"] = head.biases
    torch_checkpoint.save_safetensors(folder / TENSORS, tensors, metadata={"format": "pt"})
    shutil.copyfile(pathlib.Path(__file__).with_name("torch_module.py"), folder / MODULE)


def load(folder: pathlib.Path) -> Encode:
    """The encoder of a folder, as the module that was written there builds it."""
    import torch

    model = _load_module(folder)

    def encode(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

    return encode


def load_into_torchvision(folder: pathlib.Path, card: encoder_spec.EncoderSpec) -> Encode:
    """torchvision's own network with the weights of a folder, loaded strictly."""
    import torch
    import torchvision

    tensors = {key: t.load() for key, t in torch_checkpoint.open_tensors(folder / TENSORS).items()}
    classes = len(tensors.get("fc.bias", ()))
    model = torchvision.models.get_model(card.encoder, num_classes=classes or 1)
    if not classes:
        model.fc = torch.nn.Identity()
    model.load_state_dict({key: torch.from_numpy(t) for key, t in tensors.items()}, strict=True)
    model.eval()

    def encode(images: np.ndarray) -> np.ndarray:
        pixels = (images / np.float32(255) - np.float32(card.mean)) / np.float32(card.std)
        with torch.inference_mode():
            return model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).numpy()

    return encode


def save_tensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a file of PyTorch's own that holds ``{"model": tensors}``."""
    import torch

    torch.save({"model": {key: torch.from_numpy(x) for key, x in tensors.items()}}, path)


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """What `save_tensors` wrote; nothing in the file is executed."""
    import torch

    found = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return {key: x.numpy() for key, x in found.items()}


def fits_torchvision(card: encoder_spec.EncoderSpec) -> bool:
    """Whether torchvision has this very network."""
    is_same_network = card.encoder in torchvision_names.TORCHVISION and card.padding == "torch"
    is_plain = (card.width_multiplier, card.resnet_v2, card.bn_eps) == (1, False, 1e-5)
    return is_same_network and is_plain and resnet.STEMS[card.stem] == resnet.STEMS["imagenet"]


def save_onnx(folder: pathlib.Path, image_size: int, classes: Sequence[str] = ()) -> None:
    """Writes the encoder of a folder, which `save` has written, as ONNX.

    uint8 images [b, S, S, 3] in, for any b; normalization inside. A classifier gives logits and
    probabilities; its metadata has the names of the classes, as a list in JSON.

    Raises:
      UsageError: torch or its ONNX converter is not installed.
    """
    if not has("torch", "onnx", "onnxscript"):
        raise UsageError(
            "ONNX is written by PyTorch's converter: pip install '.[torch]', or leave onnx out of "
            "--config.formats."
        )
    import torch

    model = _load_module(folder, pixels=True)
    images = torch.zeros((2, image_size, image_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (images,),
            folder / ONNX,
            input_names=["images"],
            output_names=["logits", "probabilities"] if classes else ["embedding"],
            dynamic_shapes={"images": {0: torch.export.Dim("b", min=1, max=1 << 20)}},
            opset_version=_OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )

    if classes:
        _add_metadata(folder / ONNX, "classes", json.dumps(list(classes)))


def _add_metadata(path: pathlib.Path, key: str, value: str) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {key: value})
    onnx.save(model, path)


def load_onnx(folder: pathlib.Path) -> Encode:
    """The encoder of a folder, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def version(package: str) -> str:
    """Such as ``torch 2.13.0``."""
    return f"{package} {importlib.metadata.version(package)}"


def _load_module(folder: pathlib.Path, *, pixels: bool = False) -> Any:
    specification = importlib.util.spec_from_file_location("exported_encoder", folder / MODULE)
    module = importlib.util.module_from_spec(specification)
    source = (folder / MODULE).read_bytes()  # not by the loader, which leaves a __pycache__
    exec(specification.loader.source_to_code(source, folder / MODULE), module.__dict__)
    model = module.load(folder)
    return module.Pixels(model).eval() if pixels else model
