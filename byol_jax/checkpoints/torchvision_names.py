"""Parameters by torchvision's names and axes, from and to Haiku's.

Peers' checkpoints are torchvision's layout behind a prefix: ``backbone.`` (solo-learn, mmpretrain,
lightly), ``module.`` and others. lightly also wraps the layers into a sequence, which numbers them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.models import encoder_spec, resnet

UsageError = config_lib.UsageError

TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_TARGET_WORDS = ("momentum", "teacher", "target", "ema", "encoder_k")
# In lightly's sequences: torchvision's layers, or those of its own ResNets for small images.
_SEQUENCES = (
    {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"},
    {"0": "conv1", "1": "bn1", "2": "layer1", "3": "layer2", "4": "layer3", "5": "layer4"},
)
_LAYERS = {
    "initial_conv": "conv1",
    "initial_batchnorm": "bn1",
    "final_batchnorm": "norm",
    "shortcut_conv": "downsample.0",
    "shortcut_batchnorm": "downsample.1",
}
_HEAD_LAYERS = {"linear": "0", "batch_norm": "1", "linear_1": "3"}
_RUNNING = {"mean_ema": "running_mean", "var_ema": "running_var"}
_LONG_AGO = 10_000  # updates: after so many, a running mean has forgotten how it began


class Entry(NamedTuple):
    """An array by both names.

    Attributes:
      tree: 0 for parameters, 1 for state.
      module: of Haiku.
      name: of Haiku.
      key: of torchvision.
    """

    tree: int
    module: str
    name: str
    key: str


def entries(params: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[Entry]:
    """All arrays of an encoder and of its projector, if that is there, that torchvision has too."""
    for tree, modules in enumerate((params, state)):
        for module, leaves in modules.items():
            for name in leaves:
                key = _key(tree, module, name)
                if key:
                    yield Entry(tree, module, name, key)


def _key(tree: int, module: str, name: str) -> str | None:
    if module.startswith(("predictor", "classifier")):
        return None
    layer, _, statistic = module.rpartition("/~/") if tree else (module, "", "")
    if module.startswith("projector"):
        layer = "projector." + _HEAD_LAYERS[layer.split("/")[1]]
    else:
        layer = _layer(layer)
    if tree:
        if name == "average":
            return f"{layer}.{_RUNNING[statistic]}"
        is_counter = name == "counter" and statistic == "mean_ema"
        return f"{layer}.num_batches_tracked" if is_counter else None
    return f"{layer}.{'weight' if name in ('w', 'scale') else 'bias'}"


def _layer(module: str) -> str:
    parts = module.split("/~/")
    prefix = ""
    if len(parts) == 4:
        group, block = (int(part.rsplit("_", 1)[1]) for part in parts[1:3])
        prefix = f"layer{group + 1}.{block}."
    name = parts[-1]
    numbered = re.fullmatch(r"(conv|batchnorm)_(\d)", name)
    if not numbered:
        return prefix + _LAYERS[name]
    return f"{prefix}{'conv' if numbered[1] == 'conv' else 'bn'}{int(numbered[2]) + 1}"


def to_torch(params: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters and batch-norm statistics by torchvision's names and in its axes."""
    tensors = {}
    for entry in entries(params, state):
        array = np.asarray((params, state)[entry.tree][entry.module][entry.name])
        if entry.name == "w":
            array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
        elif entry.name == "counter":
            array = array.astype(np.int64)
        else:
            array = array.reshape(-1)
        tensors[entry.key] = np.ascontiguousarray(array)
    return tensors


class Backbone(NamedTuple):
    """An encoder among the tensors of a file.

    Attributes:
      prefix: of its names; tells which package they are of.
      keys: torchvision's name -> name in the file.
    """

    prefix: str
    keys: dict[str, str]


def find_backbones(names: list[str]) -> dict[str, Backbone]:
    """The encoders of a file: "online", and "target" if there is a moving average of it, too."""
    found: dict[str, Backbone] = {}
    for prefix in sorted(_prefixes(names), key=lambda prefix: (prefix.count("."), prefix)):
        backbone = Backbone(prefix, _torchvision_keys(names, prefix))
        words = prefix.lower()
        kind = "target" if any(word in words for word in _TARGET_WORDS) else "online"
        found.setdefault(kind, backbone)
    if "online" not in found and "target" in found:
        found["online"] = found["target"]
    return found


def _prefixes(names: list[str]) -> set[str]:
    first = ("conv1.weight", "0.weight")
    blocks = ("layer1.0.conv1.weight", "4.0.conv1.weight", "2.0.conv1.weight")
    prefixes = {name.removesuffix(end) for name in names for end in first if name.endswith(end)}
    known = set(names)
    return {prefix for prefix in prefixes if any(prefix + block in known for block in blocks)}


