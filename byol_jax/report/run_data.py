"""Reads what runs have left in their folders, whatever state it is in; writes nothing.

Nothing of the package is imported: a report can be made wherever the files are.
"""

import datetime
import functools
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from byol_jax.report import collapse_rule, json_files, markup, metric_curves, run_state
from byol_jax.report.metric_curves import Metrics, Point, Series

GALLERIES = (
    *("pairs", "neighbours", "atlas", "classes", "predictions", "mistakes"),
    *("duplicates", "label_errors", "outliers", "clusters", "subset", "search"),
)
BASELINES = ("random", "pixels")  # weights that an encoder has to beat


class ReportError(ValueError):
    """There is nothing to report on; the text says where and what would help."""


class Run(NamedTuple):
    """What is known of one run; every part but the path may be empty.

    Attributes:
      name: short, and its own among the runs of one report.
      path: its folder.
      config: ``config.json``, nested.
      data: ``data.json``.
      metrics: ``metrics.jsonl``.
      result: ``result.json``.
      sessions: ``sessions.jsonl``: when it was started and how it ended, each time.
      gallery: by name, those of `GALLERIES` that are there.
      notes: what could not be read, in words.
      changed: when a file of the run was last written, in seconds since 1970.
      life: whether a process is at work on it, one of `report_life`'s.
      beside: of an evaluation, results of the same one for `BASELINES`, in folders beside it.
    """

    name: str
    path: pathlib.Path
    config: dict[str, Any]
    data: dict[str, Any]
    metrics: Metrics
    result: dict[str, Any]
    sessions: list[dict[str, Any]]
    gallery: dict[str, dict[str, Any]]
    notes: list[str]
    changed: float
    life: str = run_state.UNKNOWN
    beside: Mapping[str, dict[str, Any]] = types.MappingProxyType({})


def load_runs(
    paths: Sequence[str],
    *,
    is_whole: bool = False,
    known: Sequence[Metrics | None] = (),
) -> list[Run]:
    """Reads runs and gives them names of their own.

    Args:
      paths: workdirs.
      is_whole: keep every point of every curve.
      known: metrics of the same runs as they were read before, to be gone on with.

    Raises:
      ReportError: a folder is missing, or is not that of a run.
    """
    folders = [pathlib.Path(path).expanduser() for path in paths]
    known = known or [None] * len(folders)
    return [
        load_run(folder, name, is_whole=is_whole, known=metrics)
        for folder, name, metrics in zip(folders, _names(folders), known, strict=True)
    ]


def load_run(
    folder: pathlib.Path, name: str, *, is_whole: bool = False, known: Metrics | None = None
) -> Run:
    """Reads one run; arguments as of `load_runs`.

    Raises:
      ReportError: the folder is missing, or is not that of a run.
    """
    if not folder.is_dir():
        raise ReportError(
            f"There is no folder {folder}. Give the workdir of a run: the folder that holds "
            f"metrics.jsonl or result.json.{_nearby(folder)}"
        )
    notes: list[str] = []
    config, data, result = (
        json_files.read_json(folder / f"{part}.json", notes)
        for part in ("config", "data", "result")
    )
    config = config or section(result, "config")
    metrics = _read_metrics(folder / "metrics.jsonl", config, is_whole, known, notes)
    if not (metrics.num_rows or config or result):
        reason = f" {' '.join(notes)}." if notes else ""
        raise ReportError(
            f"{folder} is not the folder of a run: it has no metrics.jsonl, config.json or "
            f"result.json that can be read.{reason}{_nearby(folder / 'x') or _nearby(folder)}"
        )
    gallery = {
        part: json_files.read_json(folder / "gallery" / f"{part}.json", notes) for part in GALLERIES
    }
    return Run(
        name,
        folder,
        config,
        data,
        metrics,
        result,
        json_files.read_sessions(folder / "sessions.jsonl", notes),
        {part: content for part, content in gallery.items() if content},
        notes,
        max(changes(folder), default=0.0),
        run_state.state(folder),
        _baselines(folder, result),
    )


