"""Checks values that were typed for keys of a config against the type of the key."""

import ast
from collections.abc import Callable, Sequence
from typing import Any

from byol_jax import config as config_lib

UsageError = config_lib.UsageError


def check(key: str, kind: type, text: str) -> None:
    """Checks the text for one key; where no type is known anything is right.

    Raises:
      UsageError: naming the key and what to type.
    """
    if kind is str:
        config_lib.require_local(text, flag=f"--config.{key}")
    is_right = NAMES.get(key, _KINDS.get(kind))
    problem = is_right(key, text) if is_right else ""
    if problem:
        raise UsageError(f"--config.{key}={text}: {problem}")


def _whole(key: str, text: str) -> str:
    try:
        int(text, 16 if text[:2].lower() == "0x" else 10)
        return ""
    except ValueError:
        number = _number(text)
    if number is None or number != number or abs(number) >= 2**63 or number != int(number):
        return f"{key} takes a whole number."
    return f"{key} takes a whole number: type --config.{key}={int(number)}."


def _any_number(key: str, text: str) -> str:
    return f"{key} takes a number." if _number(text) is None else ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _switch(key: str, text: str) -> str:
    if text.lower() in ("true", "t", "1", "false", "f", "0"):
        return ""
    return f"{key} takes true or false: type --config.{key}=true or --config.{key}=false."


def _values(text: str) -> Sequence[Any]:
    """One value or several, as Python writes them; what Python cannot read is a text."""
    try:
        value: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    return value if isinstance(value, tuple | list) else (value,)


def _several(key: str, text: str) -> str:
    values = _values(text)
    are_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if values and are_numbers:
        return ""
    return f'{key} takes one number or several: type --config.{key}="(1, 2)", for example.'


def _modules(key: str, text: str) -> str:
    if all(isinstance(x, str) and x.replace(".", "_").isidentifier() for x in _values(text)):
        return ""
    return f"{key} takes names of modules: type --config.{key}=\"('my_lab.parts',)\"."


def _said_by_the_file(key: str, text: str) -> str:
    return f"the study file says what {key} are: change it there."


def _augmentations(key: str, text: str) -> str:
    if all(isinstance(x, str) and x for x in _values(text)):
        return ""
    return f"{key} takes names of augmentations: type --config.{key}=\"('my_noise',)\"."


# Keys that take no numbers.
NAMES = {
    "plugins": _modules,
    "augment.view1.extra": _augmentations,
    "augment.view2.extra": _augmentations,
    **dict.fromkeys(("axes", "settings", "metrics", "paper", "findings"), _said_by_the_file),
}

_KINDS: dict[type, Callable[[str, str], str]] = {
    int: _whole,
    float: _any_number,
    bool: _switch,
    tuple: _several,
}
