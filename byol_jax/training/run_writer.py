"""What one process of a pretraining run writes into its folder: metrics and checkpoints."""

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from byol_jax.checkpoints import manager
from byol_jax.training import run_files
from byol_jax.training import settings as settings_lib
from byol_jax.workdir import (
    console,
    metric_writer,
    metrics_log,
    place,
    run_folder,
    sessions,
    trackers,
)

NO_CHECKPOINT = "none yet"

# Takes the step and a row of metrics, by name; what it raises ends the run.
Callback = Callable[[int, dict[str, float]], None]


class RunWriter:
    """Logs and saves; in the processes that never open it, nothing happens.

    Args:
        settings: of the run.
        config: that they are from, to be stored.
        workdir: the run's folder.
        data_card: of its data.
        callbacks: called with step and row after each row of metrics.
    """

    def __init__(
        self,
        settings: settings_lib.PretrainSettings,
        config: Mapping[str, Any],
        workdir: pathlib.Path,
        data_card: run_folder.DataCard,
        callbacks: Sequence[Callback] = (),
    ):
        self._settings, self._callbacks = settings, callbacks
        self._config, self._workdir, self._data_card = config, workdir, data_card
        self._checkpoints: manager.Checkpoints | None = None
        self._place: place.Place | None = None
        self.logger: metric_writer.Logger | None = None

    def open(self, first_step: int) -> None:
        """Writes into the workdir for the first time; the checkpoint is known to fit the config."""
        aside = "" if first_step else run_files.set_aside(self._workdir, self._config)
        if aside:
            console.say(aside)
        run_files.store(self._workdir, self._config, self._data_card)
        sessions.note_start(self._workdir)
        self._place = place.Place(self._workdir)
        with run_folder.writing(self._workdir / metrics_log.NAME):
            for note in metrics_log.cut(self._workdir, first_step):
                console.say(f"WARNING: {note}.")
        self.logger = metric_writer.Logger(
            self._workdir,
            first_step=first_step,
            others=trackers.make_trackers(
                self._settings.wandb_project, self._workdir, self._config
            ),
        )
        self._checkpoints = self._make_checkpoints()

    def _make_checkpoints(self) -> manager.Checkpoints:
        about = {"config": self._config, "data": self._data_card._asdict()}
        return manager.Checkpoints(
            self._workdir,
            keep=self._settings.keep_checkpoints,
            keep_every=self._settings.keep_every_steps,
            about=about,
        )

    def log(self, step: int, row: dict[str, float]) -> None:
        """Appends a row to the metrics.

        Raises:
            workdir.WriteError: it cannot be written; says what is saved.
        """
        try:
            if self.logger:
                self.logger.write(step, row)
        except run_folder.WriteError as error:
            last = self.last_good()
            again = "begin again" if last == NO_CHECKPOINT else "resume"
            raise run_folder.WriteError(
                f"{error} Last checkpoint: {last}. Once this is mended, rerun the same command to "
                f"{again}."
            ) from None
        if self.logger:
            for callback in self._callbacks:
                callback(step, dict(row))

    def save(self, step: int, state: Any, iterator_state: dict[str, Any]) -> None:
        """Starts to save; raises `manager.SaveError` if this or the last one failed."""
        if self._checkpoints:
            if not self.is_left():
                self.logger.reopen()
            self._checkpoints.save(step, state, iterator_state)

    def finish(self) -> None:
        """Waits until everything is saved."""
        if self._checkpoints:
            self._checkpoints.finish()

    def last_good(self) -> str:
        """The newest checkpoint that is whole."""
        with contextlib.suppress(manager.SaveError):
            self.finish()
        return str(self._checkpoints.latest_path or NO_CHECKPOINT)

    def is_left(self) -> bool:
        """Whether the workdir was renamed or removed."""
        return self._place is not None and self._place.is_left()

    def follow(self) -> str:
        """Goes to where the workdir is now, for a last checkpoint; empty if that is unknown."""
        found = self._place.now()
        if found:
            self._checkpoints.close()
            self._workdir = found
            self._checkpoints = self._make_checkpoints()
        return str(found or "")

    def close(self) -> None:
        """Closes what was opened."""
        for part in (self.logger, self._checkpoints, self._place):
            if part:
                part.close()
