"""Names and shapes of what a checkpoint holds, compared with what a config builds."""

import pathlib
from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import checksums

UsageError = config_lib.UsageError


def require_same_network(step_folder: pathlib.Path, saved: Any, built: Any) -> None:
    """Raises `UsageError` unless a checkpoint's parameters have the names and shapes built."""
    both = [shapes(saved), shapes(built)]
    if both[0] == both[1]:
        return
    key = min(dict(both[0].items() ^ both[1].items()))
    held, wanted = (tree.get(key, "nothing") for tree in both)
    raise UsageError(
        f"The checkpoint {step_folder} is of another network ({_encoder(saved)}) than the "
        f"config builds ({_encoder(built)}): it holds {held} at {key}, the config wants {wanted}. "
        "Give the config it was trained with, or another --workdir."
    )


def require_same_state(step_folder: pathlib.Path, saved: Any, built: Any) -> None:
    """Raises `UsageError` unless the optimizer and all else have the names and shapes built."""
    held, wanted = layout(saved), layout(built)
    key = checksums.first_difference(held, wanted, sorted(held.keys() | wanted.keys()))
    if key:
        raise UsageError(
            f"The checkpoint {step_folder} is of another optimizer or version than the config "
            f"builds: they differ at {key}. Give the config it was trained with, or another "
            "--workdir."
        )


def layout(tree: Any) -> dict[str, str]:
    """Shapes of all leaves by their names, whatever holds them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(map(_part_name, path)): str(tuple(leaf.shape)) for path, leaf in leaves}


def _part_name(part: Any) -> str:
    """A name is one, whether it is of a field or of a key: checkpoints have keys for both."""
    named = (getattr(part, field, None) for field in ("key", "name", "idx"))
    return str(next(name for name in named if name is not None))


def shapes(params: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters by their names."""
    return {
        f"{module}/{name}": tuple(leaf.shape)
        for module, leaves in params.items()
        for name, leaf in leaves.items()
    }


def _encoder(params: Any) -> str:
    """Name and size of the encoder that parameters belong to."""
    names = {module.split("/")[0] for module in params}
    encoder = ", ".join(sorted(names - {"projector", "predictor", "classifier"}))
    size = sum(np.prod(leaf.shape) for leaves in params.values() for leaf in leaves.values())
    return f"{encoder}, {size / 1e6:.2f} M parameters"
