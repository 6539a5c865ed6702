"""Reads the JSON files of a run, whatever they hold; what cannot be read becomes a note."""

import json
import pathlib
from typing import Any

from byol_jax.report import metric_curves

MOST_BYTES = 1 << 28  # of a file
MOST_SESSIONS = 1000  # the last


def read_json(path: pathlib.Path, notes: list[str]) -> dict[str, Any]:
    """A JSON object; what is no number (NaN, infinity) is None in it."""
    try:
        if not path.exists():
            return {}
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            notes.append(f"{path.name} is no file of a run")
            return {}
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=lambda _: None, parse_float=_read_float)
    except (OSError, ValueError, RecursionError) as error:
        reason = error if isinstance(error, OSError | ValueError) else "it is nested too deeply"
        notes.append(f"{path.name} cannot be read: {reason}")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{path.name} holds no JSON object")
        return {}
    return content


def _read_float(text: str) -> float | None:
    return metric_curves.number(float(text))


def read_sessions(path: pathlib.Path, notes: list[str]) -> list[dict[str, Any]]:
    """Starts and, unless it was killed, ends of a run; a line that is being written waits."""
    if not path.exists():
        return []
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise OSError(f"it is no file of at most {MOST_BYTES} bytes")
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return []
    rows = [_parse(line) for line in lines]
    broken = sum(
        row is None and bool(line.strip()) for row, line in zip(rows[:-1], lines, strict=False)
    )
    if broken:
        notes.append(f"{broken} lines of {path.name} cannot be read and are left out")
    rows = [row for row in rows if row is not None]
    return rows if len(rows) <= MOST_SESSIONS else [rows[0], *rows[-MOST_SESSIONS:]]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
