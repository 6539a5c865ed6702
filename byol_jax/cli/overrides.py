"""Configs from Python, with the checks and messages of the command line."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
import numpy as np

from byol_jax import config as config_lib
from byol_jax import plugins
from byol_jax.cli import config_files, effects, typed_values
from byol_jax.training import config_ranges

UsageError = config_lib.UsageError


def load(config: str | ml_collections.ConfigDict, task: str) -> ml_collections.ConfigDict:
    """A config of a task, to be changed; the caller's own stays as it is.

    Raises:
      UsageError: no such file, or it is of another task.
    """
    if isinstance(config, str):
        found = config_files.load(config)
    else:
        found = ml_collections.ConfigDict(config.to_dict())
    if found.get("task") != task:
        raise UsageError(f"The config is of the task '{found.get('task')}', not '{task}'.")
    return found


def settle(config: Any, values: Mapping[str, Any] | None) -> None:
    """Sets keys as the command line does, with its checks.

    Raises:
      UsageError: naming what is wrong and what to give.
    """
    apply(config, values or {})
    plugins.load(config)
    config_ranges.check(config)
    effects.settle(config, values or {}, has_workdir=True)


def apply(config: Any, values: Mapping[str, Any]) -> None:
    """Sets dotted keys, such as ``{"data.image_size": 64}``.

    Args:
      config: is changed.
      values: by key; None unsets a key that can be unset.

    Raises:
      UsageError: an unknown key, with the nearest valid ones, or a value of another type.
    """
    kinds = config_files.kinds(config)
    for key, value in values.items():
        kind = config_files.kind_of_key(key, kinds)
        value = value.item() if isinstance(value, np.generic) else value
        value = tuple(value) if isinstance(value, list) else value
        if value is not None:
            typed_values.check(key, kind, str(value))
        if kind is tuple and not isinstance(value, tuple | None):
            value = (value,)
        try:
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError):
            raise UsageError(f"{key} takes {kind.__name__}, not {value!r}.") from None


@contextlib.contextmanager
def named_as_keys() -> Iterator[None]:
    """Within it, mistakes name keys as ``overrides`` takes them, not as flags; also a decorator."""
    try:
        yield
    except UsageError as error:
        error.args = (_FLAGS.sub("", str(error)),)
        raise


# Matches in "--config.seed" and "--workdir", but not in "main_loop --config=configs/knn.py".
_FLAGS = re.compile(r"--(?:config\.(?=\w)|(?=workdir\b|config\b(?!=)))")
