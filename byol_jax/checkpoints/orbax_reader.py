"""Networks out of checkpoints, through Orbax: which one, whether it is sound, and of what."""

import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from byol_jax import config as config_lib
from byol_jax.checkpoints import checksums
from byol_jax.models import encoder_spec

UsageError = config_lib.UsageError
T = TypeVar("T")


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
    names = ("online_params", "target_params", "online_state", "target_state")

    def load() -> dict[str, Any]:
        folder = _step_folder(pathlib.Path(path).expanduser())
        return _load(folder, names, template.online_params)

    return template._replace(**until_sound(path, load))


class GoneError(UsageError):
    """A checkpoint was deleted while it was read: its run goes on, and keeps the newest."""


def until_sound(path: str, load: Callable[[], T]) -> T:
    """Loads again for as long as a run that goes on deletes what is being loaded.

    Args:
      path: as `find` takes it.
      load: from the checkpoint that `find` gives at the time.

    Raises:
      GoneError: the path names a checkpoint, which has been deleted.
    """
    while True:
        before = find(path)
        try:
            return load()
        except UsageError:
            if not before.exists() and before == pathlib.Path(path).expanduser():
                raise GoneError(
                    f"{before} was deleted while it was read: its run goes on and keeps only its "
                    "newest checkpoints. Give the run's workdir for the newest one."
                ) from None
            if find(path) == before:
                raise


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
    config_lib.require_local(path, flag="--config.checkpoint")
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
    return _step_folder(folder)


def load_network(step_folder: pathlib.Path, built: Any, name: str) -> Saved:
    """Reads parameters and state of one network with its heads, and no optimizer.

    Args:
      step_folder: what `find` gives.
      built: the encoder's parameters (or their shapes) as the run's config builds them.
      name: "online" or "target".

    Raises:
      UsageError: the checkpoint is half-written or damaged, or of another encoder than ``built``.
    """
    names = (f"{name}_params", f"{name}_state")
    return Saved(*_load(step_folder, names, built).values())


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
        item = {name: reader.tree[name] for name in names}
        saved = item[names[0]]
        ignored = set(encoder_spec.HEADS) - {module.split("/")[0] for module in built}
        compared = {m: leaves for m, leaves in saved.items() if m.split("/")[0] not in ignored}
        require_same_network(step_folder, compared, built)
        module = min(saved)
        leaf = min(saved[module])
        # Arrays that fail side by side fill the screen with traces, the first one alone not.
        reader.read({names[0]: {module: {leaf: saved[module][leaf]}}})
        return {name: reader.read(item)[name] for name in names}


def leave_out_traces() -> None:
    """From now on Orbax's threads print no traces of errors that its callers raise."""
    logging.getLogger("absl").addFilter(_is_not_of_orbax)
    if sys.excepthook is sys.__excepthook__:  # else it is somebody's, as in a notebook
        sys.excepthook = _pass_over_late_callbacks
    if not isinstance(sys.unraisablehook, _LateCallbacksLeftOut):
        sys.unraisablehook = _LateCallbacksLeftOut(sys.unraisablehook)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Its threads log, with traces, the errors that its callers raise."""
    return not re.search(r"[/\\]orbax[/\\]", record.pathname)


def _pass_over_late_callbacks(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Leaves out what TensorStore prints when one of several reads or writes has failed."""
    if str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


class _LateCallbacksLeftOut:
    """The same of what TensorStore's threads hand to ``sys.unraisablehook``."""

    def __init__(self, hook: Callable[[Any], object]):
        self._hook = hook

    def __call__(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._hook(unraisable)


class Reader:
    """Reads trees out of one ``state`` folder, as arrays of the host.

    The devices that they came from may not be here, nor the other processes.

    Attributes:
      tree: names, shapes and types of all that is there; empty if the folder does not say.
    """

    def __init__(self, folder: pathlib.Path):
        leave_out_traces()
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
    """Lets one of several processes work without the others."""
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
    others = [str(step) for step in list_steps(folder.parent) if str(step) != folder.name]
    hint = f"Others here: {', '.join(others)}." if others else "There is no other."
    return UsageError(f"The checkpoint {folder} is half-written or damaged: {reason}. {hint}")


def _step_folder(path: pathlib.Path) -> pathlib.Path:
    if (path / "state").is_dir():
        return path
    steps = list_steps(path / "checkpoints")
    if not steps:
        raise UsageError(
            f"No checkpoint at {path}: {_describe(path)}. Give a workdir of a run, or one of its "
            "checkpoints/<step>."
        )
    return path / "checkpoints" / str(steps[-1])


def list_steps(folder: pathlib.Path) -> list[int]:
    """Steps of the checkpoints in a folder ``checkpoints``, in order; none if it is not there.

    Raises:
      UsageError: the folder cannot be read, so that nobody knows.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(
            f"Cannot read {folder}: {error.strerror}. Nothing was changed; once it can be read, "
            "rerun the same command to resume."
        ) from None
    return sorted(int(name) for name in names if name.isdecimal())


def _describe(path: pathlib.Path) -> str:
    """What is there in place of a run, and what may have been meant."""
    if not path.is_dir():
        return "it is neither a folder nor a file"
    names = sorted(entry.name for entry in path.iterdir())
    weights = [name for name in names if name.endswith(_WEIGHTS)]
    if path.name == "checkpoints" and any(map(str.isdigit, names)):
        return f"it is a run's folder of them, and the workdir is {path.parent}"
    if path.name == "state" and path.parent.parent.name == "checkpoints":
        return f"it is a part of the checkpoint {path.parent}"
    if "result.json" in names and "metrics.jsonl" not in names:
        return "it is the workdir of an evaluation, whose result.json names what was evaluated"
    if "data.json" in names or "metrics.jsonl" in names:
        return "its run has not saved any yet"
    if weights:
        return f"it holds the file {path / weights[0]}, which can be given itself"
    return f"it holds {', '.join(names[:3])}" if names else "it is an empty folder"


_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".pkl")


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
