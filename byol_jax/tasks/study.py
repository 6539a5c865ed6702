"""The task that runs a study: one run for each combination of settings and each seed."""

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from byol_jax import config as config_lib
from byol_jax.evaluation import resume
from byol_jax.studies import children, grid, plots, progress, results, runner
from byol_jax.workdir import console

UsageError = config_lib.UsageError


def run(config: Any, workdir: pathlib.Path) -> None:
    """Does what is left of the study, and writes ``results.csv``, ``results.md``, ``plot.png``.

    Raises:
      UsageError: a mistake in the study or in one of its runs; nothing is written.
      runner.RunsFailedError: some runs failed; those that did not are in the results.
      resume.Stopped: there was a signal; rerun the same command to resume.
    """
    everything = grid.make_runs(config)
    chosen = grid.select(everything, only=config.only, shard=config.shard)
    folder = runner.Folder(workdir)
    grid.check(chosen, folder.run)
    if config.dry_run:
        console.say(_plan(config, chosen, folder))
        return
    console.say(f"{config.question}\n{len(chosen)} of {len(everything)} runs, in {workdir}.")
    folders = {one.name: folder.run(one) for one in everything}

    def make_table(states: Mapping[str, progress.State]) -> str:
        cells = results.collect(config, everything, folders)
        return results.aligned(results.table(config, cells, states, everything))

    try:
        runner.Runner(config, chosen, folder, progress.Screen(make_table).show).run()
    except runner.Interrupted:
        raise resume.Stopped(
            "Interrupted. Its runs have saved: rerun the same command to resume."
        ) from None
    finally:
        _write(config, everything, folders, workdir)


def _plan(config: Any, runs: list[grid.Run], folder: runner.Folder) -> str:
    lines = []
    for one in runs:
        is_done = results.is_finished(folder.run(one))
        words = children.command(one, config.base, folder.run(one))
        lines.append(f"{one.name}{' (finished)' if is_done else ''}\n  {shlex.join(words)}")
    return "\n".join([*lines, f"{len(runs)} runs; nothing was started."])


def _write(
    config: Any,
    runs: list[grid.Run],
    folders: Mapping[str, pathlib.Path],
    workdir: pathlib.Path,
) -> None:
    """Writes and prints what is known so far, if anything is."""
    cells = results.collect(config, runs, folders)
    finished = [one for one in runs if results.is_finished(folders[one.name])]
    for metric in config.metrics if finished else ():
        if not any(cell.values[metric] for cell in cells):
            console.say(f"No run has logged {metric}: metrics.jsonl of a run has what there is.")
    if not any(cell.values[config.metrics[0]] for cell in cells):
        return
    written = results.write(config, workdir, cells)
    picture = plots.write(config, cells, workdir / "plot.png")
    lines = [results.aligned(results.table(config, cells)), ""]
    lines += [results.describe(verdict) for verdict in results.decide(config, cells)]
    console.say("\n" + "\n".join(lines))
    console.say(f"Written: {', '.join(map(str, [*written, *filter(None, [picture])]))}")
