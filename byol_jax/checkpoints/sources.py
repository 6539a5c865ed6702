"""Reads weights in any supported format: what a path holds, before its arrays are read.

A run, its checkpoints and exports are the project's own. DeepMind's ``.pkl`` files are read by
`deepmind`, PyTorch's and safetensors by `torch_files`, whose names `torch_layout` understands.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections

from byol_jax import config as config_lib
from byol_jax import plugins
from byol_jax.checkpoints import (
    deepmind,
    export_contents,
    file_kinds,
    hub,
    orbax_reader,
    run_facts,
    safe_pickle,
    step_folders,
    torch_checkpoint,
    torchvision_names,
)
from byol_jax.models import encoder_spec, resnet
from byol_jax.objectives import table

UsageError = config_lib.UsageError

DEEPMIND_LICENSE = (
    "DeepMind's released weights are under CC BY-NC 4.0 (no commercial use), and so is what is "
    "made from them."
)


Network = encoder_spec.Network


class Weights(NamedTuple):
    """What can be loaded from a path.

    Attributes:
      path: of the very checkpoint or file.
      format: a word for the kind of file.
      step: updates that made it; None if the file does not say.
      card: of the encoder.
      load: network by its name ("online", perhaps "target") and a function that reads it.
      config: of the run that made it; None if there is none.
      notes: what was assumed, since the file does not say it.
      licence: the license, as far as it is known.
    """

    path: str
    format: str
    step: int | None
    card: encoder_spec.EncoderSpec
    load: dict[str, Callable[[], Network]]
    config: Any = None
    notes: tuple[str, ...] = ()
    licence: str = ""


def open_weights(path: str) -> Weights:
    """Finds out what a path holds.

    Args:
      path: a run's workdir (its newest checkpoint), one of its ``checkpoints/<step>``, the folder
        of an export, a ``.pkl`` file of DeepMind's, a file of PyTorch's or of safetensors with a
        ResNet by torchvision's names, or an address of the Hub (`hub.fetch`).

    Raises:
      UsageError: no such path, or nothing at it that can be used; says what is wrong.
    """
    if hub.is_address(path):
        return _open_hub(path)
    config_lib.require_local(path, flag="--config.checkpoint")
    file = pathlib.Path(path).expanduser()
    if (
        file.name in (export_contents.MODEL, export_contents.WEIGHTS)
        and (file.parent / export_contents.MODEL).exists()
    ):
        file = file.parent
    if path and file.is_file():
        return _open_file(file)
    if path and (file / export_contents.MODEL).is_file():
        return _open_export(file)
    return _open_run(path)


def _open_hub(address: str) -> Weights:
    """Weights of the Hub; their image size, mean and std are those of its config, if it has one."""
    path, pinned, facts = hub.fetch(address)
    if path.is_dir():
        return _open_export(path)._replace(path=pinned)
    known = hub.image_facts(facts)
    found = _open_file(path)
    notes = [note for note in found.notes if not known or "custom" not in note]
    licence = str(facts.get("license") or "")
    return found._replace(
        path=pinned, card=found.card._replace(**known), notes=tuple(notes), licence=licence
    )


def is_foreign(path: str) -> bool:
    """Whether a path is a file, an export or an address, not a run or one of its checkpoints."""
    if hub.is_address(path):
        return True
    file = pathlib.Path(path).expanduser()
    return file.is_file() or (file / export_contents.MODEL).is_file()


def load(found: Weights, network: str) -> Network:
    """Reads one of the networks.

    Args:
      found: where.
      network: "online" or "target".

    Raises:
      UsageError: there is no such network, or it is damaged.
    """
    if network not in found.load:
        why = ""
        if found.format == "run" and network == "target":
            name = found.config.objective.name
            why = f": objective.name={name} keeps none, take --config.network=online"
        valid = ", ".join(sorted(found.load))
        raise UsageError(f"{found.path} has no {network} network{why}. Valid: {valid}.")
    return found.load[network]()


def open_and_load(path: str, network: str) -> tuple[Weights, Network]:
    """What a path holds and one of its networks, of one checkpoint also while its run goes on.

    Args:
      path: as `open_weights` takes it.
      network: "online" or "target".

    Raises:
      UsageError: as `open_weights` and `load`.
      step_folders.GoneError: the path names a checkpoint that was deleted while it was read.
    """

    def read() -> tuple[Weights, Network]:
        found = open_weights(path)
        return found, load(found, network)

    is_run = bool(path) and not is_foreign(path)
    return step_folders.until_sound(path, read) if is_run else read()


def _open_run(path: str) -> Weights:
    folder = step_folders.find(path)
    run = folder.absolute().parent.parent
    config, data = run_facts.config_of(run, folder), run_facts.card_of(run, folder)
    try:
        if config.model.encoder not in resnet.ENCODERS:
            plugins.load(config)
        card = encoder_spec.of_run(
            config.model, config.data.image_size, data.mean, data.std, data.grey_ranges
        )
    except (AttributeError, KeyError) as error:
        text = " ".join(str(error.args[0]).split())
        raise UsageError(f"{run / 'config.json'} lacks a key of this version: {text}") from None

    def load(name: str) -> Network:
        return orbax_reader.load_network(folder, encoder_spec.shapes(card)[0], name)

    names = ("online", "target") if table.keeps_target(config.objective) else ("online",)
    loaders = {name: lambda name=name: load(name) for name in names}
    return Weights(str(folder), "run", int(folder.name), card, loaders, config)


def _open_file(path: pathlib.Path) -> Weights:
    try:
        kind = file_kinds.recognize(path)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from None
    if kind:
        raise UsageError(
            f"Cannot read weights from {path}: it is {kind}. Give the workdir of a run, one of its "
            "checkpoints/<step>, an export, or a file of PyTorch's, safetensors or DeepMind's."
        )
    try:
        if path.suffix == ".pkl":
            return _open_pickle(path)
        return _open_tensors(path)
    except safe_pickle.UnsupportedPickle as error:
        raise UsageError(f"Cannot read {error}.") from None
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from None


def _open_pickle(path: pathlib.Path) -> Weights:
    found = deepmind.open_pickle(path)
    try:
        card = encoder_spec.recognize(found.online_params, padding="same")
        encoder_spec.require_encoder(card, found.online_params, found.online_state)
    except UsageError as error:
        raise UsageError(f"{path} {error}") from None

    def load(*trees: Any) -> Network:
        try:
            return Network(*(deepmind.load_tree(path, tree) for tree in trees))
        except safe_pickle.UnsupportedPickle as error:
            raise UsageError(f"Cannot read {error}.") from None

    loaders = {"online": lambda: load(found.online_params, found.online_state)}
    if found.target_params is not None:
        loaders["target"] = lambda: load(found.target_params, found.target_state)
    notes = (
        f"image size: {card.image_size} px is the custom, the file does not say it",
        "normalization: by ImageNet's mean and std, as DeepMind's code does",
    )
    return Weights(str(path), "deepmind", found.step, card, loaders, None, notes, DEEPMIND_LICENSE)


def _open_tensors(path: pathlib.Path) -> Weights:
    tensors = torch_checkpoint.open_tensors(path)
    backbones = torchvision_names.find_backbones(list(tensors))
    if "online" not in backbones:
        names = ", ".join(list(tensors)[:3]) or "no tensors"
        raise UsageError(
            f"{path} holds no ResNet by torchvision's names (conv1, layer1.0.conv1, ..., perhaps "
            f"behind a prefix): it has {names}. Of a head alone nothing can be made."
        )
    found = {
        name: {key: tensors[stored] for key, stored in backbone.keys.items()}
        for name, backbone in backbones.items()
    }
    try:
        card = torchvision_names.recognize(found["online"])
        if card.stem == "cifar" and torchvision_names.has_margin(list(tensors)):
            card = card._replace(stem="cifar_margin")
        for named in found.values():
            torchvision_names.require_fit(named, card)
    except UsageError as error:
        raise UsageError(f"{path} {error}") from None

    def load(name: str) -> Network:
        try:
            return Network(*torchvision_names.from_torch(found[name], card))
        except safe_pickle.UnsupportedPickle as error:
            raise UsageError(f"Cannot read {error}.") from None

    loaders = {name: lambda name=name: load(name) for name in found}
    prefix, margin = backbones["online"].prefix, "stem: 2 px of padding, as solo-learn's for CIFAR"
    notes = (
        f"names: torchvision's{f' behind {prefix!r}' if prefix else ''}",
        *([margin] if card.stem == "cifar_margin" else []),
        f"image size: {card.image_size} px is the custom, the file does not say it",
        "normalization: by ImageNet's mean and std, as is the custom",
    )
    return Weights(str(path), "torch", None, card, loaders, None, notes)


def _open_export(folder: pathlib.Path) -> Weights:
    model = export_contents.read_model(folder)
    stored = export_contents.open_weights(folder)
    card = model["card"]
    try:
        encoder_spec.require_encoder(card, *stored)
    except UsageError as error:
        raise UsageError(f"{folder / export_contents.WEIGHTS} {error}") from None

    def load() -> Network:
        return Network(*(jax.tree.map(_load_tensor, tree, is_leaf=_is_tensor) for tree in stored))

    source = model["source"]
    config = model["config"] and ml_collections.ConfigDict(
        run_facts.with_later_keys(model["config"])
    )
    return Weights(
        str(folder),
        "export",
        source["step"],
        card,
        {model["network"]: load},
        config,
        tuple(model["notes"]),
        model["licence"],
    )


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch_checkpoint.StoredTensor)


def _load_tensor(leaf: torch_checkpoint.StoredTensor) -> Any:
    return leaf.load()
