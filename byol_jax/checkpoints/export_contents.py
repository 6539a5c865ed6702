"""The folder of an export: ``model.json``, which says what it is, and weights by Haiku's names."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from byol_jax import config as config_lib
from byol_jax.checkpoints import safe_pickle, torch_checkpoint
from byol_jax.models import byol_network, encoder_spec, resnet
from byol_jax.workdir import files, run_folder

UsageError = config_lib.UsageError

FORMAT = "byol_jax export 1"
MODEL = "model.json"
WEIGHTS = "model.safetensors"
_TREES = ("params", "state")


def describe(
    card: encoder_spec.EncoderSpec,
    *,
    network: str,
    source: dict[str, Any],
    config: Any,
    notes: Sequence[str],
    licence: str,
    projector: byol_network.HeadSpec | None = None,
) -> dict[str, Any]:
    """What ``model.json`` says of an encoder, whatever else it says.

    Args:
      card: of the encoder.
      network: "online" or "target".
      source: path, format, step and sha256 of what it was made from.
      config: of the run that trained it; None if there is none.
      notes: what was assumed of it.
      licence: of its weights.
      projector: if it belongs to the export.
    """
    return {
        "format": FORMAT,
        "card": card._asdict(),
        "architecture": architecture(card, projector),
        "network": network,
        "input": "RGB images, uint8; divided by 255, then normalized by mean and std",
        "source": source,
        "config": config.to_dict() if config else None,
        "notes": list(notes),
        "licence": licence,
        "versions": run_folder.versions(),
    }


def write_model(folder: pathlib.Path, model: dict[str, Any]) -> None:
    """Writes ``model.json``."""
    files.write_text(folder / MODEL, json.dumps(model, indent=2) + "\n")


def save_weights(folder: pathlib.Path, params: Any, state: Any) -> None:
    """Writes parameters and batch-norm statistics, as ``params/<module>/<name>``."""
    tensors = {
        f"{tree}/{module}/{name}": leaf
        for tree, modules in zip(_TREES, (params, state), strict=True)
        for module, leaves in modules.items()
        for name, leaf in leaves.items()
    }
    torch_checkpoint.save_safetensors(folder / WEIGHTS, tensors, metadata={"format": FORMAT})


def open_weights(folder: pathlib.Path) -> tuple[Any, Any]:
    """The two trees of a folder, as `torch_checkpoint.StoredTensor`.

    Raises:
      UsageError: the file is damaged, or not one of ours.
    """
    try:
        tensors = torch_checkpoint.open_tensors(folder / WEIGHTS)
    except (safe_pickle.UnsupportedPickle, OSError) as error:
        raise UsageError(f"Cannot read {error}. Export it again.") from None
    trees: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for key, tensor in tensors.items():
        tree, _, rest = key.partition("/")
        module, _, name = rest.rpartition("/")
        if tree not in _TREES or not module:
            raise UsageError(f"{folder / WEIGHTS} holds '{key}', which no export of ours does.")
        trees[_TREES.index(tree)].setdefault(module, {})[name] = tensor
    return trees


def read_model(folder: pathlib.Path) -> dict[str, Any]:
    """What ``model.json`` holds, with its card checked.

    Raises:
      UsageError: it is missing, damaged, or of another version.
    """
    path = folder / MODEL
    try:
        model = json.loads(files.read_bytes(path))
        if model["format"] != FORMAT:
            raise ValueError(f"it is of format {model['format']!r}, not {FORMAT!r}")
        model["card"] = to_card(model["card"])
        for key, kind in _FIELDS.items():
            if not isinstance(model[key], kind):
                raise ValueError(f"its {key!r} is not what an export holds there")
        model["source"]["step"]  # or an error
        return model
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise UsageError(f"Cannot read {path}: {reason}. Export the encoder again.") from None


_FIELDS = {"network": str, "source": dict, "config": (dict, type(None)), "notes": list}
_FIELDS |= {"licence": str}


def to_card(fields: dict[str, Any]) -> encoder_spec.EncoderSpec:
    """A card from its fields as JSON has them.

    Raises:
      TypeError, ValueError: no encoder can be built by them.
    """
    card = encoder_spec.EncoderSpec(**fields)
    rates = [card.bn_decay_rate, card.bn_eps]
    sizes = (card.width_multiplier, card.image_size, card.norm_groups)
    is_of = run_folder.is_numbers
    if not (is_of(card.mean, 3) and is_of(card.std, 3) and is_of(rates, 2)):
        raise ValueError("its card holds other things than numbers")
    if any(type(size) is not int or not 0 < size < 1 << 14 for size in sizes):
        raise ValueError(f"its card holds the sizes {sizes}")
    ranges = run_folder.make_ranges(card.grey_ranges)
    card = card._replace(mean=tuple(card.mean), std=tuple(card.std), grey_ranges=ranges)
    encoder_spec.shapes(card)  # complains if it cannot be built
    return card


def architecture(
    card: encoder_spec.EncoderSpec, projector: byol_network.HeadSpec | None
) -> dict[str, Any]:
    """What the table of encoders says about a card, for those who have no table.

    Args:
      card: of the encoder.
      projector: if it belongs to the export.
    """
    spec, stem = resnet.ENCODERS[card.encoder], resnet.STEMS[card.stem]
    channels = [spec.stem_channels, *spec.channels]
    groups = [
        {
            "channels": after * card.width_multiplier,
            "blocks": blocks,
            "stride": stride,
            "projects": card.padding != "torch" or stride > 1 or before != after,
        }
        for before, after, blocks, stride in zip(
            channels[:-1], channels[1:], spec.blocks, spec.strides, strict=True
        )
    ]
    return {
        "bottleneck": spec.bottleneck,
        "stem_channels": spec.stem_channels * card.width_multiplier,
        "stem": stem._asdict(),
        "groups": groups,
        "projector": projector and (projector.hidden_size, projector.output_size),
    }
