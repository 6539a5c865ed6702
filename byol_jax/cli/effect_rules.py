"""The table of keys that have an effect only if others do; one in no row always has one."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from byol_jax import config as config_lib
from byol_jax.checkpoints import sources
from byol_jax.cli import effect_conditions as conditions
from byol_jax.objectives import table
from byol_jax.training import budget, optimizers

UsageError = config_lib.UsageError

OF_PIXELS = ("segmentation", "depth")  # tasks that predict every pixel
OF_BYOL = (
    "pretrain",
    "preview",
    "bench_input",
    "estimate",
)  # whose configs are those of configs/byol.py


class Rule(NamedTuple):
    """When some keys have an effect.

    Attributes:
      tasks: whose keys they are.
      keys: dotted names, with stars.
      has_effect: of a config.
      otherwise: follows "has no effect": why, and what to type instead; filled with the config.
    """

    tasks: tuple[str, ...]
    keys: tuple[str, ...]
    has_effect: Callable[[Any], bool]
    otherwise: str


def _view_rules() -> list[Rule]:
    strengths = {
        "jitter": ("brightness", "contrast", "saturation", "hue"),
        "blur": ("blur_sigma_min", "blur_sigma_max"),
        "solarize": ("solarize_threshold",),
    }
    return [
        Rule(
            OF_BYOL,
            tuple(f"augment.{view}.{key}" for key in keys),
            lambda c, view=view, name=name: c.augment[view][f"{name}_probability"] != 0,
            f"while augment.{view}.{name}_probability is 0: "
            f"add --config.augment.{view}.{name}_probability=0.5, for example",
        )
        for view in ("view1", "view2")
        for name, keys in strengths.items()
    ]


RULES: tuple[Rule, ...] = (
    Rule(
        OF_BYOL,
        ("budget_minutes",),
        lambda c: not budget.is_complete(c),
        "on preset {preset}, whose config leaves nothing unset that a time could decide: take "
        "--config=configs/byol.py:folder, or leave it out",
    ),
    *(
        Rule(
            OF_BYOL,
            (f"optimizer.{name}.*",),
            lambda c, name=name: c.optimizer.name == name,
            "while optimizer.name is {optimizer.name}: "
            f"add --config.optimizer.name={name}, or set a key of optimizer.{{optimizer.name}}",
        )
        for name in optimizers.OPTIMIZERS
    ),
    *_view_rules(),
    Rule(
        OF_BYOL,
        ("accumulate_statistics",),
        lambda c: c.accumulate > 1,
        "while accumulate is 1: add --config.accumulate=2, for example",
    ),
    Rule(
        OF_BYOL,
        ("model.zero_init_residual",),
        conditions.has_bottlenecks,
        "on {model.encoder}: only bottleneck blocks of version 1, as in resnet50, have such a norm",
    ),
    Rule(
        OF_BYOL,
        ("model.zero_init_residual",),
        lambda c: c.model.norm != "none",
        "while model.norm is none: leave it out",
    ),
    Rule(
        OF_BYOL,
        ("accumulate_statistics", "model.bn_decay_rate", "model.bn_group_size"),
        conditions.has_batch_norm,
        "on a network without batch norm (model.norm, model.head_norm): leave it out",
    ),
    Rule(
        OF_BYOL,
        ("model.bn_eps",),
        lambda c: (
            c.model.norm != "none"
            or c.model.projector_output_norm != "none"
            or (c.model.head_norm != "none" and conditions.is_deep(c))
        ),
        "on a network without norms: leave it out",
    ),
    Rule(
        OF_BYOL,
        ("model.norm_groups",),
        lambda c: "group" in (c.model.norm, c.model.head_norm),
        "without a group norm: add --config.model.norm=group, for example",
    ),
    Rule(
        OF_BYOL,
        ("model.head_norm",),
        conditions.is_deep,
        "on heads without hidden layers: leave it out",
    ),
    Rule(
        OF_BYOL,
        ("model.projector_hidden_size",),
        lambda c: c.model.projector_hidden_layers > 0,
        "while model.projector_hidden_layers is 0: leave one of them out",
    ),
    Rule(
        OF_BYOL,
        ("model.predictor",),
        conditions.may_have_predictor,
        "with objective.name={objective.name}, objective.predictor={objective.predictor}: such a "
        "run has no predictor; leave it out",
    ),
    Rule(
        OF_BYOL,
        ("model.predictor_hidden_size", "model.predictor_hidden_layers"),
        conditions.has_predictor,
        "with objective.name={objective.name}, objective.predictor={objective.predictor}, "
        "model.predictor={model.predictor}: such a run has no predictor; leave it out",
    ),
    *(
        Rule(
            OF_BYOL,
            (f"objective.{name}.*",),
            lambda c, name=name: c.objective.name == name,
            "while objective.name is {objective.name}: "
            f"add --config.objective.name={name}, or leave it out",
        )
        for name, objective in table.OBJECTIVES.items()
        if dataclasses.fields(objective.settings)
    ),
    Rule(
        OF_BYOL,
        ("objective.swav.queue_start_steps",),
        lambda c: c.objective.swav.queue_size > 0,
        "while objective.swav.queue_size is 0: add --config.objective.swav.queue_size=3840, for "
        "example, or leave it out",
    ),
    Rule(
        OF_BYOL,
        ("objective.base_target_ema", "objective.target_ema_schedule"),
        conditions.averages_target,
        "while objective.name is {objective.name}, objective.target {objective.target}: there is "
        "no moving average; add --config.objective.target=ema where the objective can have it, "
        "or leave it out",
    ),
    Rule(
        OF_BYOL,
        ("model.predictor_hidden_size", "model.predictor_hidden_layers"),
        lambda c: c.model.predictor == "mlp",
        "while model.predictor is {model.predictor}: leave it out",
    ),
    Rule(
        OF_BYOL,
        ("model.predictor_hidden_size",),
        lambda c: c.model.predictor_hidden_layers > 0,
        "while model.predictor_hidden_layers is 0: leave one of them out",
    ),
    Rule(
        OF_BYOL,
        ("data.dir",),
        lambda c: c.data.name != "patterns",
        "while data.name is {data.name}, which is embedded: add --config.data.name=folder, or the "
        "name of a TFDS set",
    ),
    Rule(
        (*OF_BYOL, "knn", "linear_eval", "semi_supervised", "transfer"),
        ("data.labels",),
        conditions.is_folder,
        "on a set that is no folder of images: leave it out",
    ),
    Rule(
        OF_BYOL,
        ("data.threads", "data.workers", "data.max_bad_share"),
        lambda c: not conditions.is_in_memory(c),
        "on {data.name}, whose images are in memory and need no decoding: leave it out",
    ),
    Rule(
        OF_BYOL,
        ("augment.crop.min_area", "augment.crop.max_area"),
        lambda c: c.augment.crop.enabled,
        "while augment.crop.enabled is false: leave one of them out",
    ),
    Rule(
        OF_BYOL,
        ("augment.crop.method",),
        conditions.is_in_memory,
        "on {data.name}: encoded images are cut on the host, by OpenCV's cubic; leave it out",
    ),
    Rule(
        ("pretrain",),
        ("probe.k", "probe.temperature"),
        conditions.has_labels,
        "on {data.name}, which has no labels to measure with: leave it out",
    ),
    Rule(
        ("bench_input",),
        ("bench.step_batch_size",),
        lambda c: c.bench.step,
        "while bench.step is false: leave it out",
    ),
    Rule(
        ("knn", "linear_eval", "semi_supervised", "transfer", "embed", "curate", "search"),
        ("data.max_bad_share",),
        lambda c: not conditions.is_in_memory(c),
        "on a set that is in memory, whose images are all good: leave it out",
    ),
    Rule(
        ("knn",),
        ("knn.leave_one_out",),
        lambda c: c.data.eval_split != "leave_one_out",
        "while data.eval_split is leave_one_out: leave it out",
    ),
    Rule(
        ("knn",),
        ("knn.validation_share",),
        lambda c: conditions.count(c.knn.k) * conditions.count(c.knn.temperature) > 1,
        "while one k and one temperature are given: nothing is chosen; leave it out",
    ),
    Rule(
        ("knn",),
        ("knn.*", "bootstrap_resamples"),
        conditions.has_labels,
        "on a set without labels: leave it out",
    ),
    Rule(
        ("linear_eval",),
        ("crop.min_area",),
        lambda c: c.features == "augmented",
        "while features is {features}: add --config.features=augmented",
    ),
    Rule(
        ("linear_eval", "semi_supervised", "transfer"),
        ("data.validation_share",),
        lambda c: not c.data.validation_split,
        "while data.validation_split is {data.validation_split}: leave one of them out",
    ),
    Rule(
        ("linear_eval",),
        ("data.validation_share",),
        lambda c: conditions.count(c.base_learning_rates) > 1,
        "while one of base_learning_rates is given: nothing is chosen; leave it out",
    ),
    Rule(
        ("transfer",),
        ("data.validation_share", "lambdas.min"),
        lambda c: c.lambdas.count > 1,
        "while lambdas.count is 1: nothing is chosen; leave it out",
    ),
    Rule(
        ("semi_supervised",),
        ("labels.share",),
        lambda c: not c.labels.list,
        "while labels.list={labels.list} says which images have labels: leave one of them out",
    ),
    *(
        Rule(
            (task,),
            ("data.images", *keys),
            lambda c: c.data.name == "folder",
            "while data.name is {data.name}: add --config.data.name=folder",
        )
        for task, keys in (
            ("segmentation", ("data.masks",)),
            ("depth", ("data.depths",)),
        )
    ),
    Rule(
        ("segmentation",),
        ("data.classes",),
        lambda c: not c.data.name.startswith("voc"),
        "while data.name is {data.name}: add --config.data.name=folder",
    ),
    Rule(
        OF_PIXELS,
        ("data.dir",),
        lambda c: c.data.name != "folder",
        "while data.name is folder, which takes data.images and a folder beside it: leave it out",
    ),
    Rule(
        OF_PIXELS,
        ("data.validation_share", "refit"),
        lambda c: conditions.count(c.learning_rates) > 1,
        "while one of learning_rates is given: nothing is chosen; leave it out",
    ),
    Rule(
        ("export",),
        ("license",),
        lambda c: bool(c.hub),
        "without a repository that has a card: add --config.hub=OWNER/REPO",
    ),
    Rule(
        ("gallery",),
        ("data.name",),
        lambda c: c.data.name == sources.open_weights(c.checkpoint).config.data.name,
        "unless it is the run's own set: a run's pictures are of the images it was trained on",
    ),
)
