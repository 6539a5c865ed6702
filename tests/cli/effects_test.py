"""A key that is typed changes something, or is refused with what to type instead."""

import importlib
import pathlib
import re
import types

import numpy as np
import pytest

from byol_jax import config as config_lib
from byol_jax.cli import config_files, effect_rules, effects, typed_values
from byol_jax.training import build, collapse_monitor, optimizers, settings
from byol_jax.workdir import run_folder
from configs import byol
from tests.conftest import make_config

UsageError = config_lib.UsageError


def typed(task, preset=None, /, **overrides):
    """A config of a task with some keys typed."""
    module = importlib.import_module(f"configs.{task}")
    config = module.get_config(*([preset] if preset else []))
    config.update_from_flattened_dict(overrides)
    return config


REFUSED = {  # preset, what is typed, which of it has no effect, what is said
    "another optimizer": ("byol", None, {"optimizer.adamw.b1": 0.5}, "optimizer.name=adamw"),
    "cifar10's optimizer": (
        "byol",
        "cifar10",
        {"optimizer.lars.momentum": 0.5},
        "of optimizer.adamw",
    ),
    "statistics": ("byol", None, {"accumulate_statistics": "exact"}, "accumulate=2"),
    "no blur": ("byol", None, {"augment.view1.blur_sigma_max": 3.0}, "view1.blur_probability=0.5"),
    "no jitter": (
        "byol",
        None,
        {"augment.view2.hue": 0.3, "augment.view2.jitter_probability": 0.0},
        "jitter_probability is 0",
    ),
    "no solarize": ("byol", None, {"augment.view1.solarize_threshold": 0.3}, "solarize_prob"),
    "basic blocks": ("byol", None, {"model.zero_init_residual": False}, "bottleneck"),
    "no crop": (
        "byol",
        None,
        {"augment.crop.min_area": 0.5, "augment.crop.enabled": False},
        "crop.enabled is false",
    ),
    "no groups": ("byol", None, {"model.norm_groups": 4}, "model.norm=group"),
    "no batch norm": (
        "byol",
        None,
        {"model.bn_decay_rate": 0.5, "model.norm": "group", "model.head_norm": "layer"},
        "without batch norm",
    ),
    "no norm": (
        "byol",
        None,
        {"model.bn_eps": 1e-3, "model.norm": "none", "model.head_norm": "none"},
        "without norms",
    ),
    "no residual norm": (
        "byol",
        None,
        {
            "model.zero_init_residual": False,
            "model.norm": "none",
            "model.encoder": "resnet50",
        },
        "norm is none",
    ),
    "linear heads": (
        "byol",
        None,
        {
            "model.head_norm": "layer",
            "model.projector_hidden_layers": 0,
            "model.predictor": "linear",
        },
        "without hidden layers",
    ),
    "linear projector": (
        "byol",
        None,
        {"model.projector_hidden_size": 9, "model.projector_hidden_layers": 0},
        "projector_hidden_layers is 0",
    ),
    "linear predictor": (
        "byol",
        None,
        {"model.predictor_hidden_layers": 2, "model.predictor": "linear"},
        "predictor is linear",
    ),
    "shallow predictor": (
        "byol",
        None,
        {"model.predictor_hidden_size": 9, "model.predictor_hidden_layers": 0},
        "predictor_hidden_layers is 0",
    ),
    "no predictor": (
        "byol",
        None,
        {"model.predictor_hidden_size": 9, "objective.name": "byol_no_predictor"},
        "has no predictor",
    ),
    "embedded": ("byol", None, {"data.dir": "/tmp"}, "data.name=folder"),
    "in memory": ("byol", None, {"data.workers": 2}, "in memory"),
    "threads": ("byol", None, {"data.threads": 2}, "in memory"),
    "bad images": ("byol", None, {"data.max_bad_share": 0.5}, "in memory"),
    "on the host": ("byol", "folder", {"augment.crop.method": "linear"}, "cut on the host"),
    "budget of another preset": ("byol", None, {"budget_minutes": 5.0}, "byol.py:folder"),
    "two lengths": ("byol", None, {"total_epochs": 2.0, "total_steps": 9}, "say the same"),
    "two warm-ups": (
        "byol",
        None,
        {"optimizer.warmup_epochs": 2.0, "optimizer.warmup_steps": 9},
        "say the same",
    ),
    "task": ("byol", None, {"task": "knn"}, "--config=FILE:PRESET"),
    "preset": ("byol", None, {"preset": "cifar10"}, "--config=FILE:PRESET"),
    "step": (
        "bench_input",
        None,
        {"bench.step_batch_size": 4, "bench.step": False},
        "bench.step is false",
    ),
    "good images": ("knn", None, {"data.max_bad_share": 0.1, "data.name": "patterns"}, "all good"),
    "license": ("export", None, {"license": "mit"}, "config.hub=OWNER/REPO"),
    "good to embed": (
        "embed",
        None,
        {"data.max_bad_share": 0.1, "data.name": "patterns"},
        "all good",
    ),
    "left out": (
        "knn",
        None,
        {"knn.leave_one_out": True, "data.eval_split": "leave_one_out", "data.name": "patterns"},
        "is leave_one_out",
    ),
    "one setting": (
        "knn",
        None,
        {
            "knn.validation_share": 0.2,
            "knn.k": (5,),
            "knn.temperature": (0.1,),
            "data.name": "patterns",
        },
        "nothing is chosen",
    ),
    "cached": ("linear_eval", None, {"crop.min_area": 0.5, "features": "cached"}, "=augmented"),
    "split": (
        "linear_eval",
        None,
        {"data.validation_share": 0.2, "data.validation_split": "v"},
        "validation_split is v",
    ),
    "one rate": ("linear_eval", "reference", {"data.validation_share": 0.2}, "nothing is chosen"),
    "one lambda": (
        "transfer",
        None,
        {"lambdas.min": 1.0, "lambdas.count": 1},
        "lambdas.count is 1",
    ),
    "listed": (
        "semi_supervised",
        None,
        {"labels.share": 0.2, "labels.list": "names.txt"},
        "labels.list=names.txt",
    ),
    "masks": ("segmentation", None, {"data.masks": "masks"}, "data.name is voc2012: add"),
    "depths": ("depth", None, {"data.depths": "depths"}, "data.name is nyu: add"),
    "folders": (
        "segmentation",
        None,
        {"data.dir": "/tmp", "data.name": "folder"},
        "takes data.images",
    ),
    "one rate of depth": ("depth", None, {"refit": False}, "nothing is chosen"),
    "lengths": ("semi_supervised", None, {"epochs": (1.0,), "total_steps": 9}, "say the same"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_typed_key_without_effect_is_refused_by_what_to_type(case):
    task, preset, keys, words = REFUSED[case]
    with pytest.raises(UsageError) as error:
        effects.settle(typed(task, preset, **keys), keys)
    key = next(iter(keys))
    assert f"--config.{key} " in str(error.value) and words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", REFUSED)
def test_whoever_follows_the_advice_is_not_refused_again(case):
    task, preset, keys, _ = REFUSED[case]
    config = typed(task, preset, **keys)
    with pytest.raises(UsageError) as error:
        effects.settle(config, keys)
    added = re.search(r"add --config\.([\w.]+)=([\w.]+?),? ", f"{error.value}".rstrip(".") + " ")
    if not added:
        kept = set(keys) - {next(iter(keys))}
        assert effects.settle(typed(task, preset, **{k: keys[k] for k in kept}), kept) == []
        return
    key, text = added.groups()
    values = {int: int, float: float, str: str}
    config.update_from_flattened_dict({key: values[config_files.kinds(config)[key]](text)})
    assert effects.settle(config, [*keys, key]) == []


def test_a_set_without_labels_takes_no_key_about_neighbors(tmp_path, monkeypatch):
    unlabeled = build.datasets.ArrayDataset(np.zeros((4, 8, 8, 3), np.uint8), np.full(4, -1), 0)
    monkeypatch.setattr(build.datasets, "load", lambda *_, **__: unlabeled)
    for task, key in (("byol", "probe.k"), ("knn", "knn.k"), ("knn", "bootstrap_resamples")):
        config = typed(task, **{"data.name": "tfds:some"})
        with pytest.raises(UsageError, match="labels"):
            effects.settle(config, [key])


def test_the_pictures_of_a_run_are_of_its_own_set(monkeypatch):
    opened = types.SimpleNamespace(config=byol.get_config())
    monkeypatch.setattr(effect_rules.sources, "open_weights", lambda path: opened)
    config = typed("gallery", **{"data.name": "patterns"})
    assert effects.settle(config, ["data.name"]) == []
    with pytest.raises(UsageError, match="the run's own set"):
        effects.settle(typed("gallery", **{"data.name": "folder"}), ["data.name"])


LENGTHS = {
    "byol": ("total_epochs", 2.0, "total_steps"),
    "semi_supervised": ("epochs", (2.0,), "total_steps"),
}


@pytest.mark.parametrize("task", LENGTHS)
def test_epochs_that_are_typed_win_over_the_steps_of_a_preset(task):
    key, value, steps = LENGTHS[task]
    preset = "finetune" if task == "semi_supervised" else None
    config = typed(task, preset, **{key: value})
    assert config[steps] is not None
    effects.settle(config, [key])
    assert config[steps] is None and config[key] == value
    if task == "byol":
        assert settings.resolve(config, num_images=5000).total_steps == 2 * 5000 // 64


def test_a_typed_warm_up_in_epochs_wins_over_the_steps_of_a_preset():
    config = typed("byol", **{"optimizer.warmup_epochs": 3.0})
    effects.settle(config, ["optimizer.warmup_epochs"])
    assert settings.resolve(config, num_images=640).optimizer.warmup_steps == 30


def test_typed_steps_win_over_the_epochs_of_a_preset_whose_config_stays_as_it_was():
    config = typed("byol", "imagenette", total_steps=50)
    before = config.to_dict()
    assert effects.settle(config, ["total_steps"]) == []
    assert config.to_dict() == before
    assert settings.resolve(config, num_images=9469).total_steps == 50


def test_a_key_of_no_effect_by_what_rules_chose_later_is_said():
    keys = {"augment.view1.blur_sigma_max": 1.5, "augment.view2.blur_sigma_max": 1.5, "seed": 3}
    config = typed("byol", "folder", **keys)
    assert effects.settle(config, keys) == []  # whether there is blur is not known yet
    config.augment.view1.blur_probability, config.augment.view2.blur_probability = 0.0, 0.1
    (note,) = effects.without_effect(config, keys)
    assert note.startswith("--config.augment.view1.blur_sigma_max has no effect while")


def test_an_empty_value_asks_for_nothing():
    keys = {"data.dir": "", "data.name": "patterns"}
    assert effects.settle(typed("byol", **keys), keys) == []


def test_one_command_serves_training_and_preview_and_says_what_the_preview_leaves_out():
    keys = {"total_steps": 9, "augment.view1.hue": 0.3, "optimizer.adamw.b1": 0.5}
    notes = effects.settle(typed("preview", **keys), keys, has_workdir=True)
    assert len(notes) == 2 and "--config.total_steps has no effect" in notes[0]
    (note,) = effects.settle(typed("pack"), [], has_workdir=True)
    assert note == "--workdir has no effect on configs/pack.py."


# Keys of pretraining that its loop reads itself; config_test proves that it does.
OF_THE_LOOP = {
    *("accept_changes", "checkpoint", "checkpoint_every_steps", "keep_checkpoints"),
    *("keep_every_steps", "log_every_steps", "wandb_project", "gallery.max_images"),
    *("probe.every_steps", "probe.max_images", "data.name", "data.train_split"),
    *("data.eval_split", "data.mean", "data.std"),
}
OTHER = {  # values unlike the default's
    "accumulate_statistics": "exact",
    "objective.name": "byol_no_predictor",
    "objective.byol.normalization": "layer_norm",
    "objective.predictor": False,
    "objective.recipe": "preset",
    "model.projector_output_norm": "batch_plain",
    "objective.target": "stop_gradient",
    "objective.target_ema_schedule": "constant",
    "objective.target_init": "online",
    "optimizer.name": "sgd",
    "collapse.action": "stop",
    "augment.crop.method": "cubic",
    "model.encoder": "tiny_resnet",
    "model.stem": "cifar",
    "model.padding": "torch",
    "model.norm": "layer",
    "model.head_norm": "none",
    "model.predictor": "linear",
    "optimizer.multipliers": "predictor=10",
    "model.dtype": "bfloat16",
    "model.bn_group_size": 2,
    "model.bn_eps": 1e-3,
    "data.dir": "/tmp",
    "data.labels": "none",
    "total_epochs": 3.0,
    "budget_minutes": 5.0,
}


def other(key, value):
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    return value + 2 if isinstance(value, int) else value / 2 + 0.01


@pytest.fixture
def signature(monkeypatch):
    """What the parts of a run are built with, as one comparable list."""
    calls = []

    def record(module, name):
        def take(*arguments, **options):
            calls.append((name, repr(arguments), repr(sorted(options.items()))))

        monkeypatch.setattr(module, name, take)

    record(build.encoder_spec.byol_network, "make_forward")
    record(build.two_views, "make_views")
    record(build.train_loader, "TrainBatches")
    record(build.online_eval, "Probe")
    record(collapse_monitor, "Guard")
    record(build.optimizers, "learning_rate_schedule")
    record(build.optimizers, "with_multipliers")
    for name, recipe in list(optimizers.OPTIMIZERS.items()):

        def make(rate, *, name=name, **options):
            calls.append((name, repr(sorted(options.items()))))

        monkeypatch.setitem(optimizers.OPTIMIZERS, name, recipe._replace(make=make))
    card = run_folder.DataCard(640, 10, "", (0.5,) * 3, (0.5,) * 3)

    def sign(config):
        calls.clear()
        found = settings.resolve(config, num_images=640)
        build.make_train_forward(found, card, axis=None)
        build.make_optimizer(found)
        size = found.data.image_size
        build.make_views(found.augment, image_size=size, batch_size=found.batch_size)
        build.make_train_batches(found, None)
        collapse_monitor.make_guard(found)
        extra = (found.objective, found.probe, found.micro_batches, found.total_steps)
        return [*calls, repr(extra)]

    return sign


def test_every_key_of_pretraining_changes_something_or_is_refused(signature):
    base = signature(make_config(total_steps=4000))
    refused = set()
    for key, value in config_lib.flatten(byol.get_config().to_dict()).items():
        if key in OF_THE_LOOP or key in ("task", "preset", *typed_values.NAMES):
            continue
        config = make_config(total_steps=4000)
        config.update_from_flattened_dict({key: other(key, value)})
        try:
            effects.settle(config, [key])
        except UsageError as error:
            assert f"--config.{key} has no effect" in str(error)
            refused.add(key)
            continue
        assert signature(config) != base, f"{key} changes nothing"
    assert {"data.dir", "optimizer.sgd.momentum", "accumulate_statistics"} <= refused


def test_every_key_in_the_table_is_one_of_a_config():
    """A key that was renamed does not leave its rule behind."""
    for rule in effect_rules.RULES:
        for task in rule.tasks:
            path = pathlib.Path("byol" if task == "pretrain" else task)
            keys = config_lib.flatten(typed(path.name).to_dict())
            assert any(effects.is_among(key, rule.keys) for key in keys), (task, rule.keys)
