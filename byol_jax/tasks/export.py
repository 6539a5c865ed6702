"""The task that hands an encoder over: writes it for other programs, and reads it back to check.

Shapes: b images of a batch, S image size, F embedding size.
"""

import functools
import pathlib
from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import (
    classifiers,
    encoders,
    export_contents,
    sources,
    torch_checkpoint,
)
from byol_jax.data import datasets
from byol_jax.export import export_folder, formats, hub_folder
from byol_jax.models import byol_network, encoder_spec, inference
from byol_jax.workdir import console

UsageError = config_lib.UsageError

TEST_BATCH = "test_batch.safetensors"


def run(config: Any, workdir: pathlib.Path) -> None:
    """Exports the encoder of ``config.checkpoint``; the folder appears when all checks are passed.

    Raises:
      UsageError: a mistake in the config, a checkpoint that cannot be used, a folder that holds
        something else, a file that does not give the same embeddings when it is read back.
    """
    names = [name.strip() for name in config.formats.split(",") if name.strip()]
    writers = {name: config_lib.lookup(formats.FORMATS, name, key="formats") for name in names}
    if config.head not in ("", "projector"):
        raise UsageError(f"Unknown head: '{config.head}'. Valid: projector, or nothing.")
    target = _hub_folder(config, workdir)
    classifier = _classifier(config)
    path = str(classifiers.find(config.checkpoint)) if classifier else config.checkpoint
    found, network = sources.open_and_load(path, config.network)
    card = _card(config, found)
    projector = _projector(found, network) if config.head else None
    formats.require_writable(writers, card, projector)
    licence = hub_folder.license_of(_describe_source(found), config.license)
    with export_folder.replaced(workdir) as folder:
        export = _make(folder, card, network, projector, classifier)
        model = _describe(config, found, export)
        export_contents.save_weights(folder, export.params, export.state)
        if classifier:
            model["classes"] = list(classifier.classes)
            weights, biases = classifier.weights, classifier.biases
            classifiers.save_linear(folder, weights, biases, classifier.card)
        export_contents.write_model(folder, model)
        batch = {"images": export.images, "embeddings": export.expected}
        torch_checkpoint.save_safetensors(folder / TEST_BATCH, batch, metadata={})
        for name, write in writers.items():
            console.say(f"Writing {name}...")
            model["checks"][name] = write(export)
            formats.require_equal(name, model["checks"][name])
        model["torch"] = formats.advise_torch(export) if "torch" in writers else None
        model["files"] = export_folder.list_files(folder)
        export_contents.write_model(folder, model)
    console.say(describe(model, workdir))
    if target:
        known = classifier.card if classifier else None
        options = {"license": licence, "classifier": known}
        hub_folder.write(target, workdir, config.hub, model, **options)
        console.say(f"Written: {target}\nUploaded: {hub_folder.upload(target, config.hub)}")


def _hub_folder(config: Any, workdir: pathlib.Path) -> pathlib.Path | None:
    """Where the repository goes that is asked for, if one is."""
    if not config.hub:
        return None
    if config.head:
        raise UsageError("A repository is of an encoder or classifier: leave --config.head empty.")
    return hub_folder.place(workdir, config.hub)


def _describe_source(found: sources.Weights) -> dict[str, Any]:
    return {
        "licence": found.licence,
        "config": found.config.to_dict() if found.config else None,
    }


def _classifier(config: Any) -> classifiers.Classifier | None:
    """That of the checkpoint, if it is a result that has kept one."""
    if classifiers.find(config.checkpoint) is None:
        return None
    if config.head:
        raise UsageError("A classifier has no projector: leave --config.head empty.")
    if any(config[name] for name in ("image_size", "mean", "std")):
        raise UsageError(
            "What a classifier sees is in its card: leave out --config.image_size, .mean and .std."
        )
    return classifiers.load_classifier(config.checkpoint)


def _head(classifier: classifiers.Classifier) -> formats.Head:
    """The linear layer with its temperature inside."""
    scale = np.float32(1 / classifier.temperature)
    weights, biases = scale * classifier.weights, scale * classifier.biases
    return formats.Head(weights, biases, classifier.classes)


