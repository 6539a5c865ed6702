"""Reads the metrics of a run once, from the first line to the last, into curves of bounded size."""

import json
import math
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

Point = tuple[int, float | None]

MOST_STRETCHES = 1024  # of a curve, each of which keeps its least and its greatest value
MOST_KEYS = 256
MOST_BYTES = 1 << 20  # of a line
BLOCK_BYTES = 1 << 22
FLUSH_ROWS = 4096
LARGEST_STEP = 2**53  # a whole number in JavaScript


class Series:
    """One metric: the points that are needed to draw it, and what is true of all of them.

    A curve that gets too long is kept in stretches of equally many points: of each the least, the
    greatest and the first missing value. No value is averaged or invented.

    Args:
      is_whole: keep every point.
    """

    def __init__(self, *, is_whole: bool = False):
        self._width = sys.maxsize if is_whole else 1
        self._stretches: list[list[Point]] = []
        self._open: list[Point] = []
        self.count = 0  # of all points
        self.first: Point | None = None
        self.last: Point | None = None
        self.first_finite: Point | None = None
        self.last_finite: Point | None = None
        self.missing = 0  # values that are no numbers
        self.first_missing: int | None = None  # step

    def extend(self, points: list[Point]) -> None:
        """Takes the next points in; a value of None is what is not a number."""
        if not points:
            return
        missing = [step for step, value in points if value is None]
        finite = [point for point in points if point[1] is not None] if missing else points
        self.count += len(points)
        self.first, self.last = self.first or points[0], points[-1]
        if missing:
            self.first_missing = missing[0] if self.first_missing is None else self.first_missing
            self.missing += len(missing)
        if finite:
            self.first_finite, self.last_finite = self.first_finite or finite[0], finite[-1]
        self._open += points
        while len(self._open) >= self._width:
            stretch, self._open = self._open[: self._width], self._open[self._width :]
            self._close(stretch)

    def _close(self, stretch: list[Point]) -> None:
        self._stretches.append(extremes(stretch))
        if len(self._stretches) >= 2 * MOST_STRETCHES:
            pairs = zip(self._stretches[::2], self._stretches[1::2], strict=True)
            self._stretches = [extremes(a + b) for a, b in pairs]
            self._width *= 2

    def points(self) -> list[Point]:
        """What is kept, in the order of steps, with the first and the last point of all."""
        kept = [point for stretch in self._stretches for point in stretch] + self._open
        if kept and kept[0] != self.first:
            kept.insert(0, self.first)
        if kept and kept[-1] != self.last:
            kept.append(self.last)
        return kept


def extremes(points: list[Point]) -> list[Point]:
    """The least, the greatest and the first missing value, in their order."""
    if len(points) < 2:
        return points
    finite = [point for point in points if point[1] is not None]
    chosen = []
    if finite:
        chosen = [min(finite, key=_value), max(finite, key=_value)]
    if len(finite) < len(points):
        chosen.append(next(point for point in points if point[1] is None))
    return sorted(set(chosen), key=_step)


def _value(point: Point) -> float | None:
    return point[1]


def _step(point: Point) -> int:
    return point[0]


def number(value: Any) -> float | None:
    """A finite number; None for everything else."""
    try:
        is_number = isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return None
    return float(value) if is_number else None


class Watcher:
    """Sees every line that has a step, in the order of steps."""

    def see(self, step: int, row: Mapping[str, Any]) -> None:
        """Takes a line in."""


class Metrics:
    """``metrics.jsonl`` as far as it has been read.

    Args:
      path: of the file.
      is_whole: keep every point.
      watchers: see every line too.
    """

    def __init__(self, path: pathlib.Path, *, is_whole: bool = False, make_watcher: Any = Watcher):
        self._path, self._is_whole, self._make_watcher = path, is_whole, make_watcher
        self._clear()

    def _clear(self) -> None:
        self.series: dict[str, Series] = {}
        self.watcher = self._make_watcher()
        self.last_step = 0
        self.num_rows = 0
        self.broken = 0  # lines that cannot be read
        self.has_too_many = False  # metrics, of which some are left out
        self._file_id: tuple[int, int] | None = None
        self._offset = 0
        self._is_sorted = True
        self._new: dict[str, list[Point]] = {}  # what the series have not taken yet
        self._num_new = 0
        self._keys_of_step: set[str] = set()

    def update(self) -> "Metrics":
        """Reads what has been added since the last time; from the start if the file is another."""
        try:
            status = self._path.stat()
            if not self._path.is_file():
                return self
        except OSError:
            self._clear()
            return self
        file_id = (status.st_dev, status.st_ino)
        if file_id != self._file_id or status.st_size < self._offset:
            self._clear()
            self._file_id = file_id
        was_sorted = self._is_sorted
        for row in self._new_rows():
            self._take(row)
        self._flush()
        if was_sorted and not self._is_sorted:
            self._read_unsorted()
        return self

    def _new_rows(self) -> Iterator[dict[str, Any]]:
        """Whole lines with a step; a last one that is being written waits for the next time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                rest = b""
                while block := file.read(BLOCK_BYTES):
                    *lines, rest = (rest + block).split(b"\n")
                    self._offset += len(block)
                    for line in lines:
                        yield from self._parse(line)
                    if len(rest) > MOST_BYTES:
                        self.broken, rest = self.broken + 1, b""
                row = parse_row(rest)
                if row is None:
                    self._offset -= len(rest)
                else:
                    yield row
        except OSError:
            return

    def _parse(self, line: bytes) -> Iterator[dict[str, Any]]:
        row = parse_row(line)
        if row is not None:
            yield row
        elif line.strip():
            self.broken += 1

    def _take(self, row: dict[str, Any]) -> None:
        step = row["step"]
        if self.num_rows and step < self.last_step:
            self._is_sorted = False
        if step != self.last_step:
            self._keys_of_step = set()
        self.num_rows += 1
        self.last_step = max(step, self.last_step)
        self.watcher.see(step, row)
        for key, value in row.items():
            if type(value) is not float or value - value != 0:
                if key == "step" or isinstance(value, str | dict | list | bool):
                    continue
                value = number(value)
            points = self._new.get(key)
            if points is None:
                if len(self._new) >= MOST_KEYS:
                    self.has_too_many = True
                    continue
                points = self._new[key] = []
            points.append((step, value))
        if not self._keys_of_step.isdisjoint(row.keys() - {"step"}):
            self._is_sorted = False  # logged twice: the later counts
        self._keys_of_step |= row.keys()
        self._num_new += 1
        if self._num_new >= FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        for key, points in self._new.items():
            if key not in self.series:
                self.series[key] = Series(is_whole=self._is_whole)
            self.series[key].extend(points)
            points.clear()
        self._num_new = 0

    def _read_unsorted(self) -> None:
        """Lines out of order, as two runs in one folder leave them; takes more memory."""
        rows: dict[int, dict[str, Any]] = {}
        broken, file_id = self.broken, self._file_id
        self._offset = 0
        for row in self._new_rows():
            rows[row["step"]] = rows.get(row["step"], {}) | row
        offset = self._offset
        self._clear()
        for step in sorted(rows):
            self._take(rows[step])
        self._flush()
        self.broken, self._file_id, self._offset = broken, file_id, offset


def parse_row(line: bytes) -> dict[str, Any] | None:
    """A line as a row with a step; None if it is none."""
    try:
        row = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    step = row.get("step")
    is_step = isinstance(step, int) and not isinstance(step, bool) and abs(step) < LARGEST_STEP
    return row if is_step else None
