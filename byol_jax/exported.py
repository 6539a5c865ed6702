"""The folder of an export: ``model.json``, which says what it is, and weights by Haiku's names."""

import json
import pathlib
from typing import Any

from byol_jax import cards, pickles, resnet, torch_files
from byol_jax import config as config_lib

UsageError = config_lib.UsageError

FORMAT = "byol_jax export 1"
MODEL = "model.json"
WEIGHTS = "model.safetensors"
_TREES = ("params", "state")


def save_weights(folder: pathlib.Path, params: Any, state: Any) -> None:
    """Writes parameters and batch-norm statistics, as ``params/<module>/<name>``."""
    tensors = {
        f"{tree}/{module}/{name}": leaf
        for tree, modules in zip(_TREES, (params, state), strict=True)
        for module, leaves in modules.items()
        for name, leaf in leaves.items()
    }
    torch_files.save_safetensors(folder / WEIGHTS, tensors, metadata={"format": FORMAT})


def open_weights(folder: pathlib.Path) -> tuple[Any, Any]:
    """The two trees of a folder, as `torch_files.StoredTensor`.

    Raises:
      UsageError: the file is damaged, or not one of ours.
    """
    try:
        tensors = torch_files.open_tensors(folder / WEIGHTS)
    except (pickles.UnsupportedPickle, OSError) as error:
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
        model = json.loads(path.read_text())
        if model["format"] != FORMAT:
            raise UsageError(f"{path} is of format '{model['format']}', not '{FORMAT}'.")
        model["card"] = to_card(model["card"])
        return model
    except UsageError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"Cannot read {path}: {error!r}. Export the encoder again.") from None


def to_card(fields: dict[str, Any]) -> cards.Card:
    """A card from its fields as JSON has them."""
    card = cards.Card(**fields)
    ranges = card.grey_ranges and {kind: tuple(ends) for kind, ends in card.grey_ranges.items()}
    card = card._replace(mean=tuple(card.mean), std=tuple(card.std), grey_ranges=ranges)
    cards.shapes(card)  # complains if it cannot be built
    return card


def architecture(card: cards.Card, projector: tuple[int, int] | None) -> dict[str, Any]:
    """What the table of encoders says about a card, for those who have no table.

    Args:
      card: of the encoder.
      projector: hidden and output size, if it belongs to the export.
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
        "projector": projector,
    }
