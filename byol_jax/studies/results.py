"""What the runs of a study have measured: values, means, tables, and what they decide.

Shapes: S seeds.
"""

import csv
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from byol_jax.studies import grid, progress, study
from byol_jax.workdir import files, metrics_log

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
CONFIDENCE = 0.95
_TITLES = {
    "linear_top1": "linear",
    "knn_top1": "kNN",
    "feature_std": "feature std",
    "effective_rank": "effective rank",
}


class Cell(NamedTuple):
    """The runs of one cell.

    Attributes:
      name: of the cell.
      levels: of the axes; empty for the untrained network.
      values: by metric, values by seed.
    """

    name: str
    levels: tuple[str, ...]
    values: Mapping[str, Mapping[int, float]]


class Interval(NamedTuple):
    """The mean of some seeds.

    Attributes:
      mean: nan without a seed.
      std: standard deviation over seeds (n - 1); nan with fewer than two.
      half: half the width of the mean's 95 % interval, by Student's t; infinite then.
      count: S.
    """

    mean: float
    std: float
    half: float
    count: int


class Verdict(NamedTuple):
    """What the runs say of a finding: a word, the two values, and their difference seed by seed."""

    finding: study.Finding
    word: str
    greater: Interval
    lesser: Interval
    difference: Interval


def interval(values: Sequence[float]) -> Interval:
    """Mean [S] -> scalar, with its spread and its interval."""
    count = len(values)
    mean = float(np.mean(values)) if count else math.nan
    if count < 2:
        return Interval(mean, math.nan, math.inf, count)
    std = float(np.std(values, ddof=1))
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * std / math.sqrt(count)
    return Interval(mean, std, half, count)


