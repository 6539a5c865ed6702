"""Reads configs: look-ups that list what is valid, durations in steps, checks before a run.

Everything a person can get wrong raises `UsageError`; the main loop prints it without a trace.
"""

import difflib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class UsageError(ValueError):
    """A mistake that the person who started the program can mend; the text says how."""


def suggest(name: str, valid: Iterable[str]) -> str:
    """Names the nearest valid choice, if one is near, and lists them all."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name.lower(), valid, n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"{hint} Valid: {', '.join(valid)}."


def lookup(table: Mapping[str, T], name: str, *, key: str) -> T:
    """The table's row called ``name``; ``key`` says in the error where the name came from."""
    if name not in table:
        raise UsageError(f"Unknown {key}: '{name}'.{suggest(str(name), table)}")
    return table[name]


def require_local(path: str | os.PathLike[str], *, flag: str) -> None:
    """Raises if a path names a bucket or another address, which would become a local folder.

    Args:
      path: as it was given.
      flag: it was given by, such as ``--workdir``.

    Raises:
      UsageError: saying how to mount the bucket.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)/?(.*)", os.fspath(path))
    if not found:
        return
    scheme, bucket, below = found.groups()
    mounts = {"gs": f"gcsfuse --implicit-dirs {bucket}", "s3": f"mount-s3 {bucket}"}
    how = f"mount it ({mounts[scheme]} ~/{bucket})" if scheme in mounts else "mount or copy it"
    raise UsageError(
        f"{flag}={os.fspath(path)} is an address of {scheme}://, and only folders are read and "
        f"written: {how} and type {flag}={os.path.join('~', bucket, below)}."
    )


def total_steps(config: Any, *, num_images: int) -> int:
    """Length of the run in steps: ``total_steps`` if set, else ``total_epochs``."""
    return _duration(config, "total", config.total_epochs, num_images, config.batch_size)


def warmup_steps(
    config: Any, *, num_images: int, total_steps: int, warmup_epochs: float | None
) -> int:
    """Length of the warm-up in steps, at most the length of the run.

    ``optimizer.warmup_steps`` is what counts, if it is set, else the given number of epochs.
    """
    section = config.optimizer
    steps = _duration(
        section, "warmup", warmup_epochs, num_images, config.batch_size, prefix="optimizer."
    )
    return min(steps, total_steps)


def length_key(section: Any, name: str) -> str:
    """The key that says how long, where ``<name>_steps`` and ``<name>_epochs`` may both be set."""
    return f"{name}_epochs" if section[f"{name}_steps"] is None else f"{name}_steps"


def _duration(
    section: Any,
    name: str,
    epochs: float | None,
    num_images: int,
    batch_size: int,
    prefix: str = "",
) -> int:
    steps = section[f"{name}_steps"]
    if steps is not None:
        return steps
    if epochs is None:
        raise UsageError(
            f"Set {name}_steps or {name}_epochs, for example --config.{prefix}{name}_epochs=100."
        )
    return int(epochs * num_images // batch_size)


def require_positive(config: Any, *keys: str) -> None:
    """Raises unless every named key (dots for sections) is above zero, or unset."""
    for key in keys:
        value = get(config, key)
        if value is not None and value <= 0:
            raise UsageError(f"--config.{key} must be above 0, not {value}.")


def load_file(path: str | pathlib.Path) -> types.ModuleType:
    """Runs a Python file, such as a config, wherever it is and whatever is on the import path."""
    name = f"config_{pathlib.Path(path).stem}"
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def get(config: Any, key: str) -> Any:
    """The value of a dotted key, such as ``data.name``."""
    for part in key.split("."):
        config = config[part]
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dictionary with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def to_json(config: Any) -> str:
    """The resolved config as JSON with sorted keys."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines ``key: old -> new`` for every key in which two nested configs differ."""
    before, after = flatten(old), flatten(new)
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in keys
        if before.get(key, "(absent)") != after.get(key, "(absent)")
    ]
