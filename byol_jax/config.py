"""Reads configs: look-ups that list what is valid, and configs as typed objects.

Everything a person can get wrong raises `UsageError`; the main loop prints it without a trace.
"""

import dataclasses
import difflib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
HUB = ("hf", "timm")  # schemes of addresses that a checkpoint may have


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
    if not found or (found[1] in HUB and flag.endswith("config.checkpoint")):
        return
    scheme, bucket, below = found.groups()
    mounts = {"gs": f"gcsfuse --implicit-dirs {bucket}", "s3": f"mount-s3 {bucket}"}
    how = f"mount it ({mounts[scheme]} ~/{bucket})" if scheme in mounts else "mount or copy it"
    raise UsageError(
        f"{flag}={os.fspath(path)} is an address of {scheme}://, and only folders are read and "
        f"written: {how} and type {flag}={os.path.join('~', bucket, below)}."
    )


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


def freeze(kind: type[T], section: Any, *, prefix: str = "", **resolved: Any) -> T:
    """A section of a config as an object of a type, which cannot be changed.

    Each field takes the value of the key of its name, and sections become objects of the types
    that fields have. A key that the section lacks, as those of earlier versions may, is the
    field's default.

    Args:
      kind: a frozen dataclass or a NamedTuple.
      section: of a config.
      prefix: of its keys in the config, for the error.
      resolved: values of fields that are not taken from the section.

    Raises:
      UsageError: the section lacks a key whose field has no default.
    """
    values = dict(resolved)
    for name, hint in typing.get_type_hints(kind).items():
        if name in values:
            continue
        if name in section:
            value = section[name]
            is_section = dataclasses.is_dataclass(hint) or hasattr(hint, "_fields")
            values[name] = freeze(hint, value, prefix=f"{prefix}{name}.") if is_section else value
        elif not _has_default(kind, name):
            raise UsageError(f"The config lacks the key {prefix}{name}.")
    return kind(**values)


def _has_default(kind: Any, name: str) -> bool:
    if dataclasses.is_dataclass(kind):
        return hasattr(kind, name)  # as a class attribute
    return name in kind._field_defaults


def replaced(settings: T, key: str, value: Any) -> T:
    """The same settings but for the value of a dotted key."""
    name, _, below = key.partition(".")
    if below:
        value = replaced(getattr(settings, name), below, value)
    return dataclasses.replace(settings, **{name: value})


def to_json(config: Mapping[str, Any]) -> str:
    """A config as JSON with sorted keys."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines ``key: old -> new`` for every key in which two nested configs differ."""
    before, after = flatten(old), flatten(new)
    keys = sorted(before.keys() | after.keys())
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in keys
        if before.get(key, "(absent)") != after.get(key, "(absent)")
    ]
