"""Starts a task: ``python -m byol_jax.main_loop --config=configs/byol.py``.

Any key of the config can be overridden, as in ``--config.batch_size=128``. Configs are in
``configs/``; the text on top of each says what it does, on what hardware, and how long it takes.
"""

import contextlib
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from byol_jax import (
    bench_input,
    cluster,
    collapse,
    convert,
    coordination,
    input_pipeline,
    interruptible,
    liveness,
    loop,
    pack,
    parallel,
    preview,
    processes,
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

_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/byol.py", "Config file, and after a colon its preset."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for what a task writes; default: runs/<task>-<preset>."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, if there are several and this is no TPU pod, SLURM or alike.",
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_SILENT_SECONDS = flags.DEFINE_float(
    "silent_seconds",
    liveness.SILENT_SECONDS,
    "A process that the others have not heard of for so long counts as dead, and ends the run.",
)


def main(_: Sequence[str]) -> None:
    """Runs the task that the config names; a mistake or a failed run ends in a message."""
    config = _CONFIG.value
    name = "-".join(filter(None, (config.task, config.preset)))
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{name}").expanduser()
    began = time.time()
    processes.settle()
    try:
        cluster.initialize(
            _COORDINATOR.value,
            _NUM_PROCESSES.value,
            _PROCESS_ID.value,
            silent_seconds=_SILENT_SECONDS.value,
        )
        cluster.require_same_program(config)
        config_lib.lookup(TASKS, config.task, key="task")(config, workdir)
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
        with contextlib.suppress(OSError):  # of a full disk
            _conclude(workdir, began, message=str(error))
        _leave(str(error))
    except OSError as error:
        _fail(f"{error}. What was finished is kept; the same command goes on.", status=1)
    except KeyboardInterrupt:  # not while training, which saves
        _fail("Interrupted. What was finished is kept; the same command goes on.", status=130)
    except Exception as error:
        if jax.process_count() == 1:
            raise
        _leave_others(error)


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
    if coordination.is_watching():
        _leave(message, status=status)
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(status)


def _leave_others(error: Exception) -> None:
    """Ends one of several processes by an error that nobody expected, perhaps not its own."""
    others = None
    if isinstance(error, jax.errors.JaxRuntimeError):  # so it is if another one's devices are gone
        others = coordination.explain()
    if others is None:
        traceback.print_exception(error)
        message = str(error).strip() or "no message"
        _leave(f"{type(error).__name__}: {message.splitlines()[0]}")
    _leave(others)


def _leave(message: str, *, status: int = 1) -> None:
    """Ends without JAX's farewell between processes, to which not all would come."""
    sys.stdout.flush()
    print(f"Error: {message}", file=sys.stderr, flush=True)
    coordination.fail(message)
    os._exit(status)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
