"""Starts a task: ``python -m byol_jax.main_loop --config=configs/byol.py``.

Any key of the config can be overridden, as in ``--config.batch_size=128``. Configs are in
``configs/``; the text on top of each says what it does, on what hardware, and how long it takes.
"""

import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app

from byol_jax import (
    bench_input,
    checkpoint,
    cluster,
    collapse,
    command_line,
    convert,
    coordination,
    effects,
    input_pipeline,
    interruptible,
    liveness,
    loop,
    pack,
    parallel,
    place,
    preview,
    processes,
    ranges,
    records,
    report,
    results,
    run_embed,
    run_export,
    run_finetune,
    run_gallery,
    run_knn,
    run_linear_eval,
    run_pretrain,
    run_transfer,
    sessions,
    snapshots,
    unfinished,
)
from byol_jax import config as config_lib
from byol_jax import workdir as workdir_lib

TASKS: dict[str, Callable[[Any, pathlib.Path], None]] = {
    "pretrain": run_pretrain.run,
    "linear_eval": run_linear_eval.run,
    "semi_supervised": run_finetune.run,
    "transfer": run_transfer.run,
    "knn": run_knn.run,
    "embed": run_embed.run,
    "export": run_export.run,
    "gallery": run_gallery.run,
    "preview": preview.run,
    "bench_input": bench_input.run,
    "convert": convert.run,
    "pack": pack.run,
}

_SHARDS = "Finished shards are kept: rerun the same command to resume."
_PARTS = "Finished parts are kept: rerun the same command to resume."
# What is left of a task that an error of the system or Ctrl-C has ended; of the others nothing is.
LEFT = {
    "pretrain": "What was saved is kept: rerun the same command to resume.",
    "linear_eval": _PARTS,
    "semi_supervised": _PARTS,
    "convert": _SHARDS,
    "pack": _SHARDS,
}
NOTHING_LEFT = "Nothing was kept: rerun the same command to begin again."
# Tasks whose folder is named after what they evaluate, unless it is given.
EVALUATIONS = ("linear_eval", "semi_supervised", "transfer", "knn", "embed")

# What ends a run with a message and status 1: on all processes alike, or perhaps on one alone.
SHARED_FAILURES = (
    collapse.CollapseError,
    loop.NonFiniteError,
    parallel.OtherProcessError,
    place.LeftError,
)
LONE_FAILURES = (
    input_pipeline.TooManyBadImagesError,
    processes.WorkerError,
    snapshots.SaveError,
    workdir_lib.WriteError,
)

parse_flags = command_line.parse_flags
_fail = command_line.fail


def main(_: Sequence[str]) -> None:
    """Runs the task that the config names; a mistake or a failed run ends in a message."""
    config = command_line.config()
    name = "-".join(filter(None, (config.task, config.preset)))
    workdir = pathlib.Path(command_line.WORKDIR.value or f"runs/{name}").expanduser()
    began = time.time()
    processes.settle()
    try:
        parallel.initialize(
            command_line.COORDINATOR.value,
            command_line.NUM_PROCESSES.value,
            command_line.PROCESS_ID.value,
        )
        ranges.check(config)
        has_workdir = bool(command_line.WORKDIR.value)
        notes = effects.settle(config, command_line.typed(), has_workdir=has_workdir)
        for note in notes:
            records.say(f"Note: {note}")
        task = config_lib.lookup(TASKS, config.task, key="task")
        if has_workdir or config.task not in EVALUATIONS:
            task(config, workdir)
        else:
            workdir = _evaluate(task, config)
        _conclude(workdir, began)
        coordination.finish()
        if interruptible.is_anything_left():  # for whose end Python would wait
            sys.stdout.flush()
            os._exit(0)
    except unfinished.Stopped as stopped:
        records.say(str(stopped))
        coordination.finish()
    except config_lib.UsageError as error:
        _fail(str(error), status=2)
    except SHARED_FAILURES as error:
        _conclude(workdir, began, message=str(error))
        _fail(str(error), status=1)
    except LONE_FAILURES as error:
        _conclude(workdir, began, message=str(error))
        _leave(str(error))
    except loop.NothingDoneError as error:
        _fail(str(error), status=1)
    except OSError as error:
        _fail(f"{error}. {LEFT.get(config.task, NOTHING_LEFT)}", status=1)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        _leave(f"Another process has failed or is gone: {error}")
    except KeyboardInterrupt:  # not while training, which saves
        _fail(f"Interrupted. {LEFT.get(config.task, NOTHING_LEFT)}", status=130)


def _evaluate(task: Callable[[Any, pathlib.Path], None], config: Any) -> pathlib.Path:
    """Evaluates into a folder named after the checkpoint; of a run that goes on, the newest."""
    while True:
        workdir, pinned = results.place(config)
        try:
            task(pinned, workdir)
            return workdir
        except checkpoint.GoneError:
            if pinned.checkpoint == config.checkpoint:  # which was asked for, and no other
                raise


def _conclude(workdir: pathlib.Path, began: float, *, message: str = "") -> None:
    """Notes how a task that has measured something ended, and makes its page."""
    if message:
        coordination.stand_down()
    written = [workdir / name for name in ("metrics.jsonl", "result.json")]
    is_new = any(path.exists() and path.stat().st_mtime >= began - 1 for path in written)
    if is_new and parallel.is_writer():
        sessions.note_end(workdir, began=began, message=message)
        page = report.write_for(workdir)
        if page:
            print(f"Report: {page}", file=sys.stderr)


def _leave(message: str) -> None:
    """Ends at once, without the farewell between processes, to which not all would come."""
    sys.stdout.flush()
    print(f"Error: {message}", file=sys.stderr, flush=True)
    coordination.fail(message)
    os._exit(status)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