def _card(config: Any, found: sources.Weights) -> encoder_spec.EncoderSpec:
    given = {name: config[name] for name in ("image_size", "mean", "std") if config[name]}
    for name in ("mean", "std"):
        if name in given and len(given[name]) != 3:
            raise UsageError(f"--config.{name} must be three numbers, red, green and blue.")
    if given.get("image_size", 8) < 8:
        raise UsageError(f"--config.image_size must be 8 or more, not {given['image_size']}.")
    return found.card._replace(**given)


def _projector(found: sources.Weights, network: sources.Network) -> byol_network.HeadSpec:
    """Of the run, or as the shapes of somebody's file say."""
    if "projector/linear" not in network.params:
        raise UsageError("The checkpoint has no projector: leave --config.head empty.")
    if found.config:
        return encoder_spec.projector_of_run(found.config.model)
    shape = network.params["projector/linear_1"]["w"].shape
    return byol_network.HeadSpec(*map(int, shape))


def _make(
    folder: pathlib.Path,
    card: encoder_spec.EncoderSpec,
    network: sources.Network,
    projector: byol_network.HeadSpec | None,
    classifier: classifiers.Classifier | None,
) -> formats.Export:
    trees = [encoder_spec.encoder_modules(tree) for tree in network]
    if projector:
        for tree, whole in zip(trees, network, strict=True):
            tree |= {name: x for name, x in whole.items() if name.startswith("projector/")}
    part = "target" if projector else "encoder"
    head = classifier and _head(classifier)
    forward = encoder_spec.make_forward(card, projector=projector or encoder_spec.PROJECTOR)

    def apply(trees: Any, images: jax.Array) -> jax.Array:
        pixels = inference.resize(images, card.image_size)
        outputs, _ = forward.apply(*trees, None, pixels, is_training=False, part=part)
        if head:
            return outputs.embedding @ head.weights + head.biases
        return outputs.projection if projector else outputs.embedding

    images = _test_images(card.image_size)
    expected = np.asarray(jax.jit(apply)(trees, images), np.float32)
    if not np.isfinite(expected).all():
        raise UsageError("The encoder gives no numbers (NaN or infinity): take another checkpoint.")
    encode = functools.partial(apply, trees)
    return formats.Export(folder, card, *trees, projector, encode, images, expected, head)


def _test_images(size: int) -> np.ndarray:
    """Four of the embedded images at size S, with noise, so that every pixel counts."""
    images = datasets.load("patterns", "test", data_dir="").take(4).images
    whole = jax.image.resize(images.astype(np.float32), (4, size, size, 3), "cubic")
    noise = np.random.default_rng(0).uniform(-20, 20, whole.shape)
    return np.clip(np.rint(np.asarray(whole) + noise), 0, 255).astype(np.uint8)


def _describe(config: Any, found: sources.Weights, export: formats.Export) -> dict[str, Any]:
    data = found.config.data.to_dict() if found.config else None
    source = {
        "path": found.path,
        "format": found.format,
        "step": found.step,
        "sha256": encoders.fingerprint(export.params, export.state),
    }
    return export_contents.describe(
        export.card,
        network=config.network,
        source=source,
        config=found.config,
        notes=found.notes,
        licence=found.licence,
        projector=export.projector,
    ) | {
        "output": _output(export),
        "output_size": int(export.expected.shape[1]),
        "data": data and {key: data[key] for key in ("name", "train_split")},
        "checks": {},
    }


def _output(export: formats.Export) -> str:
    if export.head:
        return "logits"  # whose softmax are calibrated probabilities
    return "projection" if export.projector else "embedding"


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
        if "warning" in check:
            lines.append(f"  {name:<12} Note: {check['warning']}")
    if model["torch"]:
        lines.append(f"  In PyTorch use {model['torch']['use']}.")
    lines += [f"  {note}" for note in [*model["notes"], model["licence"]] if note]
    return "\n".join([*lines, f"Written: {workdir}"])
