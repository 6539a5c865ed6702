"""Starts a task: ``python -m byol_jax.main_loop --config=configs/byol.py``.

Any key of the config can be overridden, as in ``--config.batch_size=128``. Configs are in
``configs/``; the text on top of each says what it does, on what hardware, and how long it takes.
"""

import sys

from byol_jax.cli import startup

if __name__ == "__main__":  # before the imports below, which take seconds
    startup.begin(sys.argv)

import functools
import importlib
import pathlib
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
from absl import app

from byol_jax import config as config_lib
from byol_jax import plugins
from byol_jax.checkpoints import manager, step_folders
from byol_jax.cli import command_line, conclusion, effects
from byol_jax.data import agreement, train_loader
from byol_jax.distributed import cluster, coordination, multihost
from byol_jax.evaluation import result_folder, resume
from byol_jax.host import compile_cache, processes, signals, streams
from byol_jax.studies import runner
from byol_jax.training import collapse_monitor, config_ranges, loop
from byol_jax.workdir import bucket, console, mirror, place, run_folder

# By module, of which only the one that is asked for is imported.
TASKS = {
    "pretrain": "byol_jax.tasks.pretrain",
    "linear_eval": "byol_jax.tasks.linear_eval",
    "semi_supervised": "byol_jax.tasks.semi_supervised",
    "transfer": "byol_jax.tasks.transfer",
    "segmentation": "byol_jax.tasks.segmentation",
    "depth": "byol_jax.tasks.depth",
    "detection": "byol_jax.tasks.detection",
    "paper": "byol_jax.tasks.paper",
    "knn": "byol_jax.tasks.knn",
    "embed": "byol_jax.tasks.embed",
    "curate": "byol_jax.tasks.curate",
    "search": "byol_jax.tasks.search",
    "predict": "byol_jax.tasks.predict",
    "export": "byol_jax.tasks.export",
    "gallery": "byol_jax.tasks.gallery",
    "estimate": "byol_jax.tasks.estimate",
    "preview": "byol_jax.tasks.preview",
    "bench_input": "byol_jax.tasks.bench_input",
    "convert": "byol_jax.tasks.convert",
    "pack": "byol_jax.tasks.pack",
    "study": "byol_jax.tasks.study",
}

_SHARDS = "Finished shards are kept: rerun the same command to resume."
_PARTS = "Finished parts are kept: rerun the same command to resume."
# What is left of a task that an error or a signal has ended; of the others nothing is.
LEFT = {
    "pretrain": "Its checkpoints, if there are any, are kept: rerun the same command to resume.",
    "linear_eval": _PARTS,
    "semi_supervised": _PARTS,
    "segmentation": _PARTS,
    "depth": _PARTS,
    "detection": _PARTS,
    "paper": "Finished evaluations are kept: rerun the same command to resume.",
    "convert": _SHARDS,
    "pack": _SHARDS,
    "study": "Its runs have saved: rerun the same command to resume.",
}
NOTHING_LEFT = "Nothing was kept: rerun the same command to begin again."
OF_RUNS = ("pretrain", "bench_input", "estimate", "preview")
# Tasks whose folder is named after what they evaluate, unless it is given.
EVALUATIONS = (
    "linear_eval",
    "semi_supervised",
    "transfer",
    "segmentation",
    "depth",
    "detection",
    "paper",
) + ("knn", "embed", "curate", "search")

# Whose runs, in processes of their own, or PyTorch need the devices, which JAX would fill.
OFF_DEVICE = ("study", "detection", "paper")

# What ends a run with a message and status 1: on all processes alike, or perhaps on one alone.
SHARED_FAILURES = (
    collapse_monitor.CollapseError,
    loop.NonFiniteError,
    coordination.OtherProcessError,
    place.LeftError,
)
LONE_FAILURES = (
    train_loader.TooManyBadImagesError,
    processes.WorkerError,
    manager.SaveError,
    run_folder.WriteError,
    runner.RunsFailedError,
)

parse_flags = command_line.parse_flags


def load_task(name: str) -> Callable[[Any, pathlib.Path], None]:
    """The function ``run`` of a task's module.

    Raises:
      UsageError: there is no such task.
    """
    return importlib.import_module(config_lib.lookup(TASKS, name, key="task")).run


