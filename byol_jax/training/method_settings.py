"""What the authors of each method published: heads, optimizer and schedules, by `objective.name`.

They are taken where nobody typed another value. BYOL and `infonce` have no row: the presets are
theirs. Rows are of ResNet-50 on ImageNet; what is not in one is as in BYOL's presets.
"""

import copy
import dataclasses
import math
import types
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from byol_jax import config as config_lib
from byol_jax.models import resnet
from byol_jax.objectives import table
from byol_jax.training import budget_plan

BYOL_RATE = 0.2  # of LARS, over 1,000 epochs
EMBEDDING = 2048  # of ResNet-50
SMALLEST_HEAD = 64

# Values of ``objective.recipe``.
METHOD, PRESET = "method", "preset"
EARLIER = "earlier"  # of runs from before there were recipes, which drew a predictor for all
KINDS = (METHOD, PRESET, EARLIER)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What was published of one method.

    Attributes:
      heads: keys of the section ``model``.
      optimizer: name and settings; the rate is for a batch of 256.
      schedule: dotted keys.
      small_batch_rate: of LARS, for batches of 256 and less; None: the same.
    """

    heads: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: tuple[str, Mapping[str, float]] = ("lars", {})
    schedule: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    small_batch_rate: float | None = None


def _projector(hidden: int, layers: int, output: int, **others: Any) -> dict[str, Any]:
    return {
        "projector_hidden_size": hidden,
        "projector_hidden_layers": layers,
        "projector_output_size": output,
        **others,
    }


def _rates(rate: float, decay: float) -> dict[str, float]:
    return {"base_learning_rate": rate, "weight_decay": decay, "momentum": 0.9}


_NO_WARMUP = {"optimizer.warmup_steps": 0}

RECIPES: Mapping[str, Recipe] = {
    "simclr": Recipe(
        _projector(2048, 2, 128, projector_output_norm="batch_scale"), ("lars", _rates(0.3, 1e-4))
    ),
    "moco_v2": Recipe(
        _projector(2048, 1, 128, head_norm="none", head_bias=True),
        ("sgd", _rates(0.03, 1e-4)),
        {
            **_NO_WARMUP,
            "objective.base_target_ema": 0.999,
            "objective.target_ema_schedule": "constant",
        },
    ),
    "moco_v3": Recipe(
        _projector(
            *(4096, 1, 256),
            projector_output_norm="batch_plain",
            predictor_hidden_size=4096,
            predictor_hidden_layers=1,
        ),
        ("lars", _rates(0.3, 1.5e-6)),
    ),
    "simsiam": Recipe(
        _projector(
            *(2048, 2, 2048),
            projector_output_norm="batch_plain",
            predictor_hidden_size=512,
            predictor_hidden_layers=1,
            head_bias=True,
        ),
        ("sgd", _rates(0.05, 1e-4)),
        _NO_WARMUP,
    ),
    "barlow_twins": Recipe(_projector(8192, 2, 8192), ("lars", _rates(0.2, 1e-6))),
    "vicreg": Recipe(_projector(8192, 2, 8192), ("lars", _rates(0.2, 1e-6))),
    "swav": Recipe(
        _projector(2048, 1, 128, head_bias=True),
        ("lars", _rates(0.3, 1e-6)),
        small_batch_rate=0.6,
    ),
    "ssl_hsic": Recipe(
        optimizer=("lars", _rates(0.4, 1e-6)), schedule={"objective.base_target_ema": 0.99}
    ),
    "dino": Recipe(_projector(2048, 2, 65536, head_bias=True), ("sgd", _rates(0.03, 1e-4))),
}


class Filled(NamedTuple):
    """A config, and who chose what nobody typed.

    Attributes:
      config: with these values.
      origins: a label by dotted key.
      notes: of values that are not as published, by key.
    """

    config: Any
    origins: Mapping[str, str]
    notes: Mapping[str, str] = types.MappingProxyType({})


def label(name: str) -> str:
    """How the start of a run calls what a method brought."""
    return f"objective {name}"


def published(config: Any, typed: Collection[str]) -> Filled:
    """A config with what its method's authors published wherever nothing was typed.

    The method or the recipe has to be typed: a config file that names a method has settings of its
    own. Heads of the smallest encoders are as much narrower as their embedding is; off ImageNet,
    a rate of LARS is as many times the published one as the preset's is BYOL's.

    Args:
      config: of a run, which is left as it is.
      typed: dotted keys whose values a person gave.
    """
    section = config.objective
    config_lib.lookup(dict.fromkeys(KINDS[:2]), section.recipe, key="objective.recipe")
    recipe = RECIPES.get(section.name)
    is_asked = "objective.name" in typed or "objective.recipe" in typed
    if recipe is None or section.recipe != METHOD or not is_asked:
        return Filled(config, {})
    values, notes = _values(config, recipe, typed)
    values = {key: value for key, value in values.items() if key not in typed}
    config = copy.deepcopy(config)
    config.update_from_flattened_dict(values)
    origins = dict.fromkeys(values, label(section.name))
    return Filled(config, origins, {key: notes[key] for key in notes if key in values})


def as_begun(config: Any, stored: Mapping[str, Any], typed: Collection[str]) -> Filled:
    """A config with what the run in its workdir began with, wherever that is the method's.

    Args:
      config: of a run, which is left as it is.
      stored: the nested config of the run.
      typed: dotted keys whose values a person gave.
    """
    had = config_lib.flatten(stored)
    config = copy.deepcopy(config)
    recipe = had.get("objective.recipe", EARLIER)
    if recipe == EARLIER or "objective.recipe" not in typed:
        config.objective.recipe = recipe
    name = config.objective.name
    keys = RECIPES[name] if name in RECIPES and had.get("objective.name") == name else None
    if keys is None or config.objective.recipe != METHOD or recipe != METHOD:
        return Filled(config, {})
    taken = {key: had[key] for key in _keys(keys) if key in had and key not in typed}
    config.update_from_flattened_dict(taken)
    return Filled(config, dict.fromkeys(taken, label(name)))


def describe(filled: Filled) -> str:
    """What a method brought, a line for each value; empty if nothing."""
    if not filled.origins:
        return ""
    name = filled.config.objective.name
    lines = [
        f"From the authors of {name} (objective {name}), where nothing was typed; "
        "--config.objective.recipe=preset keeps the preset's:"
    ]
    for key in filled.origins:
        note = f"  # {filled.notes[key]}" if key in filled.notes else ""
        lines.append(f"  {key} = {config_lib.get(filled.config, key)}{note}")
    return "\n".join(lines)


def sizes(config: Any) -> dict[str, tuple[int, str]]:
    """Widths of a method's heads for the encoder of a config, each with its reason.

    Args:
      config: of a run; it names an encoder.
    """
    recipe = RECIPES.get(config.objective.name)
    if recipe is None or config.objective.recipe != METHOD:
        return {}
    encoder, multiplier = config.model.encoder, config.model.width_multiplier
    found = {key: value for key, value in recipe.heads.items() if key.endswith("_size")}
    if encoder not in budget_plan.SMALL_ENCODERS:
        return {key: (value, "") for key, value in found.items()}
    embedding = resnet.embedding_size(encoder, width_multiplier=multiplier or 1)
    return {
        key: (
            max(2 ** math.ceil(math.log2(value * embedding / EMBEDDING)), SMALLEST_HEAD),
            f"published: {value}, for an embedding of {EMBEDDING} in place of {embedding}",
        )
        for key, value in found.items()
    }


def rate_factor(config: Any, recipe: Recipe) -> float:
    """What LARS' published rate is multiplied with on a set that is not ImageNet."""
    rate = config.optimizer.lars.base_learning_rate
    is_published = config.data.name == "imagenet2012" or rate is None
    return 1.0 if is_published or recipe.optimizer[0] != "lars" else rate / BYOL_RATE


