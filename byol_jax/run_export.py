"""The task that hands an encoder over: writes it for other programs, and reads it back to check.

Shapes: b images of a batch, S image size, F embedding size.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import (
    cards,
    datasets,
    encoders,
    exported,
    pretrain,
    records,
    stablehlo,
    torch_export,
    torch_files,
)
from byol_jax import config as config_lib
from byol_jax import weights as weights_lib
from byol_jax import workdir as workdir_lib

UsageError = config_lib.UsageError

TOLERANCE = 1e-4  # largest difference, relative to the largest number of the embeddings
TEST_BATCH = "test_batch.safetensors"


class Export(NamedTuple):
    """What is to be written.

    Attributes:
      folder: where, for now.
      card: of the encoder.
      params: of the encoder, and of the projector if that is asked for.
      state: batch-norm statistics.
      encode: uint8 images [b, S, S, 3] -> embedding (or projection) [b, F], to be compiled.
      images: uint8 [b, S, S, 3] to check with.
      expected: float32 [b, F], what they give.
    """

    folder: pathlib.Path
    card: cards.Card
    params: Any
    state: Any
    encode: Callable[[jax.Array], jax.Array]
    images: np.ndarray
    expected: np.ndarray


def run(config: Any, workdir: pathlib.Path) -> None:
    """Exports the encoder of ``config.checkpoint``; the folder appears when all checks are passed.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, a folder that holds
        something else, a file that does not give the same embeddings when it is read back.
    """
    names = [name.strip() for name in config.formats.split(",") if name.strip()]
    formats = {name: config_lib.lookup(FORMATS, name, key="formats") for name in names}
    if config.head not in ("", "projector"):
        raise UsageError(f"Unknown head: '{config.head}'. Valid: projector, or nothing.")
    found = weights_lib.open_weights(config.checkpoint)
    card = _card(config, found)
    network = weights_lib.load(found, config.network)
    with _whole_folder(workdir) as folder:
        export = _make(folder, card, network, config.head)
        model = _describe(config, found, export)
        exported.save_weights(folder, export.params, export.state)
        _write_model(folder, model)
        batch = {"images": export.images, "embeddings": export.expected}
        torch_files.save_safetensors(folder / TEST_BATCH, batch, metadata={})
        for name, write in formats.items():
            records.say(f"Writing {name}...")
            model["checks"][name] = write(export)
            _require_equal(name, model["checks"][name])
        model["torch"] = _torch_advice(export, found.card.encoder) if "torch" in formats else None
        model["files"] = _files(folder)
        _write_model(folder, model)
    records.say(describe(model, workdir))


def _card(config: Any, found: weights_lib.Weights) -> cards.Card:
    given = {name: config[name] for name in ("image_size", "mean", "std") if config[name]}
    for name in ("mean", "std"):
        if name in given and len(given[name]) != 3:
            raise UsageError(f"--config.{name} must be three numbers, red, green and blue.")
    if given.get("image_size", 8) < 8:
        raise UsageError(f"--config.image_size must be 8 or more, not {given['image_size']}.")
    return found.card._replace(**given)


def _make(
    folder: pathlib.Path, card: cards.Card, network: weights_lib.Network, head: str
) -> Export:
    trees = [cards.encoder_modules(tree) for tree in network]
    part, projector = "encoder", None
    if head:
        for tree, whole in zip(trees, network, strict=True):
            tree |= {name: x for name, x in whole.items() if name.startswith("projector/")}
        if "projector/linear_1" not in trees[0]:
            raise UsageError("The checkpoint has no projector: leave --config.head empty.")
        part, projector = "target", _projector(trees[0])
    forward = cards.make_forward(card, **({"projector": projector} if projector else {}))

    def encode(images: jax.Array) -> jax.Array:
        pixels = pretrain.resize(images, card.image_size)
        outputs, _ = forward.apply(*trees, None, pixels, is_training=False, part=part)
        return outputs.projection if head else outputs.embedding

    images = _test_images(card.image_size)
    expected = np.asarray(jax.jit(encode)(images), np.float32)
    return Export(folder, card, *trees, encode, images, expected)


def _projector(params: Any) -> tuple[int, int] | None:
    if "projector/linear_1" not in params:
        return None
    return tuple(int(size) for size in params["projector/linear_1"]["w"].shape)


def _test_images(size: int) -> np.ndarray:
    """Four of the embedded images at size S, with noise, so that every pixel counts."""
    images = datasets.load("patterns", "test", data_dir="").take(4).images
    whole = jax.image.resize(images.astype(np.float32), (4, size, size, 3), "cubic")
    noise = np.random.default_rng(0).uniform(-20, 20, whole.shape)
    return np.clip(np.rint(np.asarray(whole) + noise), 0, 255).astype(np.uint8)


def _describe(config: Any, found: weights_lib.Weights, export: Export) -> dict[str, Any]:
    data = found.config.data.to_dict() if found.config else None
    return {
        "format": exported.FORMAT,
        "card": export.card._asdict(),
        "architecture": exported.architecture(export.card, _projector(export.params)),
        "network": config.network,
        "output": "projection" if config.head else "embedding",
        "output_size": int(export.expected.shape[1]),
        "input": "RGB images, uint8; divided by 255, then normalised by mean and std",
        "source": {
            "path": found.path,
            "format": found.format,
            "step": found.step,
            "sha256": encoders.fingerprint(export.params, export.state),
        },
        "data": data and {key: data[key] for key in ("name", "train_split")},
        "config": found.config.to_dict() if found.config else None,
        "notes": list(found.notes),
        "licence": found.licence,
        "checks": {},
        "versions": workdir_lib.versions(),
    }


def _write_model(folder: pathlib.Path, model: dict[str, Any]) -> None:
    records.write_text(folder / exported.MODEL, json.dumps(model, indent=2) + "\n")


# One function a format: writes it, reads it back, and says what came of that.


def _safetensors(export: Export) -> dict[str, Any]:
    """Weights are compared bit by bit, embeddings by the numbers."""
    trees = [
        jax.tree.map(lambda leaf: leaf.load(), tree, is_leaf=lambda x: hasattr(x, "load"))
        for tree in exported.open_weights(export.folder)
    ]
    if encoders.fingerprint(*trees) != encoders.fingerprint(export.params, export.state):
        raise UsageError("The weights that were written are not those that were read back.")
    return {"read_by": torch_export.version("safetensors"), "bit_identical": True}


def _torch(export: Export) -> dict[str, Any]:
    torch_export.save(export.folder, export.params, export.state)
    if not torch_export.has("torch"):
        return {"read_by": None, "note": "not checked: torch is not installed"}
    check = _compare("torch", torch_export.load(export.folder), export)
    fits = torch_export.fits_torchvision(export.card) and not _projector(export.params)
    if fits and torch_export.has("torchvision"):
        plain = torch_export.load_into_torchvision(export.folder, export.card)
        check["torchvision"] = _compare("torchvision", plain, export)
        _require_equal("torchvision", check["torchvision"])
    return check


def _stablehlo(export: Export) -> dict[str, Any]:
    path = export.folder / stablehlo.FILE
    stablehlo.save(path, export.encode, image_size=export.card.image_size)
    return _compare("jax", stablehlo.load(path), export) | {"platforms": stablehlo.PLATFORMS}


def _onnx(export: Export) -> dict[str, Any]:
    if not (export.folder / torch_export.TENSORS).exists():
        raise UsageError("ONNX is made from torch's files: add torch to --config.formats.")
    torch_export.save_onnx(export.folder, export.card.image_size)
    if not torch_export.has("onnxruntime"):
        return {"read_by": None, "note": "not checked: onnxruntime is not installed"}
    return _compare("onnxruntime", torch_export.load_onnx(export.folder), export)


FORMATS: dict[str, Callable[[Export], dict[str, Any]]] = {
    "safetensors": _safetensors,
    "torch": _torch,
    "stablehlo": _stablehlo,
    "onnx": _onnx,
}


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


def _require_equal(name: str, check: dict[str, Any]) -> None:
    relative = check.get("max_relative_difference", 0.0)
    if not relative <= TOLERANCE:
        raise UsageError(
            f"The {name} export gives other embeddings than the encoder: relative difference "
            f"{relative:.1e}, at most {TOLERANCE:.0e} are allowed. Nothing was written."
        )


def _torch_advice(export: Export, encoder: str) -> dict[str, Any]:
    """Which module to use in PyTorch, and what torchvision's own would make of the weights."""
    if torch_export.fits_torchvision(export.card) and not _projector(export.params):
        return {
            "use": f"torchvision.models.{encoder}() with fc = Identity()",
            "plain_load": "exact",
        }
    advice = {"use": torch_export.MODULE}
    spec_differs = export.card._replace(padding="torch")
    wanted = cards.shapes(spec_differs)[0]
    if not torch_export.fits_torchvision(spec_differs) or _projector(export.params):
        return advice | {"plain_load": "impossible: torchvision has no such network"}
    params = {module: export.params[module] for module in wanted}
    forward = cards.make_forward(spec_differs)
    pixels = pretrain.resize(export.images, export.card.image_size)
    state = {module: export.state[module] for module in cards.shapes(spec_differs)[1]}
    outputs, _ = jax.jit(lambda x: forward.apply(params, state, None, x, False, part="encoder"))(
        pixels
    )
    error = np.abs(np.asarray(outputs.embedding) - export.expected)
    return advice | {
        "plain_load": "strict" if len(wanted) == len(export.params) else "only with strict=False",
        "plain_load_relative_difference": float(error.max() / np.abs(export.expected).max()),
    }


