"""Writes the metrics of a run: metrics.jsonl, TensorBoard and other trackers."""

import contextlib
import json
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from byol_jax import config as config_lib
from byol_jax.workdir import metrics_log, run_folder, tensorboard, trackers

UsageError = config_lib.UsageError


class Logger:
    """Writes scalars to ``metrics.jsonl``, one object a line, and to TensorBoard.

    Args:
        workdir: folder of the run.
        first_step: the run goes on after this step; TensorBoard hides what came after it.
        others: get the same; none of them may raise.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        first_step: int = 0,
        others: Sequence[trackers.Tracker] = (),
    ):
        self._path = workdir / metrics_log.NAME
        self._file = self._path.open("a")
        board = trackers.Harmless(
            "TensorBoard",
            lambda: tensorboard.TensorBoard(workdir / "tensorboard", first_step=first_step + 1),
        )
        self._board = board
        self._trackers = (board, *others)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Appends one line; numbers that JSON lacks (NaN, infinity) are written as null."""
        safe = {key: value if math.isfinite(value) else None for key, value in scalars.items()}
        with run_folder.writing(self._path):
            self._file.write(json.dumps({"step": step, **safe}) + "\n")
            self._file.flush()
        for tracker in self._trackers:
            tracker.write(step, scalars)

    def write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """A picture, uint8 [H, W, 3], for those who show some."""
        for tracker in self._trackers:
            tracker.write_image(step, name, pixels)

    def reopen(self) -> None:
        """Closes the files and goes on in them.

        A bucket that is mounted has what was written to a file only once that is closed.
        """
        with run_folder.writing(self._path):
            self._file.close()
            self._file = self._path.open("a")
        self._board.reopen()

    def close(self) -> None:
        """Closes everything; `write` has said it if one of the files could not be written to."""
        for file in (self._file, *self._trackers):
            with contextlib.suppress(OSError):
                file.close()
