"""Reads what runs have left in their folders, whatever state it is in; writes nothing.

Nothing of the package is imported: a report can be made wherever the files are.
"""

import datetime
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

GALLERIES = ("pairs", "neighbours", "atlas", "classes")
QUIET_SECONDS = 180  # without a line of metrics, after which a run no longer counts as going on

Point = tuple[int, float | None]


class ReportError(ValueError):
    """There is nothing to report on; the text says where and what would help."""


class Run(NamedTuple):
    """What is known of one run; every part but the path may be empty.

    Attributes:
      name: short, and its own among the runs of one report.
      path: its folder.
      config: ``config.json``, nested.
      data: ``data.json``.
      rows: ``metrics.jsonl``, in the order of steps.
      result: ``result.json``.
      sessions: ``sessions.jsonl``: when it was started and how it ended, each time.
      gallery: by name, those of `GALLERIES` that are there.
      notes: what could not be read, in words.
      changed: when a file of the run was last written, in seconds since 1970.
    """

    name: str
    path: pathlib.Path
    config: dict[str, Any]
    data: dict[str, Any]
    rows: list[dict[str, Any]]
    result: dict[str, Any]
    sessions: list[dict[str, Any]]
    gallery: dict[str, dict[str, Any]]
    notes: list[str]
    changed: float


def load_runs(paths: Sequence[str]) -> list[Run]:
    """Reads runs and gives them names of their own.

    Raises:
      ReportError: a folder is missing, or is not that of a run.
    """
    folders = [pathlib.Path(path).expanduser() for path in paths]
    return [load_run(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def load_run(folder: pathlib.Path, name: str) -> Run:
    """Reads one run.

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
        _read_json(folder / f"{part}.json", notes) for part in ("config", "data", "result")
    )
    rows = sorted(_read_lines(folder / "metrics.jsonl", notes), key=lambda row: row["step"])
    if not (rows or config or result):
        raise ReportError(
            f"{folder} is not the folder of a run: it has no metrics.jsonl, config.json or "
            f"result.json.{_nearby(folder / 'x') or _nearby(folder)}"
        )
    gallery = {part: _read_json(folder / "gallery" / f"{part}.json", notes) for part in GALLERIES}
    sessions = _read_sessions(folder / "sessions.jsonl")
    return Run(
        name,
        folder,
        config or _section(result, "config"),
        data,
        rows,
        result,
        sessions,
        {part: content for part, content in gallery.items() if content},
        notes,
        max(changes(folder), default=0.0),
    )


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


def _section(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _read_json(path: pathlib.Path, notes: list[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{path.name} holds no JSON object")
        return {}
    return content


def _read_lines(path: pathlib.Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Whole lines with a step; a last one that is being written is left out without a word."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return
    broken = 0
    for number, line in enumerate(lines):
        row = _parse(line)
        if row is not None and isinstance(row.get("step"), int):
            yield row
        elif line.strip() and number < len(lines) - 1:
            broken += 1
    if broken:
        notes.append(f"{broken} lines of {path.name} cannot be read and are left out")


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _read_sessions(path: pathlib.Path) -> list[dict[str, Any]]:
    """Starts and, unless it was killed, ends of a run."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    return [row for row in map(_parse, lines) if row is not None]


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dictionary with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def printable(value: Any) -> str:
    """As text that any file takes: bytes of a file name that are no UTF-8 become escapes."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def points(run: Run, key: str) -> list[Point]:
    """Steps and values of one metric; None for what is not a number (NaN, infinity, null)."""
    found = [(row["step"], _number(row[key])) for row in run.rows if key in row]
    return list(dict(found).items())  # of a step that was logged twice, the later


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_number else None


def first_and_last(run: Run, key: str) -> tuple[Point, Point] | None:
    """The first and the last finite value of a metric with their steps; None if there is none."""
    finite = [point for point in points(run, key) if point[1] is not None]
    return (finite[0], finite[-1]) if finite else None


def last_step(run: Run) -> int:
    """Of the newest line of metrics; 0 if there is none."""
    return run.rows[-1]["step"] if run.rows else 0


def total_steps(run: Run) -> int | None:
    """How long the run was to be, if that can be known."""
    config = run.config
    if isinstance(config.get("total_steps"), int):
        return config["total_steps"]
    epochs, size = config.get("total_epochs"), config.get("batch_size")
    images = run.data.get("num_images")
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
    ends = [row["seconds"] for row in run.sessions if _number(row.get("seconds")) is not None]
    return sum(ends) if ends else _number(run.result.get("seconds"))


def is_pretraining(run: Run) -> bool:
    """Whether the run is one that has steps to go through."""
    return run.config.get("task") == "pretrain" or (bool(run.rows) and not run.result)


def now() -> float:
    """Seconds since 1970."""
    return datetime.datetime.now(datetime.UTC).timestamp()
