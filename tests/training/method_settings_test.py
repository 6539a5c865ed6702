"""What a method brings to a preset, who may overrule it, and how runs of before go on."""

import json
import shutil

import jax
import numpy as np
import pytest

from byol_jax import config as config_lib
from byol_jax.cli import effects, overrides
from byol_jax.config import UsageError
from byol_jax.objectives import table
from byol_jax.tasks import pretrain
from byol_jax.training import (
    build,
    completion,
    config_checks,
    method_settings,
    resource_estimate,
    settings,
)
from configs import byol
from tests.conftest import final_state, make_config

NAME = "objective.name"


def published(name, preset="imagenet-1000", **typed):
    """The config of a preset for which a method and other keys were typed, and the labels."""
    config = byol.get_config(preset)
    typed = {NAME: name} | typed
    overrides.apply(config, typed)
    effects.settle(config, typed)
    return method_settings.published(config, typed)


PUBLISHED = {  # key of the section model, or a whole one: on ImageNet with ResNet-50
    "simclr": {
        **{"projector_hidden_layers": 2, "projector_hidden_size": 2048},
        **{"projector_output_size": 128, "projector_output_norm": "batch_scale"},
        **{"optimizer.lars.base_learning_rate": 0.3, "optimizer.lars.weight_decay": 1e-4},
    },
    "moco_v2": {
        **{"projector_output_size": 128, "head_norm": "none", "head_bias": True},
        **{"optimizer.name": "sgd", "optimizer.sgd.base_learning_rate": 0.03},
        **{"objective.base_target_ema": 0.999, "objective.target_ema_schedule": "constant"},
        **{"optimizer.warmup_steps": 0},
    },
    "moco_v3": {"projector_hidden_size": 4096, "projector_output_norm": "batch_plain"},
    "simsiam": {"predictor_hidden_size": 512, "projector_output_size": 2048},
    "barlow_twins": {"projector_hidden_size": 8192, "projector_output_size": 8192},
    "vicreg": {"projector_hidden_layers": 2, "optimizer.lars.weight_decay": 1e-6},
    "swav": {"projector_output_size": 128, "optimizer.lars.base_learning_rate": 0.3},
    "ssl_hsic": {"projector_hidden_size": 4096, "optimizer.lars.base_learning_rate": 0.4},
    "dino": {"projector_output_size": 65536, "optimizer.name": "sgd"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_on_imagenet_a_method_has_its_published_heads_and_optimizer(name):
    filled = published(name)
    for key, value in PUBLISHED[name].items():
        key = key if "." in key else f"model.{key}"
        assert config_lib.get(filled.config, key) == value, key
    assert set(filled.origins.values()) == {f"objective {name}"}
    config_checks.check(filled.config)


def test_each_method_but_byols_own_has_a_recipe():
    assert set(table.OBJECTIVES) - set(method_settings.RECIPES) == {
        *("byol", "byol_no_predictor", "infonce", "raft")
    }


def test_what_is_typed_wins_and_is_not_said_to_be_the_methods():
    typed = {"model.projector_output_size": 96, "optimizer.sgd.weight_decay": 1e-5}
    filled = published("simsiam", "imagenette", **typed)
    assert filled.config.model.projector_output_size == 96
    assert filled.config.optimizer.sgd.weight_decay == 1e-5
    assert not set(typed) & set(filled.origins)
    other = published("simsiam", "imagenette", **{"optimizer.name": "adamw"})
    assert other.config.optimizer.name == "adamw"
    assert other.config.optimizer.sgd == byol.get_config("imagenette").optimizer.sgd


def test_a_warm_up_that_is_typed_stays():
    filled = published("simsiam", "imagenette", **{"optimizer.warmup_epochs": 5.0})
    assert filled.config.optimizer.warmup_steps is None


def test_small_encoders_have_narrower_heads_and_presets_of_small_sets_faster_rates():
    filled = published("barlow_twins", "patterns")
    assert filled.config.model.projector_hidden_size == 512  # 8192 x 96 / 2048, a power of two
    assert filled.config.optimizer.lars.base_learning_rate == pytest.approx(2.0)
    text = method_settings.describe(filled)
    assert "published: 8192, for an embedding of 2048 in place of 96" in text
    assert "published: 0.2, times 10" in text and "recipe=preset" in text


def test_the_preset_stays_where_it_is_asked_for_or_a_config_file_names_the_method():
    for typed, keys in (
        ({NAME, "objective.recipe"}, {"objective.recipe": "preset"}),
        ({"seed"}, {}),
    ):
        config = make_config(**{NAME: "simclr"}, **keys)
        filled = method_settings.published(config, typed)
        assert filled.config is config and not filled.origins
    with pytest.raises(UsageError, match="objective.recipe: 'papers'.*preset"):
        method_settings.published(make_config(**{"objective.recipe": "papers"}), ())


@pytest.mark.parametrize("name", ["simclr", "simsiam"])
def test_a_folder_has_the_heads_of_the_method_for_the_encoder_that_is_chosen(name, tmp_path):
    config = byol.get_config("folder")
    config.data.name, config.data.eval_split = "patterns", "test"
    typed = {NAME: name, "total_steps": 5, "data.name": "patterns", "model.encoder": "micro_resnet"}
    overrides.apply(config, typed)
    filled = completion.complete(config, typed=typed)
    assert filled.config.model.projector_hidden_size == 128
    assert filled.origins["model.projector_hidden_size"] == f"objective {name}"
    assert filled.origins["batch_size"].startswith("folder preset: ")
    found = settings.resolve(
        filled.config, num_images=500, typed=typed, chosen=filled.origins
    ).origins
    assert found["total_steps"] == "typed"
    assert found["optimizer.base_learning_rate"] == f"objective {name}"


def test_a_run_goes_on_with_what_it_began_with(tmp_path):
    config = byol.get_config("patterns")
    config.objective.name = "simclr"
    begun = completion.complete(config, tmp_path, typed=(NAME,)).config
    begun.model.projector_output_size = 80  # as another version would have had it
    (tmp_path / "config.json").write_text(json.dumps(begun.to_dict()))
    again = completion.complete(config, tmp_path, typed=(NAME,))
    assert again.config.to_dict() == begun.to_dict()
    assert again.origins["model.projector_output_size"] == "objective simclr"


def test_a_run_of_an_earlier_version_keeps_its_presets_heads_and_its_unused_predictor(tmp_path):
    config = byol.get_config("patterns")
    config.objective.name = "simclr"
    stored = config.to_dict()
    del stored["objective"]["recipe"], stored["model"]["projector_output_norm"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    again = completion.complete(config, tmp_path, typed=(NAME,)).config
    assert again.objective.recipe == method_settings.EARLIER
    again.objective.recipe = config.objective.recipe
    assert again.to_dict() == config.to_dict()
    again.objective.recipe = method_settings.EARLIER
    assert method_settings.predictor_of(again) == "mlp"
    assert method_settings.predictor_of(config) == "none"


@pytest.mark.parametrize(
    "keys",
    [
        {NAME: "simclr"},
        {"objective.predictor": False},
        {"model.predictor": "none"},
        {NAME: "byol_no_predictor"},
    ],
)
def test_nothing_is_drawn_or_counted_for_a_predictor_that_nothing_compares(keys):
    with_one, without = (settings.resolve(make_config(**k), num_images=640) for k in ({}, keys))
    assert without.model.predictor == "none"
    if NAME in keys and keys[NAME] == "simclr":  # the same network for all of them
        drawn, unused = (abstract(build.make_forward(x, CARD)) for x in (with_one, without))
        left_out = {module for module in drawn if module not in unused}
        assert left_out == {module for module in drawn if module.startswith("predictor")}
        assert left_out and set(unused) < set(drawn)
    flops = resource_estimate.flops_of_an_image
    assert flops(without) < flops(with_one)


CARD = build.run_folder.DataCard(640, 10, "", (0.5,) * 3, (0.5,) * 3)


def abstract(forward):
    images = np.zeros((2, 32, 32, 3), np.float32)
    key = jax.random.key(0)
    return jax.eval_shape(lambda: forward.init(key, images, is_training=True))[0]


def test_without_a_target_network_its_pass_is_not_counted():
    simclr, byol_ = (
        settings.resolve(make_config(**keys), num_images=640)
        for keys in ({NAME: "simclr"}, {"objective.predictor": False})
    )
    flops = resource_estimate.flops_of_an_image
    assert flops(simclr) < 0.8 * flops(byol_)


@pytest.mark.slow
def test_a_run_with_a_predictor_that_nothing_reads_resumes_to_the_last_bit(tmp_path):
    """As versions drew it before there were recipes; its last checkpoint is lost."""
    keys = {NAME: "simclr", "objective.recipe": method_settings.EARLIER, "gallery.max_images": 0}
    old = make_config(**keys, **{"model.predictor_hidden_size": 16})
    filled = completion.Complete(old, {})
    pretrain.train_as(filled, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    del stored["objective"]["recipe"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(stored))
    expected = final_state(tmp_path / "run", old)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    config = make_config(**{NAME: "simclr", "gallery.max_images": 0})
    assert pretrain.run(config, tmp_path / "run", typed=(NAME,))
    jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path / "run", old), expected)
