"""The folder of a run: its config, its metrics, and what must not be mixed up in it."""

import json
import math
import os
import pathlib
from typing import Any

from tensorboardX import SummaryWriter

from byol_jax import config as config_lib

UsageError = config_lib.UsageError


def open_workdir(workdir: pathlib.Path, config: Any) -> None:
    """Makes the folder and stores the config in it, or checks that it is the same one.

    Raises:
        UsageError: the folder cannot be written to, or belongs to a run of another config.
    """
    path = workdir / "config.json"
    text = config_lib.to_json(config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _require_same_config(workdir, json.loads(path.read_text()), json.loads(text))
        _replace(path, text)
    except OSError as error:
        raise UsageError(f"Cannot write to the workdir {workdir}: {error}.") from None


def _require_same_config(workdir: pathlib.Path, old: Any, new: Any) -> None:
    changed = config_lib.differences(old, new)
    if changed:
        raise UsageError(
            f"{workdir} holds a run of another config:\n  "
            + "\n  ".join(changed)
            + "\nGive the same config to resume it, or another --workdir."
        )


def _replace(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a crash leaves the old one or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """All whole lines of ``metrics.jsonl``; a last one cut off by a kill is left out."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [row for row in map(_parse, lines) if row is not None]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


class Logger:
    """Writes scalars to ``metrics.jsonl``, one object a line, and to TensorBoard.

    Args:
        workdir: folder of the run.
        first_step: what an interrupted run logged after this step is dropped, since these steps
            run again.
    """

    def __init__(self, workdir: pathlib.Path, *, first_step: int = 0):
        path = workdir / "metrics.jsonl"
        kept = [row for row in read_metrics(workdir) if row["step"] <= first_step]
        if first_step == 0:
            kept = []  # the measurement before the first step is made again
        _replace(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Appends one line; numbers that JSON lacks (NaN, infinity) are written as null."""
        safe = {key: value if math.isfinite(value) else None for key, value in scalars.items()}
        self._file.write(json.dumps({"step": step, **safe}) + "\n")
        self._file.flush()
        for key, value in scalars.items():
            self._board.add_scalar(key, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        self._file.close()
        self._board.close()
