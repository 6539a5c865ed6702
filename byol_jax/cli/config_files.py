"""Finds and loads config files, also those somebody else has written, and says what is wrong.

The project's own are found from any folder: in a clone they are its folder configs/, in an
installation the package byol_jax.configs.
"""

import difflib
import inspect
import linecache
import pathlib
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections

from byol_jax import config as config_lib

UsageError = config_lib.UsageError


_PACKAGE = pathlib.Path(config_lib.__file__).parent
_INSTALLED = _PACKAGE / "configs"
# The one that is there; beside an installed package "configs" may be anybody's.
OURS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.with_name("configs")
OTHER_NAMES = {"pretrain": "byol"}  # of tasks that are not called like their config


def resolve(name: str) -> pathlib.Path:
    """Where a config file is: one in the working folder, else one of the project's own.

    Args:
      name: a path, such as ``configs/byol.py``, or just ``byol.py``; without the ending, as in
        ``byol``, it is one of the project's own.

    Returns:
      The path as it was given if nothing is found.
    """
    path = pathlib.Path(name).expanduser()
    found = own(name)
    if found is None and path.parent in (pathlib.Path(), pathlib.Path("configs")):
        found = own(path.stem) if path.suffix == ".py" and not path.is_file() else None
    return path if found is None else found


def own(name: str) -> pathlib.Path | None:
    """The project's own config of a name such as ``knn`` or ``pretrain``; None if none has it."""
    return next((path for path in ours() if path.stem == OTHER_NAMES.get(name, name)), None)


def ours() -> list[pathlib.Path]:
    """The project's own config files."""
    return sorted(path for path in OURS.glob("*.py") if path.stem != "__init__")


def load(argument: str) -> ml_collections.ConfigDict:
    """The config that ``FILE`` or ``FILE:PRESET`` names; `resolve` finds the file.

    Raises:
      UsageError: no such file, no such preset, or a mistake in the file; says in which line.
    """
    name, colon, preset = argument.partition(":")
    path = resolve(name)
    _require_file(path, argument)
    try:
        make = getattr(config_lib.load_file(path), "get_config", None)
        if not callable(make):
            raise UsageError(f"{path} has no function get_config: it is no config file.{_here()}")
        parameters = inspect.signature(make).parameters.values()
        if colon and not parameters:
            raise UsageError(f"{name} has no presets: type --config={name}.")
        if not colon and any(p.default is p.empty for p in parameters):
            raise UsageError(f"{name} needs a preset: type --config={name}:PRESET.")
        config = make(*([preset] if colon else []))
    except UsageError:
        raise
    except Exception as error:  # of a file that a person wrote
        raise UsageError(_locate(path, error)) from None
    return _require_config(path, config)


def _require_file(path: pathlib.Path, argument: str) -> None:
    if not argument:
        raise UsageError(f"--config is empty: give a file.{_here()}")
    if path.is_dir():
        raise UsageError(f"--config={argument} is a folder: give one of its files.{_here(path)}")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        reason = error.strerror or error
        near = nearest(path.stem, [config.stem for config in ours()])
        hint = f" Did you mean --config=configs/{near[0]}.py?" if near else ""
        raise UsageError(
            f"Cannot read the file of --config={argument}: {reason}.{hint}{_here()}"
        ) from None


def _here(folder: pathlib.Path | None = None) -> str:
    """Lists the configs of a folder, or else the project's own, as they can be typed anywhere."""
    files = sorted(str(path) for path in folder.glob("*.py")) if folder else []
    files = files or [f"configs/{path.name}" for path in ours()]
    return f" Here are: {', '.join(files)}."


def _locate(path: pathlib.Path, error: Exception) -> str:
    """One line: where in the person's own file it went wrong."""
    what = f"{type(error).__name__}: {error}"
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
    if line is None:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
    else:
        what = f"SyntaxError: {error.msg}"
    if line is None:
        return f"Cannot use the config file {path}: {what}"
    source = linecache.getline(str(path), line).strip()
    return f"Mistake in the config file {path}, line {line}: {what} in: {source}"


def _require_config(path: pathlib.Path, config: Any) -> ml_collections.ConfigDict:
    if not isinstance(config, ml_collections.ConfigDict):
        kind = type(config).__name__
        raise UsageError(f"get_config of {path} returns {kind}, not ml_collections.ConfigDict.")
    for key in ("task", "preset"):
        if key not in config:
            raise UsageError(f"The config of {path} lacks the key '{key}': begin with one of ours.")
    return config


def kinds(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, type]:
    """The type of every dotted key, also of one that is unset."""
    found: dict[str, type] = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            found |= kinds(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = config.get_type(key)
    return found


def kind_of_key(key: str, kinds: Mapping[str, type]) -> type:
    """The type of a dotted key.

    Args:
      key: that somebody typed.
      kinds: of all keys of the config.

    Raises:
      UsageError: there is no such key; names the nearest.
    """
    if key in kinds:
        return kinds[key]
    below = ", ".join(f"--config.{name}" for name in kinds if name.startswith(f"{key}."))
    if below:
        raise UsageError(f"--config.{key} is a section; its keys are {below}.")
    above = next((name for name in kinds if key.startswith(f"{name}.")), None)
    if above:
        raise UsageError(
            f"Unknown key in --config: '{key}': below a value there are no keys. Type "
            f"--config.{above}=VALUE."
        )
    near = " or ".join(f"--config.{name}" for name in nearest(key, kinds))
    hint = f"Did you mean {near}?" if near else "The config file lists all keys."
    raise UsageError(f"Unknown key in --config: '{key}'. {hint}")


def nearest(name: str, valid: Iterable[str]) -> list[str]:
    """Up to three of the valid names that are like one, by the whole or by the last part."""
    valid = list(valid)
    name = name.lower()
    same = [full for full in valid if full.split(".")[-1] == name]
    if same:
        return same[:3]
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.7)
    if near:
        return near
    last = name.split(".")[-1]
    ends: dict[str, list[str]] = {}
    for full in valid:
        ends.setdefault(full.split(".")[-1], []).append(full)
    close = difflib.get_close_matches(last, ends, n=1, cutoff=0.7)
    return [full for end in close for full in ends[end]][:3]
