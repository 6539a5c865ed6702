"""What ``config.json`` and ``data.json`` of a run say, or their copies in its checkpoints."""

import copy
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from byol_jax import config as config_lib
from byol_jax.checkpoints import manager
from byol_jax.workdir import console, files, run_folder

UsageError = config_lib.UsageError

CONFIG, DATA = "config.json", "data.json"

# Keys that runs of earlier versions lack, with what those did.
LATER_KEYS: Mapping[str, Any] = {
    "plugins": [],
    "budget_minutes": None,
    "data.labels": "folders",
    "augment.crop.enabled": True,
    "augment.view1.extra": [],
    "augment.view2.extra": [],
    "model.head_bias": False,
    "model.head_norm": "batch",
    "model.norm": "batch",
    "model.norm_groups": 16,
    "model.predictor": "mlp",
    "model.predictor_hidden_layers": 1,
    "model.projector_hidden_layers": 1,
    "model.projector_output_norm": "none",
    "model.weight_standardization": False,
    "objective.byol": {"normalization": "l2"},
    "objective.predictor": None,
    "objective.recipe": "earlier",
    "objective.swav.queue_size": 0,
    "objective.swav.queue_start_steps": 0,
    "objective.target": None,
    "objective.target_init": "drawn",
    "optimizer.multipliers": "",
}


def with_later_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """A nested config of any version, with `LATER_KEYS` wherever it has their section."""
    filled = copy.deepcopy(dict(config))
    for key, value in LATER_KEYS.items():
        *sections, name = key.split(".")
        section: Any = filled
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.setdefault(name, copy.copy(value))
    return filled


def read(
    workdir: pathlib.Path,
    name: str,
    *,
    warn: Callable[[str], None],
    checkpoint: pathlib.Path | None = None,
    advice: str = "",
) -> dict[str, Any] | None:
    """What a file of the run holds, or its copy in a checkpoint; None if there is neither.

    Args:
      workdir: of the run.
      name: `CONFIG` or `DATA`.
      warn: takes a line of text, if it has to come from a checkpoint.
      checkpoint: whose copy comes first; else that of the newest.
      advice: what to do without any copy; unset: how to resume all the same.

    Raises:
      UsageError: it is damaged and no checkpoint has a copy, or it cannot be read at the moment.
    """
    path = workdir / name
    try:
        content = json.loads(files.read_bytes(path))
        if name == DATA:
            run_folder.make_data_card(content)
        if isinstance(content, dict):
            return with_later_keys(content) if name == CONFIG else content
        reason = "it holds no JSON object"
    except (FileNotFoundError, NotADirectoryError):
        reason = ""
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(error)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}. Nothing was changed.") from None
    stored = checkpoint and manager.read_copy(checkpoint) or manager.read_about(workdir)
    if stored:
        warn(f"WARNING: {path} is {_state(reason)}; its copy in {stored.folder} is used.")
        content = stored.content[path.stem]
        return with_later_keys(content) if name == CONFIG else content
    if reason:
        raise UsageError(
            f"{path} is {_state(reason)}, and no checkpoint has a copy of it: "
            + (advice or _put_back(path))
        )
    return None


def config_of(run: pathlib.Path, checkpoint: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of the run that a checkpoint is of.

    Args:
      run: its workdir.
      checkpoint: one of its ``checkpoints/<step>``.

    Raises:
      UsageError: there is none, or it is of another task.
    """
    path = run / CONFIG
    stored = _read_of(run, CONFIG, checkpoint)
    if stored is None:
        raise UsageError(
            f"{path} is missing, which says what network the checkpoint is of: copy it from the "
            "run's workdir, next to its folder 'checkpoints'."
        )
    try:
        config = ml_collections.ConfigDict(stored)
        task = config.get("task")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"Cannot read {path}: {error}. Copy it from the run's workdir.") from None
    if task != "pretrain":
        raise UsageError(f"{path} is of the task '{task}': give the workdir of a pretraining run.")
    return config


def card_of(run: pathlib.Path, checkpoint: pathlib.Path) -> run_folder.DataCard:
    """The data card of the run that a checkpoint is of, as `config_of`."""
    stored = _read_of(run, DATA, checkpoint)
    if stored is None:
        raise UsageError(
            f"{run / DATA} is missing, which says how the images of the checkpoint were "
            "normalized: copy it from the run's workdir, next to config.json."
        )
    return run_folder.make_data_card(stored)


def _read_of(run: pathlib.Path, name: str, checkpoint: pathlib.Path) -> dict[str, Any] | None:
    advice = "copy it from the run's workdir."
    return read(run, name, checkpoint=checkpoint, warn=_say_once, advice=advice)


@functools.cache  # a command opens its checkpoint more than once
def _say_once(text: str) -> None:
    console.say(text)


def _state(reason: str) -> str:
    return f"damaged ({reason})" if reason else "missing"


def _put_back(path: pathlib.Path) -> str:
    return (
        "put one back. If you are sure that the command is the one that the run began with, remove "
        f"{path} and rerun the same command to resume."
    )