def _torchvision_keys(names: list[str], prefix: str) -> dict[str, str]:
    own = [name for name in names if name.startswith(prefix)]
    renamed: Callable[[str], str] = lambda key: key  # noqa: E731
    if f"{prefix}conv1.weight" not in own:
        sequence = _SEQUENCES[f"{prefix}2.0.conv1.weight" in own]

        def renamed(key: str) -> str:
            first, _, rest = key.partition(".")
            return f"{sequence.get(first, first)}.{rest}"

    keys = {}
    for name in own:
        keys[renamed(name.removeprefix(prefix)).replace(".shortcut.", ".downsample.")] = name
    return keys


def recognize(tensors: Mapping[str, Any]) -> encoder_spec.EncoderSpec:
    """The card of an encoder by torchvision's names; image size and normalization are customary.

    Raises:
      UsageError: it is no ResNet that is known here.
    """
    first = tensors["conv1.weight"].shape
    bottleneck = "layer1.0.conv3.weight" in tensors
    blocks = tuple(_count_blocks(tensors, layer) for layer in range(1, 5))
    named = [
        name
        for name, spec in resnet.ENCODERS.items()
        if (spec.blocks, spec.bottleneck) == (blocks, bottleneck) and spec.stem_channels == 64
        if spec.channels[0] in (64, 256)
    ]
    stems = encoder_spec.stems_by_kernel()
    if not named or len(first) != 4 or first[2] not in stems or first[0] % 64:
        kind = "bottleneck" if bottleneck else "basic"
        raise UsageError(
            f"holds a network of {'-'.join(map(str, blocks))} {kind} blocks after a convolution of "
            f"shape {first}; known are ResNet-18 to -200."
        )
    stem = stems[first[2]]
    return encoder_spec.EncoderSpec(
        named[0],
        width_multiplier=first[0] // 64,
        stem=stem,
        padding="torch",
        image_size=encoder_spec.IMAGE_SIZES[stem],
    )


def has_margin(names: list[str]) -> bool:
    """Whether a file is solo-learn's, whose stem for small images pads by a pixel more.

    Its momentum encoders have a name of their own; of its other methods nothing can be told.
    """
    return any(re.search(r"(^|\.)momentum_(backbone|encoder)\.", name) for name in names)


def _count_blocks(tensors: Mapping[str, Any], layer: int) -> int:
    pattern = re.compile(rf"layer{layer}\.(\d+)\.")
    return len({match[1] for match in map(pattern.match, tensors) if match})


def require_fit(tensors: Mapping[str, Any], card: encoder_spec.EncoderSpec) -> None:
    """Checks that an encoder is all there, before any of it is read.

    Args:
      tensors: by torchvision's names; each has a shape.
      card: of the encoder.

    Raises:
      UsageError: a tensor is missing, too much, or of another shape.
    """
    shapes = encoder_spec.shapes(card)
    wanted = {
        entry.key: _torch_shape(shapes[entry.tree][entry.module][entry.name].shape, entry)
        for entry in entries(*shapes)
    }
    for key, shape in wanted.items():
        if key.endswith("num_batches_tracked"):
            continue
        if key not in tensors:
            raise UsageError(f"lacks {key}: half an encoder, or a head alone.")
        if tuple(tensors[key].shape) != shape:
            raise UsageError(f"holds {key} of shape {tuple(tensors[key].shape)}, not {shape}.")
    more = {key for key in tensors if key.startswith(("layer", "conv", "bn"))} - set(wanted)
    if more:
        raise UsageError(f"holds {min(more)}, which no {card.encoder} of torchvision has.")


def _torch_shape(shape: tuple[int, ...], entry: Entry) -> tuple[int, ...]:
    if entry.name == "w":
        return (shape[3], shape[2], *shape[:2])
    return () if entry.name == "counter" else (shape[-1],)


def from_torch(tensors: Mapping[str, Any], card: encoder_spec.EncoderSpec) -> tuple[Any, Any]:
    """Parameters and state of an encoder by Haiku's names.

    Args:
      tensors: by torchvision's names, checked by `require_fit`; each has ``load()``.
      card: of the encoder.
    """
    shapes = encoder_spec.shapes(card)
    trees: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for entry in entries(*shapes):
        if entry.name == "counter":
            continue
        array = tensors[entry.key].load().astype(np.float32)
        if entry.name == "w":
            array = array.transpose(2, 3, 1, 0)
        shape = shapes[entry.tree][entry.module][entry.name].shape
        array = np.ascontiguousarray(array).reshape(shape)
        trees[entry.tree].setdefault(entry.module, {})[entry.name] = array
    for leaves in trees[1].values():
        # Haiku also keeps the running mean before it is freed of how it began.
        leaves |= {"hidden": leaves["average"], "counter": np.int32(_LONG_AGO)}
    return trees