def _files(folder: pathlib.Path) -> dict[str, Any]:
    return {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.iterdir())
        if path.name != exported.MODEL
    }


@contextlib.contextmanager
def _whole_folder(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write into, which gets its name once everything in it is whole.

    Raises:
      UsageError: there is something else at the workdir, or it cannot be written to.
    """
    if workdir.exists() and not (workdir / exported.MODEL).is_file():
        if not workdir.is_dir() or any(workdir.iterdir()):
            raise UsageError(
                f"{workdir} holds something that is no export: give another --workdir."
            )
    part = workdir.with_name(workdir.name + ".part")
    with records.writing_to(workdir.parent):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    try:
        yield part
        old = workdir.with_name(workdir.name + ".old")
        with records.writing_to(workdir.parent):
            shutil.rmtree(old, ignore_errors=True)
            if workdir.exists():
                os.replace(workdir, old)
            os.replace(part, workdir)
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def describe(model: dict[str, Any], workdir: pathlib.Path) -> str:
    """What was exported and checked, for people."""
    card, source = model["card"], model["source"]
    lines = [
        f"{card['encoder']} ({model['network']} network, {model['output']} of "
        f"{model['output_size']} numbers, images of {card['image_size']} px) of {source['path']}"
    ]
    for name, check in model["checks"].items():
        if check.get("bit_identical"):
            result = f"read back by {check['read_by']}: bit-identical"
        elif check["read_by"]:
            relative = check["max_relative_difference"]
            result = f"read back by {check['read_by']}: relative difference {relative:.1e}"
        else:
            result = check["note"]
        lines.append(f"  {name:<12} {result}")
    if model["torch"]:
        lines.append(f"  In PyTorch use {model['torch']['use']}.")
    lines += [f"  {note}" for note in [*model["notes"], model["licence"]] if note]
    return "\n".join([*lines, f"Written: {workdir}"])
