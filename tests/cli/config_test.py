"""Look-ups, durations, and that every key of every preset does something."""

import dataclasses
import importlib
import typing

import jax
import ml_collections
import numpy as np
import pytest

from byol_jax import config as config_lib
from byol_jax import main_loop
from byol_jax.augment import image_ops
from byol_jax.cli import effect_rules
from byol_jax.data import datasets
from byol_jax.models import inference
from byol_jax.objectives import table
from byol_jax.training import (
    budget,
    budget_run,
    build,
    config_checks,
    objective_setup,
    optimizers,
)
from byol_jax.training import settings as settings_lib
from configs import byol
from tests.conftest import make_config
from tests.support import golden_data, pixel_worlds
from tests.support.samples import drawn_picture, encode
from tests.training import budget_test

IMAGENET_TRAIN_IMAGES = 1_281_167


def test_lookup_names_the_nearest_and_all_valid():
    with pytest.raises(config_lib.UsageError, match="Did you mean 'cifar10'.*cifar10, patterns"):
        config_lib.lookup({"cifar10": 1, "patterns": 2}, "cifar", key="data.name")


def test_differences_list_every_key_that_changed():
    old = {"a": 1, "b": {"c": 2, "d": 3}}
    new = {"a": 1, "b": {"c": 5}, "e": 6}
    assert config_lib.differences(old, new) == [
        "b.c: 2 -> 5",
        "b.d: 3 -> (absent)",
        "e: (absent) -> 6",
    ]


@pytest.mark.parametrize("epochs", [40, 100, 300, 1000])
def test_imagenet_presets_have_the_references_numbers(epochs):
    config = byol.get_config(f"imagenet-{epochs}")
    expected = golden_data.config(golden_data.load("schedules"))[f"e{epochs}_b4096"]
    settings = settings_lib.resolve(config, num_images=IMAGENET_TRAIN_IMAGES)
    lars = settings.optimizer
    assert f"the reference's for {epochs} epochs" in settings.unset
    assert settings.origins["objective.base_target_ema"] == "reference"
    assert {
        "batch_size": settings.batch_size,
        "max_steps": settings.total_steps,
        "warmup_steps": lars.warmup_steps,
        "base_learning_rate": lars.base_learning_rate,
        "base_target_ema": settings.objective.base_target_ema,
        "weight_decay": lars.weight_decay,
        "momentum": lars.arguments["momentum"],
        "eta": lars.arguments["trust_coefficient"],
        "num_train_images": IMAGENET_TRAIN_IMAGES,
    } == expected
    assert settings.model.encoder == "resnet50" and settings.data.image_size == 224
    assert settings.augment.view1 == image_ops.BYOL_VIEW1
    assert settings.augment.view2 == image_ops.BYOL_VIEW2


def test_total_steps_win_over_epochs_and_cut_the_warmup():
    config = byol.get_config("imagenette")
    config.total_steps = 50
    settings = settings_lib.resolve(config, num_images=9469)
    assert settings.total_steps == settings.optimizer.warmup_steps == 50


def test_what_the_config_sets_wins_over_the_references_settings():
    config = byol.get_config("imagenet-200")
    assert config.total_epochs == 200
    config.optimizer.lars.weight_decay = 3e-6
    typed = ["optimizer.lars.weight_decay"]
    settings = settings_lib.resolve(config, num_images=IMAGENET_TRAIN_IMAGES, typed=typed)
    assert settings.optimizer.weight_decay == 3e-6
    assert settings.objective.base_target_ema == pytest.approx(0.99)
    assert "between the reference's for 100 and 300" in settings.unset
    assert "weight_decay" not in settings.unset
    assert settings.origins["optimizer.weight_decay"] == "typed"
    assert settings.origins["optimizer.base_learning_rate"] == "reference"
    default = byol.get_config()
    settings = settings_lib.resolve(default, num_images=5000)
    assert settings.optimizer.base_learning_rate == default.optimizer.lars.base_learning_rate
    assert settings.unset == "" and set(settings.origins.values()) == {"preset"}


class Recording(ml_collections.ConfigDict):
    """A config that remembers which of its keys were read, with dots."""

    def __init__(self, values, read, prefix=""):
        super().__init__()
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "_prefix", prefix)
        for key, value in values.items():
            is_section = isinstance(value, ml_collections.ConfigDict)
            self[key] = Recording(value, read, f"{prefix}{key}.") if is_section else value

    def __getitem__(self, key):
        self._read.add(self._prefix + key)
        return super().__getitem__(key)

    def __getattr__(self, key):
        if not key.startswith("_"):
            self._read.add(self._prefix + key)
        return super().__getattr__(key)

    def __deepcopy__(self, memo):  # reads all keys, but to copy them
        before = set(self._read)
        copied = Recording(self, self._read, self._prefix)
        self._read.intersection_update(before)
        return copied

    def to_dict(self, *args, **kwargs):  # reads all keys, but to print them
        before = set(self._read)
        values = super().to_dict(*args, **kwargs)
        self._read.intersection_update(before)
        return values


def sections(kind):
    """A dataclass of settings, and those inside."""
    yield kind
    for hint in typing.get_type_hints(kind).values():
        if dataclasses.is_dataclass(hint):
            yield from sections(hint)


def fields(kind):
    """Names of all fields, with those of their classes."""
    return {
        f"{section.__name__}.{field.name}"
        for section in sections(kind)
        for field in dataclasses.fields(section)
    }


