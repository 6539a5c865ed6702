"""Digests of what a checkpoint holds, by which a damaged one is told from a sound one.

One that cannot be read at the moment is neither.
"""

import errno
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.workdir import files

# What damaged content leads a reader to; anything else says nothing about a checkpoint.
_DAMAGE = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    ValueError,
    LookupError,
    EOFError,
)
# TensorStore raises ValueError for everything, and begins with a word of these for the rest.
_TROUBLE = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "PERMISSION_DENIED")
_TROUBLE += ("RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNAVAILABLE", "UNIMPLEMENTED", "UNKNOWN")
_ABOUT_CONTENT = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)


def digest_arrays(*trees: Any) -> str:
    """The sha256 over names, types, shapes and bytes of all arrays, sorted by name in each tree."""
    digest = hashlib.sha256()
    for tree in trees:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        for name, leaf in sorted(named.items()):
            digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
            digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def digest_json(value: Any) -> str:
    """The sha256 of what can be written as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def first_difference(
    expected: Mapping[str, str], found: Mapping[str, str], names: Iterable[str]
) -> str | None:
    """The first of the names whose digests differ, or that is missing; None if all agree."""
    return next((n for n in names if expected.get(n) != found.get(n, "nothing")), None)


def read_digests(folder: pathlib.Path) -> dict[str, str] | None:
    """The digests by which a checkpoint is verified; None for one of a version without them."""
    path = folder / "digests" / "metadata"
    return json.loads(files.read_bytes(path)) if path.parent.is_dir() else None


def require_readable(folder: pathlib.Path, error: Exception) -> None:
    """Raises unless a checkpoint that led a reader to an error is damaged, or files are missing.

    Args:
      folder: of the checkpoint.
      error: what the reader said.

    Raises:
      UsageError: the system could not read it: nothing is known about what it holds.
    """
    reason = _trouble(error) or _unreadable_file(folder)
    if reason:
        raise config_lib.UsageError(
            f"The checkpoint {folder} cannot be read at the moment: {reason}. It may be sound, so "
            "nothing was changed; once it can be read, rerun the same command to resume."
        ) from None


def _trouble(error: Exception) -> str:
    """What kept a reader from the content; empty if it was the content."""
    code = system_code(error)
    if code:
        return "" if code in _ABOUT_CONTENT else os.strerror(code)
    first = (str(error).strip().splitlines() or [""])[0][:200]
    if not isinstance(error, _DAMAGE):
        return first or type(error).__name__
    return first if first.startswith(_TROUBLE) else ""


def system_code(error: Exception) -> int | None:
    """The number of an error of the system, which TensorStore puts at the end of much text."""
    if isinstance(error, OSError):
        return error.errno
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return int(code[1]) if code else None


def _unreadable_file(folder: pathlib.Path) -> str:
    """The first file that cannot be read, and why: Orbax takes some of them for missing."""
    try:
        for top, _, names in os.walk(folder, onerror=_raise):
            for name in names:
                with files.open_regular(os.path.join(top, name)) as file:
                    while file.read(1 << 22):
                        pass
    except OSError as error:
        return "" if error.errno in _ABOUT_CONTENT else f"{error.filename}: {error.strerror}"
    return ""


def _raise(error: OSError) -> None:
    raise error
