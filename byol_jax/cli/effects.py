"""Makes what was typed on the command line count, and says so of a key that has no effect."""

import fnmatch
from collections.abc import Collection, Mapping
from typing import Any

from byol_jax import config as config_lib
from byol_jax.cli import effect_rules
from byol_jax.training import method_settings

UsageError = config_lib.UsageError

WITHOUT_WORKDIR = ("gallery", "convert", "pack")

# Of two keys that say the same the first counts if only it was typed, else the second if it is set.
LENGTHS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (effect_rules.OF_BYOL, "total_epochs", "total_steps"),
    (effect_rules.OF_BYOL, "optimizer.warmup_epochs", "optimizer.warmup_steps"),
    (("semi_supervised",), "epochs", "total_steps"),
)

# Keys of configs/byol.py that may be typed for other tasks too, to keep one command for all.
UNUSED: Mapping[str, tuple[str, ...]] = {
    "preview": (
        "accept_changes accumulate* batch_size checkpoint* keep_* log_every_steps total_* "
        "wandb_project collapse.* gallery.* model.* objective.* optimizer.* probe.* data.workers "
        "data.threads"
    ).split(),
    "estimate": (
        "accept_changes collapse.* gallery.* log_every_steps probe.* wandb_project "
        "checkpoint_every_steps"
    ).split(),
    "bench_input": (
        "accept_changes checkpoint_* keep_* log_every_steps wandb_project collapse.* gallery.* "
        "probe.*"
    ).split(),
}


def settle(config: Any, typed: Collection[str], *, has_workdir: bool = False) -> list[str]:
    """Makes what was typed count; what cannot count is refused or, if it does no harm, said.

    Args:
      config: of any task; a preset's length gives way to the one that was typed.
      typed: dotted keys that the person has given a value.
      has_workdir: whether a workdir was typed.

    Returns:
      Notes for the person, a line each.

    Raises:
      UsageError: a key has no effect; says why, and what to type.
    """
    given = [key for key in typed if config_lib.get(config, key) not in ("", None)]
    for key in ("task", "preset"):
        if key in given:
            raise UsageError(
                f"--config.{key} cannot be set: the config file says it. Type "
                "--config=FILE:PRESET, such as --config=configs/byol.py:cifar10."
            )
    for tasks, key, other in LENGTHS:
        if config.task in tasks and key in given:
            _settle_length(config, key, other, given)
    unused = [key for key in given if is_among(key, UNUSED.get(config.task, ()))]
    ruled = config
    if config.task in effect_rules.OF_BYOL:  # which may choose another optimizer, for one
        ruled = method_settings.published(config, given).config
    for key in given:
        if key not in unused:
            _require_effect(ruled, key)
    notes = [f"--config.{key} has no effect on configs/{config.task}.py." for key in unused]
    if has_workdir and config.task in WITHOUT_WORKDIR:
        notes.append(f"--workdir has no effect on configs/{config.task}.py.")
    return notes


def _settle_length(config: Any, key: str, other: str, given: Collection[str]) -> None:
    if other in given:
        raise UsageError(
            f"--config.{key} and --config.{other} say the same: leave one of them out."
        )
    section, _, name = other.rpartition(".")
    (config_lib.get(config, section) if section else config)[name] = None


def without_effect(config: Any, typed: Collection[str]) -> list[str]:
    """Notes on keys that have no effect on a config in which nothing is left unset any more.

    What decides about them may have been chosen by rules, after `settle`.
    """
    notes = []
    for key in typed:
        is_empty = config_lib.get(config, key) in ("", None)
        if is_empty or is_among(key, UNUSED.get(config.task, ())):
            continue
        try:
            _require_effect(config, key)
        except UsageError as error:
            notes.append(str(error))
    return notes


def _require_effect(config: Any, key: str) -> None:
    for rule in effect_rules.RULES:
        if config.task not in rule.tasks or not is_among(key, rule.keys):
            continue
        if not rule.has_effect(config):
            values = config_lib.flatten(config.to_dict())
            text = rule.otherwise
            for name, value in values.items():
                text = text.replace(f"{{{name}}}", str(value))
            raise UsageError(f"--config.{key} has no effect {text}.")


def is_among(key: str, names: Collection[str]) -> bool:
    """Whether a dotted key is one of some names, which may have stars."""
    return any(fnmatch.fnmatchcase(key, name) for name in names)
