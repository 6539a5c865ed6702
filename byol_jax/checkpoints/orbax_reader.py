"""Networks out of checkpoints, through Orbax: only sound ones, and only of the network built."""

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from byol_jax import config as config_lib
from byol_jax.checkpoints import checksums, network_shapes, orbax_traces, step_folders
from byol_jax.models import encoder_spec

UsageError = config_lib.UsageError


def load_networks(path: str, built: Any) -> dict[str, encoder_spec.Network]:
    """Reads parameters and batch-norm states, but not step and optimizer, of another run.

    Args:
      path: a workdir (its newest checkpoint) or one step's folder in its ``checkpoints``.
      built: the encoder's parameters as the current config builds them.

    Returns:
      Networks with their heads by name: "online", and "target" if the run keeps one.

    Raises:
      UsageError: there is no checkpoint at the path, or it is of another network.
    """
    names = ("online_params", "target_params", "online_state", "target_state")

    def load() -> dict[str, Any]:
        return _load(step_folders.find(path), names, built)

    found = step_folders.until_sound(path, load)
    return {
        name: encoder_spec.Network(found[f"{name}_params"], found[f"{name}_state"])
        for name in ("online", "target")
        if found[f"{name}_params"]
    }


def load_network(step_folder: pathlib.Path, built: Any, name: str) -> encoder_spec.Network:
    """Reads parameters and state of one network with its heads, and no optimizer.

    Args:
      step_folder: what `step_folders.find` gives.
      built: the encoder's parameters (or their shapes) as the run's config builds them.
      name: "online" or "target".

    Raises:
      UsageError: the checkpoint is half-written or damaged, or of another encoder than ``built``.
    """
    names = (f"{name}_params", f"{name}_state")
    found = encoder_spec.Network(*_load(step_folder, names, built).values())
    if not found.params:
        raise UsageError(f"{step_folder} has no {name} network: its objective keeps none.")
    return found


def _load(step_folder: pathlib.Path, names: Sequence[str], built: Any) -> dict[str, Any]:
    """Some fields of the saved state, verified by their digests if the checkpoint has any.

    Heads that ``built`` lacks are not compared.
    """
    try:
        loaded = _read_fields(step_folder, names, built)
        expected = checksums.read_digests(step_folder)
    except UsageError:
        raise
    except Exception as error:
        checksums.require_readable(step_folder, error)
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise _damaged(step_folder, reason[0][:200]) from None
    found = {name: checksums.digest_arrays(tree) for name, tree in loaded.items()}
    changed = expected and checksums.first_difference(expected, found, names)
    if changed:
        raise _damaged(step_folder, f"its {changed} are not what was saved")
    return loaded


def _read_fields(step_folder: pathlib.Path, names: Sequence[str], built: Any) -> dict[str, Any]:
    folder = step_folder / "state"
    if not folder.is_dir():
        raise FileNotFoundError("its folder 'state' is missing")
    with Reader(folder) as reader:
        if not set(names) <= set(reader.tree):
            raise ValueError("it does not say what it holds")
        kept = [name for name in names if reader.tree[name]]  # a second network, only of some
        if not kept:
            return {name: {} for name in names}
        item = {name: reader.tree[name] for name in kept}
        saved = item[kept[0]]
        ignored = set(encoder_spec.HEADS) - {module.split("/")[0] for module in built}
        compared = {m: leaves for m, leaves in saved.items() if m.split("/")[0] not in ignored}
        network_shapes.require_same_network(step_folder, compared, built)
        module = min(saved)
        leaf = min(saved[module])
        # Arrays that fail side by side fill the screen with traces, the first one alone not.
        reader.read({kept[0]: {module: {leaf: saved[module][leaf]}}})
        read = reader.read(item)
        return {name: read.get(name, {}) for name in names}


class Reader:
    """Reads trees out of one ``state`` folder, as arrays of the host.

    The devices that they came from may not be here, nor the other processes.

    Attributes:
      tree: names, shapes and types of all that is there; empty if the folder does not say.
    """

    def __init__(self, folder: pathlib.Path):
        options = alone()
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
        self._checkpointer = ocp.Checkpointer(handler, multiprocessing_options=options)
        self._folder = folder.absolute()
        metadata = _quietly(self._checkpointer.metadata, self._folder).item_metadata
        self.tree: dict[str, Any] = metadata.tree if metadata else {}

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: Any) -> None:
        self._checkpointer.close()

    def read(self, item: Any) -> Any:
        """A part of the tree, or all of it, built like the item."""
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        arguments = ocp.args.PyTreeRestore(item, restore_args=as_numpy, partial_restore=True)
        return self._checkpointer.restore(self._folder, arguments)


def alone() -> "ocp.options.MultiprocessingOptions":
    """Lets one of several processes work without the others; all uses of Orbax begin with it."""
    orbax_traces.leave_out()
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process{index}"
    )


def _quietly(call: Any, folder: pathlib.Path) -> Any:
    """Calls without Orbax's warnings, which say of every sound folder that a file is missing."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return call(folder)
    finally:
        logger.setLevel(level)


def _damaged(folder: pathlib.Path, reason: str) -> UsageError:
    steps = map(str, step_folders.list_steps(folder.parent))
    others = [step for step in steps if step != folder.name]
    hint = f"Others here: {', '.join(others)}." if others else "There is no other."
    return UsageError(f"The checkpoint {folder} is half-written or damaged: {reason}. {hint}")