def total_steps(workdir: pathlib.Path) -> int | None:
    """How long a run is to be; None before it has begun."""
    try:
        config = json.loads(files.read_bytes(workdir / "config.json"))
        data = json.loads(files.read_bytes(workdir / "data.json"))
        return config["total_steps"] or int(
            config["total_epochs"] * data["num_images"] // config["batch_size"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_finished(workdir: pathlib.Path) -> bool:
    """Whether a run has come to its end, and has been measured there."""
    last = metrics_log.last_row(workdir, having="probe/feature_std")
    return last is not None and last["step"] > 0 and last["step"] == total_steps(workdir)


def fraction_done(workdir: pathlib.Path) -> float:
    """The fraction of its steps that a run has logged."""
    last, total = metrics_log.last_row(workdir), total_steps(workdir)
    return last["step"] / total if last and total else 0.0


def collect(config: Any, runs: Sequence[grid.Run], folders: Mapping[str, pathlib.Path]) -> list:
    """The cells in their order, the untrained network first; only finished runs count.

    Args:
      config: of the study.
      runs: all of its runs.
      folders: workdir of each, by its name.
    """
    cells: dict[str, Cell] = {}
    start = Cell(study.UNTRAINED, (), {metric: {} for metric in config.metrics})
    for run in runs:
        cell = cells.setdefault(
            run.cell_name, Cell(run.cell_name, run.cell, {m: {} for m in config.metrics})
        )
        folder = folders[run.name]
        if is_finished(folder):
            for metric in config.metrics:
                _note(cell, metric, run.seed, metrics_log.last_row(folder, having=metric))
                first = next(metrics_log.rows(folder, having=metric), None)
                if first and first["step"] == 0:
                    _note(start, metric, run.seed, first)
    return [*([start] if any(start.values.values()) else []), *cells.values()]


def _note(cell: Cell, metric: str, seed: int, row: Mapping[str, Any] | None) -> None:
    value = row.get(metric) if row else None
    if isinstance(value, int | float):
        cell.values[metric].setdefault(seed, float(value))


def decide(config: Any, cells: Sequence[Cell]) -> list[Verdict]:
    """What the runs say of each finding.

    Runs of one seed begin with the same network and the same images, and are good or bad together:
    they are compared with each other, and the interval of the differences decides.
    """
    return [
        _decide(f if f.metric else f._replace(metric=config.metrics[0]), cells)
        for f in config.findings
    ]


def _decide(finding: study.Finding, cells: Sequence[Cell]) -> Verdict:
    values = {cell.name: cell.values[finding.metric] for cell in cells}
    sides = [grid.weights(side) for side in (finding.greater, finding.lesser)]
    columns = [values.get(name, {}) for side in sides for name in side]
    seeds = sorted(set.intersection(*(set(column) for column in columns)))
    greater, lesser = (
        np.array([sum(w * values[name][seed] for name, w in side.items()) for seed in seeds])
        for side in sides
    )
    difference = interval(greater - lesser)
    gap = difference.mean - finding.margin
    word = HOLDS if gap > difference.half else FAILS if -gap > difference.half else UNDECIDED
    return Verdict(finding, word, interval(greater), interval(lesser), difference)


def title(metric: str) -> str:
    """What a metric is called in a table."""
    name = metric.rpartition("/")[2]
    return _TITLES.get(name, name.replace("_", " "))


def is_percent(metric: str) -> bool:
    """Whether a metric is a fraction that people read in percent."""
    return metric.endswith(("_top1", "_top5"))


def spoken(found: Interval, metric: str) -> str:
    """A mean and its standard deviation, for people."""
    if not found.count:
        return "-"
    factor, digits = (100, 1) if is_percent(metric) else (1, 2)
    std = "" if math.isnan(found.std) else f" ± {factor * found.std:.{digits}f}"
    return f"{factor * found.mean:.{digits}f}{std}"


def table(
    config: Any,
    cells: Sequence[Cell],
    states: Mapping[str, progress.State] | None = None,
    runs: Sequence[grid.Run] = (),
) -> list[list[str]]:
    """Rows of words, the first one of titles.

    Args:
      config: of the study.
      cells: of `collect`.
      states: of the runs by name, if they are to be shown.
      runs: that they are of.
    """
    paper = dict(config.paper)
    titles = [axis.name for axis in config.axes] + [title(metric) for metric in config.metrics]
    rows = [[*titles, *([config.paper_title] if paper else []), *(["runs"] if states else [])]]
    for cell in cells:
        levels = list(cell.levels) or [cell.name, *[""] * (len(config.axes) - 1)]
        means = [
            spoken(interval(list(cell.values[metric].values())), metric)
            for metric in config.metrics
        ]
        known = [str(paper.get(cell.name, ""))] if paper else []
        marks = [_marks(cell, states, runs)] if states else []
        rows.append([*levels, *means, *known, *marks])
    return rows


_MARKS = {progress.DONE: "done", progress.WAITING: ".", progress.ELSEWHERE: "elsewhere"}


def _marks(cell: Cell, states: Mapping[str, progress.State], runs: Sequence[grid.Run]) -> str:
    of_cell = [states.get(run.name) for run in runs if run.cell_name == cell.name]
    return " ".join(
        f"{100 * state.done:.0f}%"
        if state.kind == progress.RUNNING
        else _MARKS.get(state.kind, state.kind)
        for state in of_cell
        if state
    )


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table for a README."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def describe(verdict: Verdict) -> str:
    """A verdict in a line."""
    metric = verdict.finding.metric
    factor, digits = (100, 1) if is_percent(metric) else (1, 2)
    sides = " against ".join(spoken(side, metric) for side in (verdict.greater, verdict.lesser))
    difference, margin = verdict.difference, verdict.finding.margin * factor
    found = ""
    if difference.count > 1:
        low, high = (factor * (difference.mean + sign * difference.half) for sign in (-1, 1))
        found = f"; difference {low:.{digits}f} to {high:.{digits}f}"
    needed = f", {margin:+g} or more needed" if margin else ""
    return f"{verdict.finding.text}: {verdict.word} ({sides}{found}{needed})"


def write(config: Any, folder: pathlib.Path, cells: Sequence[Cell]) -> list[pathlib.Path]:
    """Writes ``results.csv``, a row for each cell, and ``results.md``; returns the files."""
    verdicts = decide(config, cells)
    lines = [f"- {describe(verdict)}" for verdict in verdicts]
    text = "\n\n".join([markdown(table(config, cells)), "\n".join(lines)]).strip() + "\n"
    paths = [folder / "results.csv", folder / "results.md"]
    for path, content in zip(paths, (_csv(config, cells), text), strict=True):
        files.write_text(path, content)
    return paths


def _csv(config: Any, cells: Sequence[Cell]) -> str:
    paper, text = dict(config.paper), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [
        f"{metric} {what}"
        for metric in config.metrics
        for what in ("mean", "std", *(f"seed {seed}" for seed in grid.seeds(config)))
    ]
    writer.writerow([*(axis.name for axis in config.axes), "paper", *columns])
    for cell in cells:
        levels = list(cell.levels) or [cell.name, *[""] * (len(config.axes) - 1)]
        row = [*levels, paper.get(cell.name, "")]
        for metric in config.metrics:
            by_seed = cell.values[metric]
            found = interval(list(by_seed.values()))
            numbers = [
                found.mean,
                found.std,
                *(by_seed.get(s, math.nan) for s in grid.seeds(config)),
            ]
            row += ["" if math.isnan(x) else f"{x:.6g}" for x in numbers]
        writer.writerow(row)
    return text.getvalue()