def record_fields(patch, kind, used):
    """Notes from now on which fields of settings anybody reads."""

    def record(self, name):
        used.add(f"{type(self).__name__}.{name}")
        return object.__getattribute__(self, name)

    for section in sections(kind):
        patch.setattr(section, "__getattribute__", record)


@pytest.mark.slow
def test_every_key_of_every_preset_is_used(monkeypatch, tmp_path):
    from byol_jax.tasks import pretrain

    class Done(Exception):
        pass

    def stop(*_, **__):
        raise Done

    monkeypatch.setattr(pretrain.loop, "run", stop)
    monkeypatch.setattr(pretrain.resource_estimate, "make_forecast", lambda *_: None)
    monkeypatch.setattr(pretrain.resource_estimate, "describe", lambda *_: "")
    monkeypatch.setattr(pretrain.time_estimate, "describe_bound", lambda *_: "")
    monkeypatch.setattr(
        build.online_eval.Probe,
        "score",
        lambda *_, **__: {
            "probe/knn_top1": 0.0,
            "probe/feature_std": 1.0,
            "probe/effective_rank": 1.0,
        },
    )
    monkeypatch.setattr(build.online_eval.Probe, "score_raw_pixels", lambda *_: {})
    monkeypatch.setattr(
        inference, "make_calibrate", lambda *_, **__: lambda params, state, images: state
    )
    read, used = set(), set()
    with monkeypatch.context() as patch:
        record_fields(patch, settings_lib.PretrainSettings, used)
        for optimizer in optimizers.OPTIMIZERS:
            config = make_config(**{"optimizer.name": optimizer, "accept_changes": True})
            with pytest.raises(Done):
                pretrain.run(Recording(config, read), tmp_path)
    applied_before = {"Objective.recipe"}
    assert fields(settings_lib.PretrainSettings) - used == applied_before
    for name in table.OBJECTIVES:  # each takes its section as arguments
        config = Recording(make_config(**{"objective.name": name}), read)
        objective_setup.make_objective(settings_lib.objective_of(config))
    budget.minutes(Recording(byol.get_config("folder"), read), budget_test.FACTS)
    for preset in byol.PRESETS:
        keys = config_lib.flatten(byol.get_config(preset).to_dict())
        # The main loop reads three of them; the last is for comparing configs as dictionaries.
        assert set(keys) - read == {"plugins", "preset", "task", "accept_changes"}, preset


SHORT = {
    "linear_eval": {"total_epochs": 1.0, "base_learning_rates": (0.2, 0.1)},
    "semi_supervised": {"epochs": (1.0,), "base_learning_rates": (0.2, 0.1)},
    "knn": {},
    "embed": {},
    "curate": {},
    "search": {"k": 3},
    "transfer": {"lambdas.count": 2, "max_iterations": 5},
    "export": {"formats": "safetensors"},
    "gallery": {},
    "segmentation": {
        **{"total_steps": 1, "learning_rates": (0.1, 0.01), "batch_size": 4, "data.classes": "4"},
        **{"output_stride": 4, "crop_size": 33, "head.channels": 4, "head.dilation": 1},
    },
    "depth": {
        **{"total_steps": 1, "learning_rates": (0.1, 0.01), "batch_size": 4, "up_channels": (4,)},
        **{"input_height": 32, "input_width": 32},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("task", SHORT)
def test_every_key_of_tasks_with_an_encoder_is_used(task, run_folder, tmp_path):
    config = importlib.import_module(f"configs.{task}").get_config()
    config.update_from_flattened_dict(SHORT[task] | {"checkpoint": str(run_folder)})
    if task == "search":
        config.query = str(tmp_path / "query.png")
        (tmp_path / "query.png").write_bytes(encode(drawn_picture()))
    if task in effect_rules.OF_PIXELS:
        pixel_worlds.write_folder(tmp_path / "world", count=30)
        config.data.name = "folder"
        for key in {"images", "masks", "depths"} & set(config.data):
            config.data[key] = str(tmp_path / "world" / key)
    read = set()
    main_loop.load_task(task)(Recording(config, read), tmp_path)
    assert set(config_lib.flatten(config.to_dict())) - read - {"task"} == {"preset"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", byol.PRESETS)
def test_presets_build_and_take_a_step(preset, monkeypatch):
    """With their own objective, optimizer and augmentations, on small networks and images."""
    config = byol.get_config(preset)
    config.update_from_flattened_dict(
        {"batch_size": 4, "total_steps": 1, "data.name": "patterns", "data.eval_split": "test"}
        | {"data.train_split": "train", "data.image_size": 32, "model.encoder": "micro_resnet"}
        | {"model.projector_hidden_size": 16, "model.predictor_hidden_size": 16}
    )
    job = build.build(budget_run.fill(config))
    shapes = jax.eval_shape(
        lambda state, batch: jax.vmap(
            job.update, axis_name=build.pmap.AXIS, in_axes=(None, 0), out_axes=(None, None, 0)
        )(state, batch),
        job.state,
        build.pmap.shard(
            {
                "images": job.images.train.images[:4],
                "labels": job.images.train.labels[:4],
                "place": np.arange(4, dtype=np.int32),
            }
        ),
    )
    assert shapes[0].step.shape == ()
    assert job.settings.total_steps == 1


def test_encoded_images_are_not_cut_to_next_to_nothing():
    data = datasets.RecordDataset(None, 100, 0)
    config = make_config(**{"data.image_size": 4})
    with pytest.raises(config_lib.UsageError, match="image_size must be at least 8, not 4"):
        config_checks.check_sizes(config, data)