def rate_of_byol(config: Any) -> float:
    """How many times BYOL's rate of LARS a method's published one is; 1 without a recipe."""
    recipe = RECIPES.get(config.objective.name)
    if recipe is None or config.objective.recipe != METHOD or recipe.optimizer[0] != "lars":
        return 1.0
    return published_rate(config, recipe) / BYOL_RATE


def predictor_of(config: Any) -> str:
    """The predictor that a network has: "none" where none is compared.

    ``objective.predictor`` says whether there is one, ``model.predictor`` of which kind; "none"
    there says no, too. Runs of earlier versions drew one for every objective.
    """
    section, row = config.objective, table.OBJECTIVES.get(config.objective.name)
    has_one = row.has_predictor if row and section.predictor is None else section.predictor
    is_unused = row is not None and not has_one and section.recipe != EARLIER
    return "none" if is_unused else config.model.predictor


def _values(
    config: Any, recipe: Recipe, typed: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """All that a recipe sets, and notes on what is not as published."""
    heads = {key: value for key, value in recipe.heads.items() if not key.endswith("_size")}
    values = {f"model.{key}": value for key, value in heads.items()}
    notes: dict[str, str] = {}
    if config.model.encoder in resnet.ENCODERS:  # else `budget_recipe` asks for them
        for key, (size, note) in sizes(config).items():
            values[f"model.{key}"] = size
            notes |= {f"model.{key}": note} if note else {}
    name, arguments = recipe.optimizer
    if "optimizer.name" not in typed or config.optimizer.name == name:
        values["optimizer.name"] = name
        values |= {f"optimizer.{name}.{key}": value for key, value in arguments.items()}
        key = f"optimizer.{name}.base_learning_rate"
        if config_lib.get(config, key) is None and config.data.name != "imagenet2012":
            del values[key]  # `budget_recipe` has a rate for the encoder
        else:
            rate, note = _rate(config, recipe)
            values[key] = rate
            notes |= {key: note} if note else {}
    values |= recipe.schedule
    if any(key in typed for key in ("optimizer.warmup_steps", "optimizer.warmup_epochs")):
        values.pop("optimizer.warmup_steps", None)
    return values, notes


def _rate(config: Any, recipe: Recipe) -> tuple[float, str]:
    rate = published_rate(config, recipe)
    factor = rate_factor(config, recipe)
    if factor == 1:
        return rate, ""
    note = f"published: {rate:g}, times {factor:g} as the preset's rate is BYOL's {BYOL_RATE:g}"
    return float(f"{rate * factor:.6g}"), note


def published_rate(config: Any, recipe: Recipe) -> float:
    """The base learning rate that the authors give for a batch."""
    is_small = config.batch_size is not None and config.batch_size <= 256
    if is_small and recipe.small_batch_rate is not None:
        return recipe.small_batch_rate
    return recipe.optimizer[1]["base_learning_rate"]


def _keys(recipe: Recipe) -> list[str]:
    """All keys that a recipe may set."""
    name, arguments = recipe.optimizer
    return [
        *(f"model.{key}" for key in recipe.heads),
        "optimizer.name",
        *(f"optimizer.{name}.{key}" for key in arguments),
        *recipe.schedule,
    ]