def main(_: Sequence[str]) -> None:
    """Runs the task that the config names; a mistake or a failed run ends in a message.

    So does a signal that asks to end, except while a task trains, which saves then.
    """
    streams.protect()
    config = command_line.config()
    advice = LEFT.get(config.task, NOTHING_LEFT)
    farewell = f"Interrupted. {advice}"
    reaction = signals.Reaction(
        signals.interrupt, limit=signals.LIMIT_SECONDS, farewell=f"\n{farewell}"
    )
    try:
        with signals.reacting(reaction):
            _run(config)
    except signals.Interrupted as stop:
        _leave(stop.message or farewell, 128 + stop.number, title="")
    except MemoryError as error:
        _leave(f"Out of memory{f' ({error})' if str(error) else ''}. {advice}")
    except OSError as error:
        _leave(f"{error}. {advice}")
    except Exception as error:
        _explain(error, advice)


def _explain(error: Exception, advice: str) -> NoReturn:
    """Ends after an error that nobody expected; perhaps it is another process's."""
    is_of_jax = isinstance(error, jax.errors.JaxRuntimeError)
    others = coordination.explain() if is_of_jax else None  # their devices may be gone
    if others is not None:
        _leave(others)
    if is_of_jax and "RESOURCE_EXHAUSTED" in str(error):
        _leave(f"Out of memory: {str(error).splitlines()[0]}. A smaller batch_size may help.")
    traceback.print_exception(error)
    message = (str(error).strip() or "no message").splitlines()[0]
    _leave(f"A fault of this program, {type(error).__name__}: {message}. {advice}")


def _run(config: Any) -> None:
    name = "-".join(filter(None, (config.task, config.preset)))
    given = command_line.WORKDIR.value or f"runs/{name}"
    is_mirrored = bucket.is_address(given)
    workdir = mirror.local_folder(given) if is_mirrored else pathlib.Path(given).expanduser()
    began = time.time()
    processes.settle()
    kept = None if config.task in OFF_DEVICE else compile_cache.use()
    if config.task in OFF_DEVICE:
        jax.config.update("jax_platforms", "cpu")
    try:
        cluster.initialize(
            command_line.COORDINATOR.value,
            command_line.NUM_PROCESSES.value,
            command_line.PROCESS_ID.value,
            silent_seconds=command_line.SILENT_SECONDS.value,
        )
        plugins.load(config)
        config_ranges.check(config)
        if kept:
            console.say(kept)
        has_workdir = bool(command_line.WORKDIR.value)
        for note in effects.settle(config, command_line.typed(), has_workdir=has_workdir):
            console.say(f"Note: {note}")
        agreement.require_same_program(config)
        task = load_task(config.task)
        if is_mirrored:
            multihost.on_writer(lambda: mirror.open_folder(given), what="opening the workdir")
        if config.task in OF_RUNS:  # whose values depend on what was typed
            task = functools.partial(task, typed=command_line.typed())
        if has_workdir or config.task not in EVALUATIONS:
            task(config, workdir)
        else:
            workdir = _evaluate(task, config)
        conclusion.conclude(workdir, began)
        if problem := multihost.on_writer(mirror.finish, what="uploading the workdir"):
            _leave(problem)
        coordination.finish()
    except resume.Stopped as stopped:
        console.say(str(stopped))
        if problem := multihost.on_writer(mirror.finish, what="uploading the workdir"):
            _leave(problem)
        coordination.finish()
    except config_lib.UsageError as error:
        _leave(str(error), 2)
    except SHARED_FAILURES as error:
        conclusion.conclude(workdir, began, message=str(error))
        _leave(str(error))
    except LONE_FAILURES as error:
        conclusion.conclude(workdir, began, message=str(error))
        _leave(str(error))
    except loop.NothingDoneError as error:
        _leave(str(error))


def _evaluate(task: Callable[[Any, pathlib.Path], None], config: Any) -> pathlib.Path:
    """Evaluates into a folder named after the checkpoint; of a run that goes on, the newest."""
    while True:
        workdir, pinned = result_folder.place(config)
        try:
            task(pinned, workdir)
            return workdir
        except step_folders.GoneError:
            if pinned.checkpoint == config.checkpoint:  # which was asked for, and no other
                raise


def _leave(message: str, status: int = 1, *, title: str = "Error: ") -> NoReturn:
    """Ends at once, without JAX's farewell between processes, to which not all would come.

    Taking the interpreter apart could crash in threads of XLA or Grain that still work.
    """
    streams.flush()
    streams.write(f"{title}{message}")
    if problem := mirror.finish():
        streams.write(f"Error: {problem}")
    coordination.fail(message)
    signals.leave("", status)


def start() -> None:
    """Runs what the flags say, which `startup.begin` has parsed, and ends the process."""
    try:
        app.run(main, argv=sys.argv[:1], flags_parser=lambda argv: argv)
    except SystemExit as end:
        signals.ignore()
        if not multihost.is_alone():
            raise
        signals.leave(*(("", end.code or 0) if isinstance(end.code, int | None) else (end.code, 1)))


if __name__ == "__main__":
    start()
