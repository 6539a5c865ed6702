"""Starts a task: ``python -m byol_jax.main_loop --config=configs/byol.py``.

Any key of the config can be overridden, as in ``--config.batch_size=128``. Configs are in
``configs/``; the text on top of each says what it does, on what hardware, and how long it takes.
"""

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app

from byol_jax import (
    bench_input,
    collapse,
    command_line,
    convert,
    effects,
    input_pipeline,
    loop,
    pack,
    parallel,
    preview,
    processes,
    ranges,
    records,
    report,
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

# What ends a run with a message and status 1: on all processes alike, or perhaps on one alone.
SHARED_FAILURES = (collapse.CollapseError, loop.NonFiniteError, parallel.OtherProcessError)
LONE_FAILURES = (
    input_pipeline.TooManyBadImagesError,
    processes.WorkerError,
    snapshots.SaveError,
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
        config_lib.lookup(TASKS, config.task, key="task")(config, workdir)
        _conclude(workdir, began)
    except unfinished.Stopped as stopped:
        records.say(str(stopped))
    except config_lib.UsageError as error:
        _fail(str(error), status=2)
    except SHARED_FAILURES as error:
        _conclude(workdir, began, message=str(error))
        _fail(str(error), status=1)
    except LONE_FAILURES as error:
        with contextlib.suppress(OSError):  # of a full disk
            _conclude(workdir, began, message=str(error))
        _leave(str(error))
    except OSError as error:
        _fail(f"{error}. What was finished is kept; the same command goes on.", status=1)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        _leave(f"Another process has failed or is gone: {error}")
    except KeyboardInterrupt:  # not while training, which saves
        _fail("Interrupted. What was finished is kept; the same command goes on.", status=130)


def _conclude(workdir: pathlib.Path, began: float, *, message: str = "") -> None:
    """Notes how a task that has measured something ended, and makes its page."""
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
    os._exit(1)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
