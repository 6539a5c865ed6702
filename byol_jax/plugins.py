"""Parts that people register from their own modules, which a config names in ``plugins``."""

import importlib
from collections.abc import MutableMapping
from typing import Any, TypeVar

from byol_jax import config as config_lib

T = TypeVar("T")
UsageError = config_lib.UsageError


def load(config: Any) -> None:
    """Imports the modules that a config names, once; of a config without the key, none.

    Raises:
      UsageError: one cannot be imported; names it and the error.
    """
    for name in config.plugins if "plugins" in config else ():
        try:
            importlib.import_module(name)
        except Exception as error:  # of a file that a person wrote
            what = " ".join(str(error).split())
            raise UsageError(
                f"Cannot import the plugin '{name}' of --config.plugins: "
                f"{type(error).__name__}: {what}"
            ) from error


# Who registered what: (kind of part, name) -> origin. The package's own parts are not in it.
_ORIGINS: dict[tuple[str, str], str] = {}


def register(table: MutableMapping[str, T], name: str, part: T, *, what: str, origin: str) -> None:
    """Adds a row to a table of parts, or replaces the one of the same origin.

    A cell of a notebook that is run again, or a module that is imported again, brings a new
    version of its part.

    Args:
      table: of those that there are.
      name: of the new one, as a config gives it.
      part: the new one.
      what: kind of part, for the error.
      origin: where it is defined, such as its module and name.

    Raises:
      UsageError: the table has a part of that name, of the package or of another origin.
    """
    if name in table and _ORIGINS.get((what, name)) != origin:
        raise UsageError(f"The {what} '{name}' is registered already: choose another name.")
    table[name], _ORIGINS[what, name] = part, origin
