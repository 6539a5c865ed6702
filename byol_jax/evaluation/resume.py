"""What an evaluation has done so far, so that one that was stopped goes on where it was.

It is in the folder ``unfinished`` of the workdir until the evaluation has come to its end, below
the identity of the evaluation, so that one with other settings takes nothing of it away.
"""

import contextlib
import json
import pathlib
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import checksums
from byol_jax.data import train_loader
from byol_jax.distributed import multihost, pmap
from byol_jax.evaluation import kept, result_folder
from byol_jax.training import loop
from byol_jax.workdir import console, files, run_folder

FOLDER = "unfinished"
SAVE_SECONDS = 600.0  # between two saves of what is being trained


class Stopped(Exception):
    """The evaluation was told to stop, and has saved all that it needs to go on."""


def stopped(title: str, step: int, total_steps: int) -> Stopped:
    """The exception of what was told to stop after a step."""
    return Stopped(
        f"Stopped '{title}' after step {step:,} of {total_steps:,} and saved. Rerun the same "
        "command to resume."
    )


@contextlib.contextmanager
def opened(
    workdir: pathlib.Path, config: Mapping[str, Any], encoder_sha256: str, *names: str
) -> Iterator["Unfinished"]:
    """Keeps the workdir for this evaluation, whose unfinished work is removed at its end.

    Args:
      workdir: of the evaluation.
      config: of the task; what was done by another one is of no use.
      encoder_sha256: likewise for the encoder.
      names: as `result_folder.opened` takes them.

    Raises:
      UsageError: as `result_folder.opened`.
    """
    settings = config_lib.flatten(config)
    settings.pop("data.max_bad_share", None)  # may be raised to go on
    facts = {"config": settings, "encoder": encoder_sha256, "devices": jax.device_count()}
    identity = checksums.digest_json(facts)
    with result_folder.opened(workdir, *names):
        work = Unfinished(workdir / FOLDER / identity[:16], identity)
        yield work
        multihost.on_writer(work.remove, what="cleaning the workdir")


class _Turns:
    """When all processes stop, and when they save in between, the same for each of them.

    Args:
      stop: of this process.
      title: of what is being done.
    """

    def __init__(self, stop: loop.StopRequest, title: str):
        self._stop, self._vote = stop, multihost.Vote()
        self._what = f"a vote on stopping {title}"
        self.note_saved()

    def note_saved(self) -> None:
        """Begins to count the seconds until the next save."""
        self._saved, self._is_save_due = time.monotonic(), False

    def should_stop(self) -> bool:
        """Asked after each step; a collective call."""
        is_late = multihost.is_writer() and time.monotonic() - self._saved > SAVE_SECONDS
        # One vote for both, on the devices: it holds up no step. What it was about is asked through
        # the store, which does, and so only after somebody has given a vote.
        if not self._vote.any(self._stop.is_made or is_late):
            return False
        wishes = multihost.gather_json([self._stop.is_made, is_late], what=self._what)
        self._is_save_due = any(is_late for _, is_late in wishes)
        return any(is_stop_made for is_stop_made, _ in wishes)

    def is_save_due(self, _step: int) -> bool:
        """Whether that was found at the last call of `should_stop`."""
        return self._is_save_due

    def is_stop_made(self) -> bool:
        """Whether any process was told to stop; a collective call that waits for all."""
        return any(multihost.gather_json(self._stop.is_made, what=self._what))


def _accept(_step: int, _metrics: Mapping[str, Any]) -> None:
    """A rate at which training diverges makes a bad row of the sweep; it must not end others."""


