"""The checkpoints of a run while it lives: atomic, asynchronous, verified, the last few kept.

One process reads and writes them, and no trace of processes or devices is in them.
"""

import concurrent.futures
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from byol_jax import config as config_lib
from byol_jax.checkpoints import checksums, network_shapes, orbax_reader, step_folders
from byol_jax.workdir import files

UsageError = config_lib.UsageError


class SaveError(RuntimeError):
    """A checkpoint could not be written; those before it are as they were."""


class DamagedError(ValueError):
    """What a checkpoint holds is not what was saved."""


class Checkpoints:
    """Writes the checkpoints of one run: its state, and where its input iterator stands.

    Args:
      workdir: folder of the run; checkpoints go to ``checkpoints/<step>`` below it.
      keep: how many of the newest to keep.
      keep_every: those whose step divides by it stay for good; 0: none.
      about: what the files next to the checkpoints say, as JSON, of which each has a copy.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        keep: int,
        keep_every: int = 0,
        about: Mapping[str, Any] | None = None,
    ):
        self._folder = workdir / "checkpoints"
        self._about = dict(about or {})
        self._folder.mkdir(exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every or None,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # of runs that were killed while they wrote
            create=False,
            multiprocessing_options=orbax_reader.alone(),
        )
        self._manager = ocp.CheckpointManager(self._folder.absolute(), options=options)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._started: concurrent.futures.Future[None] | None = None

    def save(self, step: int, state: Any, iterator_state: dict[str, Any]) -> None:
        """Starts to save; returns as soon as the state has been copied off the device.

        Raises:
          SaveError: the previous checkpoint could not be written; of this one, `finish` says it.
        """
        self.finish()
        if step not in self._manager.all_steps():
            self._started = self._thread.submit(self._write, step, _copy(state), iterator_state)

    def _write(self, step: int, state: Any, iterator_state: dict[str, Any]) -> None:
        """In a thread, since digests of gigabytes take seconds."""
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            iterator=ocp.args.JsonSave(iterator_state),
            digests=ocp.args.JsonSave(_digests(state, iterator_state)),
            about=ocp.args.JsonSave(
                {"content": self._about, "sha256": checksums.digest_json(self._about)}
            ),
        )
        self._manager.save(step, args=items)

    def finish(self) -> None:
        """Waits until everything is on disk; raises `SaveError` if that fails."""
        started, self._started = self._started, None
        if started:
            self._try(started.result)
        self._try(self._manager.wait_until_finished)

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except (OSError, ValueError, RuntimeError) as error:
            kept = ", ".join(map(str, step_folders.list_steps(self._folder)))
            rest = f"those of earlier steps are as they were ({kept}). Once this is mended, rerun "
            rest += "the same command to resume."
            if not kept:
                rest = "there is none yet. Once this is mended, rerun the same command."
            raise SaveError(
                f"Cannot write a checkpoint to {self._folder}: {_reason(error)}; {rest}"
            ) from None

    @property
    def latest_path(self) -> pathlib.Path | None:
        """Folder of the newest checkpoint that is whole; None if there is none."""
        found = step_folders.list_steps(self._folder)
        return self._folder / str(found[-1]) if found else None

    def close(self) -> None:
        """Ends the threads that write, without a word about what they could not."""
        self._thread.shutdown()
        try:
            self._manager.close()
        except Exception:  # said by `save` or `finish`, or of no interest next to another error
            pass


def _copy(state: Any) -> Any:
    """A state on the host, whatever becomes of the devices' buffers, which are given away."""
    state = jax.device_get(state)
    if jax.default_backend() == "cpu":  # where it shows these buffers
        state = jax.tree.map(np.array, state)
    return state


class Restored(NamedTuple):
    """A sound checkpoint.

    Attributes:
      step: updates done.
      state: on the host, built like the template.
      iterator: where the input stood.
    """

    step: int
    state: Any
    iterator: dict[str, Any]


