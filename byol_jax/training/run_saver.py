"""Restores and saves a run on all processes, in a workdir that may be renamed meanwhile."""

import pathlib
from typing import Any, NoReturn

from byol_jax.checkpoints import manager
from byol_jax.data import bad_images, train_loader
from byol_jax.distributed import multihost
from byol_jax.training import run_writer, train_step
from byol_jax.workdir import console, place


class RunSaver:
    """State and input of one run, in and out of its checkpoints; every method is collective.

    Args:
        workdir: of the run.
        writer: writes into it, in the first process.
        batches: the input, whose place is saved with the state.
        bad: images of the input that could not be used.
        is_streamed: whether images are decoded as they are needed, so that some may be bad.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        writer: run_writer.RunWriter,
        batches: train_loader.TrainBatches,
        bad: bad_images.BadImages,
        *,
        is_streamed: bool,
    ):
        self._workdir, self._writer = workdir, writer
        self._batches, self._bad, self._is_streamed = batches, bad, is_streamed

    def restore(self, initial: train_step.TrainState) -> tuple[train_step.TrainState, int]:
        """State and step of the newest sound checkpoint, which one process reads.

        Args:
            initial: what the run begins with, if there is no checkpoint.
        """
        state = initial

        def read() -> list[Any]:
            nonlocal state
            restored = manager.restore_newest(self._workdir, initial, warn=console.say)
            if restored is None:
                return [0, None]
            state = restored.state
            console.say(f"Resuming from step {restored.step:,} of {self._workdir}.")
            return [restored.step, restored.iterator]

        step, iterator_state = multihost.on_writer(read, what="reading a checkpoint")
        if iterator_state is not None:
            self._batches.set_state(iterator_state)
            self._bad.look(step)
        return multihost.broadcast(state, what="sharing the state"), step

    def save(self, step: int, state: train_step.TrainState) -> None:
        """Starts to save, unless the workdir was left: then the run is about to end."""
        if not self.is_left():
            self._write(step, state)

    def finish(self) -> None:
        """Waits until everything is saved."""
        multihost.on_writer(self._writer.finish, what="writing the last checkpoint")

    def is_left(self) -> bool:
        """Whether the workdir was renamed or removed."""
        return multihost.on_writer(self._writer.is_left, what="looking at the workdir")

    def last_good(self, what: str = "finding the last checkpoint") -> str:
        """The newest checkpoint that is whole."""
        return multihost.on_writer(self._writer.last_good, what=what)

    def follow(self, state: train_step.TrainState, step: int | None) -> NoReturn:
        """Ends a run whose workdir is elsewhere; a state of a new step is saved there.

        Raises:
            place.LeftError: always.
        """
        new = multihost.on_writer(self._writer.follow, what="looking for the workdir")
        if new and step is not None:
            self._write(step, state)
        last = self.last_good("writing the last checkpoint") if new else "none"
        advice = f"Rerun the command with --workdir={new} to resume. " if new else ""
        raise place.LeftError(
            f"The workdir {self._workdir} was {f'renamed to {new}' if new else place.LOST} while "
            f"the run was writing to it. {advice}Last checkpoint: {last}."
        )

    def _write(self, step: int, state: train_step.TrainState) -> None:
        multihost.assert_replicated(state)
        if self._is_streamed:
            self._bad.share()
        self._writer.save(step, state, self._batches.get_state())
