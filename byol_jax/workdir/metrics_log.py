"""``metrics.jsonl`` of a run, one JSON object a line: reads it and cuts it where a run goes on.

After weeks it has hundreds of thousands of lines: they are read one by one, those that matter at
its end from there, and the file is never written again.
"""

import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from byol_jax.workdir import files

NAME = "metrics.jsonl"
_BLOCK = 1 << 20
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_STEP = re.compile(rb'\{"step": (\d+)[,}]')  # how every line begins that was written by us


def rows(workdir: pathlib.Path, *, having: str = "") -> Iterator[dict[str, Any]]:
    """The lines that can be read, in their order; one that was cut off by a kill is left out.

    Args:
      workdir: of the run.
      having: only lines with this key.
    """
    path = workdir / NAME
    if not path.exists():
        return
    key = f'"{having}"'.encode() if having else b""
    with files.open_regular(path) as file:
        for line in file:
            row = parse(line) if key in line else None
            if row is not None:
                yield row


def last_row(workdir: pathlib.Path, *, having: str = "") -> dict[str, Any] | None:
    """The last line that can be read and has a key; None if there is none."""
    key = f'"{having}"'.encode() if having else b""
    parsed = (parse(line) for _, line in _from_the_end(workdir / NAME) if key in line)
    return next((row for row in parsed if row is not None), None)


def parse(line: bytes) -> dict[str, Any] | None:
    """A line of metrics; None for what is none."""
    try:
        row = json.loads(line)
    except ValueError:  # also of bytes that are no UTF-8
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def cut(workdir: pathlib.Path, step: int) -> list[str]:
    """Drops from the end what was logged after a step, since these steps run again.

    The last line may have been cut off by a kill, and goes too. Damaged lines stay where they
    are; those among what is dropped are kept in a file of their own.

    Returns:
      Lines of text on what is damaged, and where it is.
    """
    path = workdir / NAME
    if not path.exists():
        return []
    notes = []
    end, damaged = _find_end(path, step)
    if damaged:
        aside = unused(workdir / "metrics-dropped.jsonl")
        with files.open_regular(path) as file:
            file.seek(end)
            aside.write_bytes(file.read())
        notes.append(f"damaged lines at the end of {path} are now in {aside}")
    with path.open("r+b") as file:
        if end != file.seek(0, os.SEEK_END):
            file.truncate(end)
        if end and not _ends_in_newline(file, end):
            file.write(b"\n")
        os.fsync(file.fileno())
    numbers = _damaged_lines(path)
    if numbers:
        listed = ", ".join(f"{number:,}" for number in numbers[:3])
        more = ", ..." if len(numbers) > 3 else ""
        notes.append(
            f"what is read from {path} leaves out damaged lines, {len(numbers):,} in all: line "
            f"{listed}{more}"
        )
    return notes


def unused(path: pathlib.Path) -> pathlib.Path:
    """The path with the first number before its ending by which nothing is there yet."""
    number = 1
    while (found := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return found


def _find_end(path: pathlib.Path, step: int) -> tuple[int, bool]:
    """Where what stays ends, and whether there are damaged lines behind it."""
    damaged = False
    for start, line in _from_the_end(path):
        begins = _STEP.match(line)
        is_last = not line.endswith(b"\n")
        if begins and int(begins[1]) <= step and not (is_last and parse(line) is None):
            return start + len(line), damaged
        damaged |= begins is None and not is_last and line.strip() != b""
    return 0, damaged


def _from_the_end(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their newlines and where each begins, the last one first."""
    if not path.exists():
        return
    with files.open_regular(path) as file:
        start = file.seek(0, os.SEEK_END)
        rest = b""
        while start > 0:
            size = min(_BLOCK, start)
            start -= size
            file.seek(start)
            lines = _LINE.findall(file.read(size) + rest)
            rest = lines[0]
            place = start + sum(map(len, lines))
            for line in reversed(lines[1:]):
                place -= len(line)
                yield place, line
        if rest:
            yield 0, rest


def _ends_in_newline(file: Any, end: int) -> bool:
    file.seek(end - 1)
    return file.read(1) == b"\n"


def _damaged_lines(path: pathlib.Path) -> list[int]:
    """Numbers, from 1, of lines that cannot be read; only what looks odd is parsed."""
    with files.open_regular(path) as file:
        return [
            number
            for number, line in enumerate(file, 1)
            if not (line.isascii() and line.startswith(b'{"step": ') and line.endswith(b"}\n"))
            and parse(line) is None
        ]
