"""Starts a task: ``python -m byol_jax.main_loop --config=configs/byol.py``.

Any key of the config can be overridden, as in ``--config.batch_size=128``. Configs are in
``configs/``; the text on top of each says what it does, on what hardware, and how long it takes.
"""

from byol_jax import console, signals

if __name__ == "__main__":  # before the imports below, which take seconds
    console.protect()
    signals.end_without_work()

import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from byol_jax import (
    bench_input,
    collapse,
    convert,
    input_pipeline,
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

# Tasks of which a part that is finished is kept when they are interrupted.
RESUMABLE = {"linear_eval", "semi_supervised", "transfer", "convert", "pack"}

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


def main(_: Sequence[str]) -> None:
    """Runs the task that the config names; a mistake or a failed run ends in a message.

    So does a signal that asks to end, except while a task trains, which saves then.
    """
    console.protect()
    config = _CONFIG.value
    advice = _advice(config.task)
    farewell = f"Interrupted. {advice}"
    reaction = signals.Reaction(
        signals.interrupt, limit=signals.LIMIT_SECONDS, farewell=f"\n{farewell}"
    )
    try:
        with signals.reacting(reaction):
            _run(config)
    except signals.Interrupted as stop:
        signals.leave(farewell, 128 + stop.number)
    except MemoryError as error:
        _leave(f"Out of memory{f' ({error})' if str(error) else ''}. {advice}")
    except OSError as error:
        _leave(f"{error}. {advice}")
    except jax.errors.JaxRuntimeError as error:
        if not parallel.is_alone():
            _leave(f"Another process has failed or is gone: {error}")
        if "RESOURCE_EXHAUSTED" not in str(error):
            _explain(error, advice)
        _leave(f"Out of memory: {str(error).splitlines()[0]}. A smaller batch_size may help.")
    except Exception as error:
        _explain(error, advice)


def _explain(error: Exception, advice: str) -> NoReturn:
    """Ends after a fault of the program, which only its trace can explain."""
    traceback.print_exc()
    _leave(f"A fault of this program, {type(error).__name__}. {advice}")


def _advice(task: str) -> str:
    """What there is to say about the work of a task that ends early."""
    if task in RESUMABLE:
        return "What was finished is kept: rerun the same command to resume."
    if task == "pretrain":
        return "Checkpoints are as they were: rerun the same command to resume."
    return "Rerun the same command to start again."


def _run(config: Any) -> None:
    name = "-".join(filter(None, (config.task, config.preset)))
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{name}").expanduser()
    began = time.time()
    processes.settle()
    try:
        parallel.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
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
        _conclude(workdir, began, message=str(error))
        _leave(str(error))


def _conclude(workdir: pathlib.Path, began: float, *, message: str = "") -> None:
    """Notes how a task that has measured something ended, and makes its page."""
    written = [workdir / name for name in ("metrics.jsonl", "result.json")]
    is_new = any(path.exists() and path.stat().st_mtime >= began - 1 for path in written)
    if is_new and parallel.is_writer():
        try:
            sessions.note_end(workdir, began=began, message=message)
        except OSError as error:  # such as of a full disk; the work is done all the same
            records.say(f"Warning: {workdir / 'sessions.jsonl'} could not be written: {error}.")
        page = report.write_for(workdir)
        if page:
            records.say(f"Report: {page}")


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


def _fail(message: str, *, status: int = 2) -> NoReturn:
    """Ends with a message; several processes bid each other farewell."""
    if parallel.is_alone():
        signals.leave(f"Error: {message}", status)
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(status)


def _leave(message: str) -> NoReturn:
    """Ends at once, without the farewell between processes, to which not all would come."""
    signals.leave(f"Error: {message}", 1)


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=parse_flags)
    except SystemExit as end:
        signals.ignore()
        if not parallel.is_alone():
            raise
        signals.leave(*(("", end.code or 0) if isinstance(end.code, int | None) else (end.code, 1)))
