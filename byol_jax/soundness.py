"""Digests of what a checkpoint holds, by which a damaged one is told from a sound one."""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np


def digest_arrays(*trees: Any) -> str:
    """The sha256 over names, types, shapes and bytes of all arrays, sorted by name in each tree."""
    digest = hashlib.sha256()
    for tree in trees:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        for name, leaf in sorted(named.items()):
            digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
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
    return json.loads(path.read_text()) if path.parent.is_dir() else None
