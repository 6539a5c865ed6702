"""Settings: typed, frozen, complete, and each resolved value with its origin."""

import dataclasses

import pytest

from byol_jax import config as config_lib
from byol_jax.config import UsageError
from byol_jax.objectives import table
from byol_jax.training import settings
from configs import byol
from tests.conftest import make_config, make_settings

RESOLVED = {"origins", "unset"}  # of no key
# Keys for the main loop, and for comparing and completing configs; the optimizers and objectives,
OTHERS = {"task", "preset", "plugins", "accept_changes", "budget_minutes"}
OTHERS |= {"optimizer.lars", "optimizer.sgd", "optimizer.adamw"}
SECTIONS = {f"objective.{name}" for name in table.OBJECTIVES}


def keys(kind, prefix=""):
    """Dotted names of the fields of a dataclass of settings."""
    for name, hint in kind.__annotations__.items():
        if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
            yield from keys(hint, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_key_of_the_config_has_a_field_of_its_name_and_no_field_is_without_a_key():
    config = set(config_lib.flatten(byol.get_config().to_dict()))
    of_optimizers = {key for key in config if key.rpartition(".")[0] in OTHERS | SECTIONS}
    named = set(keys(settings.PretrainSettings))
    own = {f"optimizer.{n}" for n in ("base_learning_rate", "weight_decay", "arguments")} | {
        "objective.own"
    }
    assert config - OTHERS - of_optimizers == named - RESOLVED - own


def test_settings_cannot_be_changed():
    found = make_settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.data.image_size = 1
    with pytest.raises(TypeError):
        found.optimizer.arguments["momentum"] = 1
    other = config_lib.replaced(found, "data.image_size", 64)
    assert (found.data.image_size, other.data.image_size) == (32, 64)
    assert other.model is found.model


def test_the_optimizer_has_the_settings_of_the_one_that_is_named():
    config = make_config(**{"optimizer.name": "adamw", "optimizer.adamw.b1": 0.8})
    found = settings.resolve(config, num_images=640).optimizer
    assert found.arguments == {"b1": 0.8, "b2": 0.999}
    assert found.base_learning_rate == config.optimizer.adamw.base_learning_rate


def test_epochs_become_steps_by_rounding_down_and_warm_up_ends_with_the_run():
    length = {"total_steps": None, "optimizer.warmup_steps": None, "optimizer.warmup_epochs": 2.5}
    found = make_settings(num_images=101, total_epochs=3.0, **length)  # batches of 8
    assert (found.total_steps, found.total_epochs) == (303 // 8, 3.0)
    assert found.optimizer.warmup_steps == 252 // 8
    longer = make_settings(num_images=101, total_epochs=1.0, **length)
    assert longer.optimizer.warmup_steps == longer.total_steps == 12


def test_a_value_says_whether_it_was_typed_preset_measured_or_the_references():
    config = byol.get_config("imagenet-100")
    config.data.mean = config.data.std = None
    found = settings.resolve(config, num_images=1_281_167, typed=["total_epochs"])
    assert found.origins == {
        "total_steps": "typed",
        "optimizer.warmup_steps": "reference",
        "optimizer.base_learning_rate": "reference",
        "optimizer.weight_decay": "reference",
        "objective.base_target_ema": "reference",
        "data.mean": "measured",
    }


@dataclasses.dataclass(frozen=True)
class Small:
    size: int
    shape: str = "round"


def test_a_key_that_a_config_lacks_is_the_fields_default_or_named():
    assert config_lib.freeze(Small, {"size": 3}) == Small(3, "round")
    with pytest.raises(UsageError, match=r"lacks the key small\.size"):
        config_lib.freeze(Small, {"shape": "flat"}, prefix="small.")


def test_epochs_of_warm_up_are_not_said_to_be_the_references_where_its_steps_count():
    unset = {"optimizer.warmup_epochs": None}
    assert make_settings(**unset, **{"optimizer.warmup_steps": 5}).unset == ""
    assert "warmup_epochs" in make_settings(**unset, **{"optimizer.warmup_steps": None}).unset