def restore_newest(
    workdir: pathlib.Path, template: Any, *, warn: Callable[[str], None]
) -> Restored | None:
    """Reads the newest sound checkpoint of a run; None if there is none at all.

    Newer ones that are damaged are named in a warning and put aside, as ``<step>.damaged``.

    Args:
      workdir: folder of the run.
      template: a state of arrays (or shapes) as the current config builds it.
      warn: takes a line of text.

    Raises:
      UsageError: all checkpoints are damaged, the newest sound one is of another network, or one
        cannot be read at the moment; nothing has been put aside then.
    """
    damaged: dict[pathlib.Path, str] = {}
    restored = None
    for step in reversed(steps(workdir)):
        folder = workdir / "checkpoints" / str(step)
        try:
            restored = _read(folder, template)
            break
        except DamagedError as error:
            damaged[folder] = str(error)
    if damaged and restored is None:
        lines = [f"\n  {folder}: {reason}" for folder, reason in damaged.items()]
        raise UsageError(
            f"None of the checkpoints in {workdir} is sound:{''.join(lines)}\nPut back copies of "
            "them, or begin again with another --workdir."
        )
    for folder, reason in damaged.items():
        aside = folder.with_name(f"{folder.name}.damaged")
        warn(f"WARNING: skipped the damaged checkpoint {folder} ({reason}); it is now {aside}.")
        if aside.exists():
            aside = aside.with_name(f"{aside.name}-{len(list(folder.parent.iterdir()))}")
        folder.rename(aside)
    return restored


def _read(folder: pathlib.Path, template: Any) -> Restored:
    """Reads and verifies one checkpoint; what its content leads to becomes a `DamagedError`."""
    try:
        expected = checksums.read_digests(folder)
        with orbax_reader.Reader(folder / "state") as reader:
            _require_same(folder, expected or {}, reader.tree, template)
            state = reader.read(template)
        iterator = json.loads(files.read_bytes(folder / "iterator" / "metadata"))
        changed = expected and checksums.first_difference(
            expected, _digests(state, iterator), expected
        )
    except (DamagedError, UsageError):
        raise
    except Exception as error:
        checksums.require_readable(folder, error)
        raise DamagedError(_reason(error)) from None
    if changed:
        raise DamagedError(f"its {changed} are not what was saved")
    return Restored(int(folder.name), state, iterator)


def _require_same(
    folder: pathlib.Path, expected: Mapping[str, str], tree: Any, template: Any
) -> None:
    """The list of what there is has to be the one that was saved, and the one that is wanted."""
    shapes = network_shapes.shapes(tree["online_params"])
    found = {"shapes": shapes, "layout": network_shapes.layout(tree)}
    for name in found.keys() & expected.keys():
        if checksums.digest_json(found[name]) != expected[name]:
            raise DamagedError("its list of parameters has changed")
    network_shapes.require_same_network(folder, tree["online_params"], template.online_params)
    network_shapes.require_same_state(folder, tree, template)


def _digests(state: Any, iterator_state: dict[str, Any]) -> dict[str, str]:
    digests = {name: checksums.digest_arrays(getattr(state, name)) for name in state._fields}
    digests["shapes"] = checksums.digest_json(network_shapes.shapes(state.online_params))
    digests["layout"] = checksums.digest_json(network_shapes.layout(state))
    return digests | {"iterator": checksums.digest_json(iterator_state)}


def steps(workdir: pathlib.Path) -> list[int]:
    """Of the finished checkpoints of a run, in order."""
    return step_folders.list_steps(workdir / "checkpoints")


def has_unfinished(workdir: pathlib.Path) -> bool:
    """Whether a checkpoint was being written when the run was stopped."""
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


class About(NamedTuple):
    """A copy of what the files next to the checkpoints said.

    Attributes:
      folder: the checkpoint that has it.
      content: by the names of the files, without their endings.
    """

    folder: pathlib.Path
    content: dict[str, Any]


def read_about(workdir: pathlib.Path) -> About | None:
    """The newest copy that can be read and is sound; None if no checkpoint has one."""
    copies = (read_copy(workdir / "checkpoints" / str(step)) for step in reversed(steps(workdir)))
    return next((copy for copy in copies if copy), None)


def read_copy(folder: pathlib.Path) -> About | None:
    """The copy in a checkpoint; None if it has none that can be read and is sound."""
    try:
        stored = json.loads(files.read_bytes(folder / "about" / "metadata"))
        if stored["content"] and checksums.digest_json(stored["content"]) == stored["sha256"]:
            return About(folder, stored["content"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass  # an older one may do, and without any the caller says what is missing
    return None


def _reason(error: Exception) -> str:
    """What the system said, or the first line."""
    code = checksums.system_code(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return os.strerror(code) if code else lines[0][:200]
