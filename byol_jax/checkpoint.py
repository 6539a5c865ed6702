"""Checkpoints in and out, through Orbax: atomic, asynchronous, the last few kept."""

import logging
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from byol_jax import config as config_lib

UsageError = config_lib.UsageError


class Checkpoints:
    """The checkpoints of one run: its state, and where its input iterator stands.

    Args:
      workdir: folder of the run; checkpoints go to ``checkpoints/<step>`` below it.
      keep: how many of the newest to keep.
    """

    def __init__(self, workdir: pathlib.Path, *, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._folder = workdir / "checkpoints"
        self._manager = ocp.CheckpointManager(self._folder.absolute(), options=options)

    def save(self, step: int, state: Any, iterator_state: dict[str, Any]) -> None:
        """Starts to save; returns as soon as the state has been copied off the device."""
        if step == self.latest_step:
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), iterator=ocp.args.JsonSave(iterator_state)
        )
        self._manager.save(step, args=items)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint; None if there is none."""
        return self._manager.latest_step()

    @property
    def latest_path(self) -> pathlib.Path | None:
        """Folder of the newest checkpoint; None if there is none."""
        step = self.latest_step
        return None if step is None else self._folder / str(step)

    def restore_latest(self, template: Any) -> tuple[Any, dict[str, Any]]:
        """Reads the newest checkpoint.

        Args:
          template: a state of arrays (or shapes) as the current config builds it.

        Returns:
          The state, and the iterator's.

        Raises:
          UsageError: the checkpoint is of another network.
        """
        step = self.latest_step
        _require_same_network(self.latest_path / "state", template)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, template)),
            iterator=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(step, args=items)
        return restored.state, restored.iterator

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def load_networks(path: str, template: Any) -> Any:
    """Takes parameters and batch-norm states, but not step and optimizer, from another run.

    Args:
      path: a workdir (its newest checkpoint) or one step's folder in its ``checkpoints``.
      template: a state as the current config builds it.

    Returns:
      The template with ``online_params``, ``target_params`` and their states from the file.

    Raises:
      UsageError: there is no checkpoint at the path, or it is of another network.
    """
    folder = _state_folder(pathlib.Path(path).expanduser())
    _require_same_network(folder, template)
    with ocp.StandardCheckpointer() as checkpointer:
        loaded = checkpointer.restore(folder.absolute())
    names = ("online_params", "target_params", "online_state", "target_state")
    return template._replace(**{name: loaded[name] for name in names})


class Saved(NamedTuple):
    """A network as it was saved, on the host.

    Attributes:
      params: of encoder and heads.
      state: running batch-norm statistics.
    """

    params: Any
    state: Any


def find(path: str) -> pathlib.Path:
    """The folder ``checkpoints/<step>`` that a path stands for.

    Args:
      path: a workdir (its newest checkpoint) or one step's folder in its ``checkpoints``.

    Raises:
      UsageError: there is no such path, or no finished checkpoint at it.
    """
    folder = pathlib.Path(path).expanduser()
    if not path or not folder.exists():
        wrong = f"No checkpoint at {path}: no such path." if path else "No checkpoint was given."
        raise UsageError(
            f"{wrong} Give a workdir of a run, or one of its checkpoints/<step>, as "
            "--config.checkpoint=RUN."
        )
    if folder.parent.name == "checkpoints" and not folder.name.isdigit():
        raise UsageError(
            f"{folder} was never finished: a run was stopped while it wrote it. Give another "
            f"folder of {folder.parent}, or the workdir for its newest finished one."
        )
    return _state_folder(folder).parent


def load_network(step_folder: pathlib.Path, built: Any, name: str) -> Saved:
    """Reads parameters and state of one network with its heads, and no optimizer.

    Args:
      step_folder: what `find` gives.
      built: the encoder's parameters (or their shapes) as the run's config builds them.
      name: "online" or "target".

    Raises:
      UsageError: the checkpoint is half-written or damaged, or of another encoder than ``built``.
    """
    folder = (step_folder / "state").absolute()
    names = (f"{name}_params", f"{name}_state")
    if not folder.is_dir():
        raise _damaged(step_folder, "its folder 'state' is missing")
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = _quietly(checkpointer.metadata, folder).item_metadata
        if metadata is None or not set(names) <= set(metadata.tree):
            raise _damaged(step_folder, "it does not say what it holds")
        item = {name: metadata.tree[name] for name in names}
        saved = item[names[0]]
        heads = ("projector", "predictor", "classifier")
        encoder = {module: saved[module] for module in saved if module.split("/")[0] not in heads}
        _compare(step_folder, encoder, built)
        module = min(saved)
        leaf = min(saved[module])
        first = {names[0]: {module: {leaf: saved[module][leaf]}}}
        try:
            # Arrays that fail side by side fill the screen with traces, the first one alone not.
            _restore_some(checkpointer, folder, first)
            return Saved(*map(_restore_some(checkpointer, folder, item).get, names))
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise _damaged(step_folder, reason[0][:200]) from None


def _restore_some(checkpointer: ocp.PyTreeCheckpointer, folder: pathlib.Path, item: Any) -> Any:
    """Reads a part of a tree as arrays of the host: the devices it came from may not be here."""
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    arguments = ocp.args.PyTreeRestore(item, restore_args=as_numpy, partial_restore=True)
    return checkpointer.restore(folder, arguments)


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
    others = [p.name for p in folder.parent.glob("*") if p.name.isdigit() and p != folder]
    hint = f"Others here: {', '.join(sorted(others, key=int))}." if others else "There is no other."
    return UsageError(f"The checkpoint {folder} is half-written or damaged: {reason}. {hint}")


def _state_folder(path: pathlib.Path) -> pathlib.Path:
    if (path / "state").is_dir():
        return path / "state"
    steps = [p for p in (path / "checkpoints").glob("*") if p.name.isdigit()]
    if not steps:
        raise UsageError(
            f"No checkpoint at {path}: give a workdir of a run, or one of its checkpoints/<step>."
        )
    return max(steps, key=lambda p: int(p.name)) / "state"


def _require_same_network(folder: pathlib.Path, template: Any) -> None:
    """Compares what a checkpoint's ``state`` folder holds with what the config builds."""
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder.absolute()).item_metadata.tree["online_params"]
    _compare(folder.parent, saved, template.online_params)


def _compare(step_folder: pathlib.Path, saved: Any, built: Any) -> None:
    shapes = [_shapes(saved), _shapes(built)]
    if shapes[0] == shapes[1]:
        return
    key = min(dict(shapes[0].items() ^ shapes[1].items()))
    held, wanted = (tree.get(key, "nothing") for tree in shapes)
    raise UsageError(
        f"The checkpoint {step_folder} is of another network ({_encoder(saved)}) than the "
        f"config builds ({_encoder(built)}): it holds {held} at {key}, the config wants {wanted}. "
        "Give the config it was trained with, or another --workdir."
    )


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
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
