"""What the rules of `effect_rules` ask of a config."""

from typing import Any, NamedTuple

import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import sources
from byol_jax.data import datasets, label_table
from byol_jax.models import resnet
from byol_jax.objectives import table

UsageError = config_lib.UsageError


def is_in_memory(config: Any) -> bool:
    """Whether the set of a config is decoded once and kept; opens it if its name does not say."""
    data = _set_of(config)
    if data.name in ("patterns", "folder", datasets.ARRAYS):
        return data.name != "folder"
    return isinstance(_open(config), datasets.ArrayDataset)


def is_folder(config: Any) -> bool:
    """Whether the set of a config is a folder of images."""
    return _set_of(config).name == "folder"


def has_labels(config: Any) -> bool:
    """Whether the set of a config has labels; opens it if its name does not say."""
    return _set_of(config).name == datasets.ARRAYS or _open(config).num_classes > 0


def _open(config: Any) -> datasets.Dataset:
    data = _set_of(config)
    return datasets.load(data.name, data.split, data_dir=data.dir, labels=data.labels)


class _Set(NamedTuple):
    name: str
    dir: str
    split: str
    labels: str = label_table.FOLDERS


def _set_of(config: Any) -> _Set:
    """The set of a config, which may be that of the encoder's run."""
    data = config.data
    split = data.get("train_split", "") or data.get("split", "")
    if data.name:
        split = split or ("all" if data.name == "folder" else "train")
        return _Set(data.name, data.dir, split, data.get("labels", "") or label_table.FOLDERS)
    trained = sources.open_weights(config.checkpoint).config
    if trained is None:
        raise UsageError("Give the set to measure on by --config.data.name.")
    return _Set(
        trained.data.name,
        data.dir or trained.data.dir,
        split or trained.data.train_split,
        data.get("labels", "") or trained.data.labels,
    )


def has_bottlenecks(config: Any) -> bool:
    """Whether the encoder has blocks of version 1 whose last norm may start at 0."""
    spec = resnet.ENCODERS.get(config.model.encoder)
    return spec is None or (spec.bottleneck and not config.model.resnet_v2)


def has_predictor(config: Any) -> bool:
    """Whether predictions are compared, as the config or else the objective says."""
    return config.model.predictor != "none" and may_have_predictor(config)


def may_have_predictor(config: Any) -> bool:
    """Whether the objective lets predictions be compared, whatever makes them."""
    objective = table.OBJECTIVES.get(config.objective.name)
    asked = config.objective.predictor
    return objective is None or (objective.has_predictor if asked is None else asked)


def averages_target(config: Any) -> bool:
    """Whether the target is a moving average."""
    objective = table.OBJECTIVES.get(config.objective.name)
    return objective is None or (config.objective.target or objective.targets[0]) == "ema"


def has_batch_norm(config: Any) -> bool:
    """Whether any layer has batch norm."""
    model = config.model
    is_at_the_end = model.projector_output_norm != "none"
    is_in_heads = model.head_norm == "batch" and is_deep(config)
    return model.norm == "batch" or is_at_the_end or is_in_heads


def is_deep(config: Any) -> bool:
    """Whether a head has hidden layers."""
    model = config.model
    is_mlp = model.predictor == "mlp" and has_predictor(config)
    predictor = model.predictor_hidden_layers if is_mlp else 0
    return model.projector_hidden_layers > 0 or predictor > 0


def count(values: Any) -> int:
    """How many values a key has."""
    return int(np.size(values))
