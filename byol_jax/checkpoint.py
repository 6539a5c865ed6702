"""Checkpoints in and out, through Orbax: atomic, asynchronous, the last few kept."""

import pathlib
from typing import Any

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
    built = template.online_params
    shapes = [_shapes(saved), _shapes(built)]
    if shapes[0] == shapes[1]:
        return
    key = min(dict(shapes[0].items() ^ shapes[1].items()))
    held, wanted = (tree.get(key, "nothing") for tree in shapes)
    raise UsageError(
        f"The checkpoint {folder.parent} is of another network ({_encoder(saved)}) than the "
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
