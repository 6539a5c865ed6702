"""Starts a task: ``python -m byol_jax.main_loop --config=configs/byol.py``.

Any key of the config can be overridden, as in ``--config.batch_size=128``. Configs are in
``configs/``; the text on top of each says what it does, on what hardware, and how long it takes.
"""

import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from byol_jax import (
    bench_input,
    checkpoint,
    collapse,
    convert,
    input_pipeline,
    loop,
    pack,
    parallel,
    place,
    preview,
    processes,
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

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/byol.py", "Config file, and after a colon its preset."
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder for what a task writes; default: runs/<task>-<preset>, of an evaluation also with what "
    "it evaluates.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, if there are several and this is no TPU pod, SLURM or alike.",
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def main(_: Sequence[str]) -> None:
    """Runs the task that the config names; a mistake or a failed run ends in a message."""
    config = _CONFIG.value
    name = "-".join(filter(None, (config.task, config.preset)))
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{name}").expanduser()
    began = time.time()
    processes.settle()
    try:
        parallel.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        task = config_lib.lookup(TASKS, config.task, key="task")
        if _WORKDIR.value or config.task not in EVALUATIONS:
            task(config, workdir)
        else:
            workdir = _evaluate(task, config)
        _conclude(workdir, began)
    except unfinished.Stopped as stopped:
        records.say(str(stopped))
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
    written = [workdir / name for name in ("metrics.jsonl", "result.json")]
    is_new = any(path.exists() and path.stat().st_mtime >= began - 1 for path in written)
    if is_new and parallel.is_writer():
        sessions.note_end(workdir, began=began, message=message)
        page = report.write_for(workdir)
        if page:
            print(f"Report: {page}", file=sys.stderr)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line; a wrong key, value, preset or file becomes a message."""
    try:
        left = flags.FLAGS(list(argv))
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)  # libraries' notes only on request
        _ = _CONFIG.value.task  # an unreadable file shows only here
    except (AttributeError, KeyError) as error:
        cause = error.args[0] if isinstance(error.args[0], KeyError) else error
        text = " ".join(str(cause.args[0]).split())
        _fail(f"Unknown key in --config: {text} (the config file lists all keys)")
    except OSError:
        valid = ", ".join(sorted(str(path) for path in pathlib.Path("configs").glob("*.py")))
        _fail(f"Cannot read the file of --config. Here are: {valid or 'none; go to the project'}.")
    except (flags.Error, TypeError, ValueError) as error:
        # A config file's own complaint arrives inside the text of a whole trace.
        text = str(error).split("UsageError: ")[-1].strip()
        if "indices must be integers" in text:  # a key below a text
            text = "Unknown key in --config: below a value there are no keys."
        _fail(text)
    if left[1:]:
        _fail(f"Unexpected arguments: {' '.join(left[1:])}. Write --key=value without spaces.")
    return left


def _fail(message: str, *, status: int = 2) -> None:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(status)


def _leave(message: str) -> None:
    """Ends at once, without the farewell between processes, to which not all would come."""
    sys.stdout.flush()
    print(f"Error: {message}", file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
