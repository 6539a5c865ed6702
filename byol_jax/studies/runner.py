"""Runs what is left of a study, some runs at a time, and stops them cleanly on request."""

import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from byol_jax.host import machine, signals
from byol_jax.studies import children, claims, grid, progress, results

POLL_SECONDS = 0.2
LOOK_SECONDS = 5.0  # between two looks at the runs of others, and at the metrics of one's own
END_SECONDS = 120.0  # that runs have to save


class RunsFailedError(RuntimeError):
    """Some of the runs failed, or are claimed by a machine that may be dead."""


class Interrupted(Exception):
    """A signal has ended the study; what was running has saved."""


class Folder:
    """Where the files of a study are.

    Args:
      path: workdir of the study.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.cache = path / "compiled"

    def run(self, run: grid.Run) -> pathlib.Path:
        """The workdir of a run."""
        return self.path / "runs" / run.name

    def log(self, run: grid.Run) -> pathlib.Path:
        """What a run has printed."""
        return self.path / "logs" / f"{run.name}.txt"

    def claim(self, run: grid.Run) -> pathlib.Path:
        """Who does a run."""
        return self.path / "claims" / run.name


class Runner:
    """Starts runs, watches them, and tells of them.

    Args:
      config: of the study.
      runs: to be done.
      folder: of the study.
      show: called with the state of all runs whenever it has changed.
    """

    def __init__(
        self,
        config: Any,
        runs: Sequence[grid.Run],
        folder: Folder,
        show: Callable[[dict[str, progress.State]], None],
    ):
        self._config, self._runs, self._folder, self._show = config, runs, folder, show
        self._gpus = children.gpus(os.environ)
        self._cores = 0 if self._gpus else config.cores
        one_each = machine.processors() // max(self._cores, 1)
        self._jobs = config.jobs or len(self._gpus) or max(1, one_each)
        self._states = {
            run.name: progress.State(
                progress.DONE if results.is_finished(folder.run(run)) else progress.WAITING
            )
            for run in runs
        }
        self._own: dict[int, tuple[grid.Run, claims.Claim, children.Child]] = {}  # by slot
        self._looked = 0.0
        self._stop = False

    def run(self) -> None:
        """Does all runs that nobody else does, and waits for those that somebody does.

        Raises:
          Interrupted: there was a signal.
          RunsFailedError: at the end, naming what failed.
          OSError: the folder cannot be written to.
        """
        message = "Ending the runs, which save. Again to stop at once."
        with signals.reacting(signals.Reaction(self._hear, message)):
            try:
                while not self._stop and self._step():
                    time.sleep(POLL_SECONDS)
            finally:
                self._end_all()
        if self._stop:
            raise Interrupted
        self._tell_failures()

    def _hear(self, _number: int) -> None:
        self._stop = True

    def _step(self) -> bool:
        """Collects what has ended, starts what can be; says whether there is more to do."""
        before = dict(self._states)
        self._reap()
        is_time = time.monotonic() - self._looked > LOOK_SECONDS
        if is_time:
            self._look()
        for run in self._runs:
            slot = next((s for s in range(self._jobs) if s not in self._own), None)
            kind = self._states[run.name].kind
            if kind == progress.ELSEWHERE and is_time:
                self._retry(run, slot)
            elif kind == progress.WAITING and slot is not None:
                self._states[run.name] = self._begin(run, slot)
        if before != self._states:
            self._show(self._states)
        open_states = (progress.WAITING, progress.RUNNING, progress.ELSEWHERE)
        return any(state.kind in open_states for state in self._states.values())

    def _reap(self) -> None:
        """Collects the runs that have ended."""
        for slot, (run, claim, child) in list(self._own.items()):
            claim.beat()
            if child.status() is None:
                continue
            del self._own[slot]
            claim.release()
            is_done = results.is_finished(self._folder.run(run))
            self._states[run.name] = (
                progress.State(progress.DONE, 1.0, child.seconds)
                if is_done
                else progress.State(progress.FAILED, note=child.why())
            )

    def _look(self) -> None:
        """Sees how far the runs have come."""
        self._looked = time.monotonic()
        for run, _, child in self._own.values():
            done = results.fraction_done(self._folder.run(run))
            self._states[run.name] = progress.State(progress.RUNNING, done, child.seconds)

    def _retry(self, run: grid.Run, slot: int | None) -> None:
        """Looks again at a run that somebody else has claimed."""
        if slot is not None:
            self._states[run.name] = self._begin(run, slot)
        elif results.is_finished(self._folder.run(run)):
            self._states[run.name] = progress.State(progress.DONE)

    def _begin(self, run: grid.Run, slot: int) -> progress.State:
        """Starts a run unless it is finished, or somebody else does it; its state then."""
        try:
            claim = claims.take(self._folder.claim(run))
        except claims.Taken as taken:
            kind = progress.STALE if taken.is_silent else progress.ELSEWHERE
            return progress.State(kind, note=str(taken))
        if results.is_finished(self._folder.run(run)):
            claim.release()
            return progress.State(progress.DONE)
        done = results.fraction_done(self._folder.run(run))
        self._own[slot] = (run, claim, self._start(run, claim, slot))
        return progress.State(progress.RUNNING, done)

    def _start(self, run: grid.Run, claim: claims.Claim, slot: int) -> children.Child:
        cores = self._cores
        env = children.environment(
            os.environ,
            gpus=self._gpus,
            slot=slot,
            jobs=self._jobs,
            cores=cores,
            cache=self._folder.cache,
        )
        try:
            return children.Child(
                children.command(run, self._config.base, self._folder.run(run)),
                self._folder.log(run),
                env=env,
                processors=children.processors_of(slot, cores),
                descriptor=claim.descriptor,
            )
        except BaseException:
            claim.release()
            raise

    def _end_all(self) -> None:
        """Has all of its own runs save and end, and gives their claims back."""
        for _, _, child in self._own.values():
            child.ask_to_end()
        deadline = time.monotonic() + END_SECONDS
        for _, claim, child in self._own.values():
            while child.status() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if child.status() is None:
                child.kill()
            claim.release()
        self._own.clear()

    def _tell_failures(self) -> None:
        bad = {
            name: state.note
            for name, state in self._states.items()
            if state.kind in (progress.FAILED, progress.STALE)
        }
        if bad:
            lines = [f"  {name}: {note}" for name, note in bad.items()]
            raise RunsFailedError(
                f"{len(bad)} of {len(self._runs)} runs have no result:\n" + "\n".join(lines)
            )