class Unfinished:
    """Results of parts that are finished, and the state of the one that is being trained.

    All processes go through the same calls; the first one reads and writes.

    Args:
      folder: where to keep them.
      identity: of the evaluation; what is there of another one is ignored.
    """

    def __init__(self, folder: pathlib.Path, identity: str):
        self._folder, self._identity = folder, identity
        self._results: dict[str, Any] = multihost.on_writer(
            self._read_results, what="reading unfinished work"
        )

    def _read_results(self) -> dict[str, Any]:
        try:
            stored = json.loads(files.read_bytes(self._folder / "results.json"))
            return stored["results"] if stored["identity"] == self._identity else {}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            path = self._folder / "results.json"
            console.say(f"WARNING: {path} is damaged and left out: {error!r}")
            return {}
        except OSError as error:
            raise _unreadable(error) from None

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of a part, in the types of JSON: of a previous attempt, or computed now.

        Args:
          name: of the part, once in an evaluation.
          compute: makes the result.
        """
        if name not in self._results:
            self._results[name] = json.loads(json.dumps(compute()))
            multihost.on_writer(self._write_results, what=f"writing the results of {name}")
        return self._results[name]

    def by_seed(self, score: Callable[[int], Any]) -> Callable[[int], Any]:
        """The same function of a seed, which remembers its results."""
        return lambda seed: self.remember(f"seed {seed}", lambda: score(seed))

    def keep(self, fitted: kept.Fitted) -> None:
        """Writes what the evaluation will keep in the end, for this attempt or a later one."""
        multihost.on_writer(
            lambda: kept.remember(self._folder, fitted), what="writing the classifier"
        )

    def recall(self) -> kept.Fitted | None:
        """What `keep` was given, on the writer; None if it was not called."""
        is_there = (self._folder / kept.FILE).is_file()
        return kept.recall(self._folder) if is_there else None

    def _write_results(self) -> None:
        stored = {"identity": self._identity, "results": self._results}
        files.write_text(self._folder / "results.json", json.dumps(stored))

    def train(
        self,
        name: str,
        update: Callable[[Any, Any], tuple[Any, Any, Any]],
        state: Any,
        batches: train_loader.TrainBatches,
        *,
        total_steps: int,
        title: str,
    ) -> Any:
        """Trains from where a previous attempt at this part had come to; gives the last state.

        Args:
          name: of the part, once in an evaluation.
          update: what `pmap.pmap_update` gives.
          state: before the first step, on the host.
          batches: of this process, at their beginning; they are closed at the end.
          total_steps: updates in all.
          title: of the progress bar.

        Raises:
          Stopped: there was a signal.
        """
        state, first_step = self._restore(name, state, batches)
        bar = console.progress_bar(total=total_steps, done=first_step, unit="step", title=title)
        with contextlib.closing(batches), loop.StopRequest() as stop, bar:
            turns = _Turns(stop, title)

            def save(step: int, state: Any) -> None:
                self._save(name, state, step, batches)
                turns.note_saved()

            state, step = loop.run(
                update,
                pmap.replicate(state),
                map(pmap.shard, batches),
                first_step=first_step,
                total_steps=total_steps,
                log_every=total_steps,
                on_metrics=lambda *_: None,
                hooks=[loop.Hook(turns.is_save_due, save)],
                progress=loop.Bar(bar),
                should_stop=turns.should_stop,
                check=_accept,
            )
            if turns.is_stop_made():  # perhaps since the last vote
                self._save(name, state, step, batches)
                raise stopped(title, step, total_steps)
        return jax.device_get(state)

    def _save(self, name: str, state: Any, done: int, batches: train_loader.TrainBatches) -> None:
        leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(jax.device_get(state)))}
        self.save_arrays(name, leaves, {"step": done, "batches": batches.get_state()})

    def save_arrays(
        self, name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> None:
        """Saves what is being trained, in place of what was saved before.

        Args:
          name: of the part.
          arrays: by name.
          facts: in the types of JSON.
        """
        stored = {"identity": self._identity, "name": name, **facts}

        def write() -> None:
            path = self._folder / "state.npz"
            with files.whole(path) as part, files.writing(path), part.open("wb") as file:
                np.savez(file, facts=np.array(json.dumps(stored)), **arrays)

        multihost.on_writer(write, what=f"saving {name}")

    def saved_arrays(self, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """The facts and arrays of a part, on the writer; None if it is not what was saved last."""
        path = self._folder / "state.npz"
        try:
            with np.load(path) as stored:
                facts = json.loads(str(stored["facts"]))
                if (facts["identity"], facts["name"]) != (self._identity, name):
                    return None
                return facts, {key: stored[key] for key in stored.files if key != "facts"}
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(error) from None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            console.say(f"WARNING: {path} is damaged and left out: {error}")
            return None

    def _restore(
        self, name: str, state: Any, batches: train_loader.TrainBatches
    ) -> tuple[Any, int]:
        """The state of this part, if it is what was saved last, and the updates behind it."""
        state = jax.device_get(state)
        leaves, structure = jax.tree.flatten(state)

        def read() -> dict[str, Any] | None:
            nonlocal leaves
            found = self.saved_arrays(name)
            if found is None:
                return None
            if len(found[1]) != len(leaves):
                console.say(f"WARNING: what was saved of {name} is of another version: left out.")
                return None
            # In the types of the other processes' leaves, which have been on no device.
            leaves = [found[1][str(i)].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
            return found[0]

        facts = multihost.on_writer(read, what=f"reading what was saved of {name}")
        if facts is None:
            return state, 0
        batches.set_state(facts["batches"])
        console.say(f"Resuming '{name}' from step {facts['step']:,}.")
        state = jax.tree.unflatten(structure, leaves)
        return multihost.broadcast(state, what=f"sharing the state of {name}"), facts["step"]

    def remove(self) -> None:
        """Forgets everything; to be called by the writer, once the evaluation's result is there."""
        with contextlib.suppress(OSError):  # of folders that are missing, or not empty
            for name in ("results.json", "state.npz", kept.FILE):
                (self._folder / name).unlink(missing_ok=True)
            self._folder.rmdir()
            self._folder.parent.rmdir()


def _unreadable(error: OSError) -> run_folder.UsageError:
    """Hours of work may be in the file, which would be replaced."""
    return run_folder.UsageError(
        f"Cannot read {error.filename}: {error.strerror}. Nothing was changed; once it can be "
        "read, rerun the same command to resume."
    )