def _baselines(folder: pathlib.Path, result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Results of baselines, of the same task with the same config but for ``weights``."""
    config = section(result, "config")
    if config.get("weights") != "checkpoint" or not isinstance(config.get("task"), str):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for weights in BASELINES:
        for path in sorted(folder.absolute().parent.glob(f"*{weights}*/result.json")):
            other = json_files.read_json(path, [])
            if section(other, "config") == config | {"weights": weights}:
                found[weights] = other
                break
    return found


def _read_metrics(
    path: pathlib.Path,
    config: Mapping[str, Any],
    is_whole: bool,
    known: Metrics | None,
    notes: list[str],
) -> Metrics:
    bounds = collapse_rule.limits(config)
    if known is None or known.watcher.bounds != bounds:
        make_judge = functools.partial(collapse_rule.Judge, bounds)
        known = Metrics(path, is_whole=is_whole, make_watcher=make_judge)
    metrics = known.update()
    if path.exists() and not path.is_file():
        notes.append(f"{path.name} is no file")
    if metrics.num_rows and not path.with_name("config.json").exists():
        notes.append("config.json is missing")
    if metrics.broken:
        notes.append(f"{metrics.broken} lines of {path.name} cannot be read and are left out")
    if metrics.has_too_many:
        most = metric_curves.MOST_KEYS
        notes.append(f"{path.name} has more than {most} metrics, the others are left out")
    return metrics


def changes(folder: pathlib.Path) -> list[float]:
    """When each of the files that a report is made of was last written."""
    names = ["config.json", "data.json", "metrics.jsonl", "result.json", "sessions.jsonl"]
    names += [f"gallery/{part}.json" for part in GALLERIES]
    times = []
    for name in names:
        try:
            times.append((folder / name).stat().st_mtime)
        except OSError:
            continue
    return times


def _nearby(folder: pathlib.Path) -> str:
    """Names runs beside a folder that is none."""
    try:
        found = sorted(path.parent for path in folder.parent.glob("*/metrics.jsonl"))
    except OSError:
        return ""
    return f" Runs near it: {', '.join(map(str, found[:5]))}." if found else ""


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
    """The last part of each path; of those that share it, as many more as tell them apart."""
    parts = [folder.absolute().parts for folder in folders]
    for depth in range(1, 1 + max(map(len, parts), default=0)):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{folder} ({number})" for number, folder in enumerate(folders, 1)]


def section(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A part of a JSON object, empty if it is no object."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dictionary with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


printable = markup.printable


def series(run: Run, key: str) -> Series | None:
    """One metric; None if it has never been logged."""
    return run.metrics.series.get(key)


def points(run: Run, key: str) -> list[Point]:
    """Steps and values of one metric, as many as are kept; None for what is not a number."""
    found = series(run, key)
    return found.points() if found else []


def first_and_last(run: Run, key: str) -> tuple[Point, Point] | None:
    """The first and the last finite value of a metric with their steps; None if there is none."""
    found = series(run, key)
    if found is None or found.first_finite is None or found.last_finite is None:
        return None
    return found.first_finite, found.last_finite


def last_step(run: Run) -> int:
    """Of the newest line of metrics; 0 if there is none."""
    return run.metrics.last_step


def total_steps(run: Run) -> int | None:
    """How long the run was to be, if that can be known."""
    steps, epochs, size = (
        metric_curves.number(run.config.get(key))
        for key in ("total_steps", "total_epochs", "batch_size")
    )
    if steps:
        return int(steps)
    images = metric_curves.number(run.data.get("num_images"))
    if epochs and size and images:
        return int(epochs * images // size)
    return None


def end(run: Run) -> dict[str, Any]:
    """How the last session ended; empty if it did not say (still going on, or killed)."""
    last = run.sessions[-1] if run.sessions else {}
    return last if last.get("event") == "end" else {}


def start(run: Run) -> dict[str, Any]:
    """The last session's command, machine and versions; empty if nobody noted them."""
    return next((row for row in reversed(run.sessions) if "command" in row), {})


def started(run: Run) -> Any:
    """When the first session began; None if nobody noted it."""
    return next((row.get("time") for row in run.sessions if row.get("event") == "start"), None)


def seconds(run: Run) -> float | None:
    """Time of all sessions that ended properly; of an evaluation, what its result says."""
    ends = [metric_curves.number(row.get("seconds")) for row in run.sessions]
    ends = [found for found in ends if found is not None]
    return sum(ends) if ends else metric_curves.number(run.result.get("seconds"))


def is_pretraining(run: Run) -> bool:
    """Whether the run is one that has steps to go through."""
    return run.config.get("task") == "pretrain" or (bool(run.metrics.num_rows) and not run.result)


def now() -> float:
    """Seconds since 1970."""
    return datetime.datetime.now(datetime.UTC).timestamp()
