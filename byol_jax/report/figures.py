"""The figures of a report one by one, for papers: PNG, SVG or PDF, each with its data as CSV."""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import artist, ticker
from matplotlib import figure as figure_lib

from byol_jax.report import charts as report_charts
from byol_jax.report import map_colors, pictures, run_data, spreadsheet, writing
from byol_jax.report.charts import COLORS, Chart
from byol_jax.report.run_data import ReportError, Run

STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7ec",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # names may have any characters
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
    "svg.hashsalt": "byol_jax",  # the same data make the same file
}
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "^")
DPI = 200
# Who wrote it, by which a later report knows it, and no date: the same data make the same file.
METADATA = {
    "png": {"Software": writing.NAME},
    "svg": {"Creator": writing.NAME, "Date": None},
    "pdf": {"Creator": writing.NAME, "CreationDate": None},
}
FEW = 12  # points, which are marked


def write(runs: Sequence[Run], folder: pathlib.Path, formats: Sequence[str]) -> list[pathlib.Path]:
    """Writes every figure in every format and its data; returns the files.

    Raises:
      ReportError: there is nothing to draw, or the folder cannot be written to, or holds files of
        the same names that are none of ours; none is written then.
    """
    charts = report_charts.charts_of(runs)
    maps = {_map_name(run, runs): run for run in runs if "atlas" in run.gallery}
    names = [*(chart.name for chart in charts), *maps]
    if not names:
        raise ReportError(f"{runs[0].path} has no metrics to plot.")
    endings = (*formats, "csv")
    writing.require_ours(*(folder / f"{name}.{end}" for name in names for end in endings))
    written = []
    with matplotlib.rc_context(STYLE):
        for chart in charts:
            written += _save(_draw(chart, runs), folder / chart.name, formats)
            written.append(_write_csv(folder / f"{chart.name}.csv", _curve_rows(chart, runs)))
        for name, run in maps.items():
            written += _write_map(run, folder / name, formats)
    return written


def _map_name(run: Run, runs: Sequence[Run]) -> str:
    return "map" if len(runs) == 1 else f"map_{_plain(run.name)}"


def _write_map(run: Run, path: pathlib.Path, formats: Sequence[str]) -> list[pathlib.Path]:
    try:
        if not pictures.is_sound_map(run.gallery["atlas"]):
            raise ValueError("its points, labels and names do not fit each other")
        figure = _draw_map(run.gallery["atlas"])
        table = _write_csv(path.with_suffix(".csv"), _map_rows(run))
    except ReportError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ReportError(f"{run.path / 'gallery/atlas.json'} is damaged: {error!r}.") from None
    return [*_save(figure, path, formats), table]


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)


def _save(
    figure: figure_lib.Figure, path: pathlib.Path, formats: Sequence[str]
) -> list[pathlib.Path]:
    return [_save_figure(figure, path.with_name(f"{path.name}.{kind}"), kind) for kind in formats]


def _save_figure(figure: figure_lib.Figure, path: pathlib.Path, kind: str) -> pathlib.Path:
    options = {"format": kind, "dpi": DPI, "bbox_inches": "tight", "metadata": METADATA[kind]}
    return writing.write(path, lambda part: figure.savefig(part, **options))


def _draw(chart: Chart, runs: Sequence[Run]) -> figure_lib.Figure:
    figure = figure_lib.Figure(figsize=(4.2, 2.8))
    axes = figure.subplots()
    for curve in _curves(chart, runs):
        look = {"color": curve.color, "linestyle": curve.line, "label": curve.name}
        steps = [step for step, _ in curve.points]
        values = [np.nan if value is None else value for _, value in curve.points]
        if curve.is_constant:
            axes.axhline(values[-1], **look, linewidth=1)
        else:
            marker = "o" if len(steps) <= FEW else ""
            look["linestyle"] = look["linestyle"] if len(steps) > 2 else ""  # two are no curve
            axes.plot(steps, values, **look, linewidth=1.4, marker=marker, markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel(chart.title)
    if chart.percent:
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    if chart.zero:
        axes.set_ylim(bottom=0)
    if len(axes.lines) > 1:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "ncols": 2}
        place = below if len(axes.lines) > 4 else {}  # many would hide the curves
        axes.legend(axes.lines, _names(axes.lines), fontsize=8, **place)
    return figure


def _names(artists: Sequence[artist.Artist]) -> list[str]:
    """Labels for a legend, which by itself leaves out those that begin with an underscore."""
    return [drawn.get_label() for drawn in artists]


class Curve(NamedTuple):
    """A line of a figure: its name, looks and points; a constant one is true of every step."""

    name: str
    color: str
    line: str
    points: list[run_data.Point]
    is_constant: bool


def _curves(chart: Chart, runs: Sequence[Run]) -> Iterator[Curve]:
    """All points of each: one run has colors by series, several by run."""
    for number, run in enumerate(runs):
        for series, (key, label) in enumerate(chart.series):
            points, is_constant = run_data.points(run, key), key in report_charts.CONSTANT
            if not points:
                continue
            name = label if len(runs) == 1 else f"{run.name}, {label}"
            name = run.name if len(runs) > 1 and len(chart.series) == 1 else name
            color = COLORS[(series if len(runs) == 1 else number) % len(COLORS)]
            line = LINES[series % len(LINES)] if len(runs) > 1 else LINES[is_constant]
            yield Curve(run_data.printable(name), color, line, points, is_constant)


def _curve_rows(chart: Chart, runs: Sequence[Run]) -> Iterator[list[object]]:
    """Every value, none left out."""
    yield ["run", "series", "metric", "step", "value"]
    for run in runs:
        for key, label in chart.series:
            for step, value in run_data.points(run, key):
                yield [run.name, label, key, step, "nan" if value is None else repr(value)]


def _draw_map(content: dict) -> figure_lib.Figure:
    spaces = [(when, title) for when, title in MAPS if when in content]
    figure = figure_lib.Figure(figsize=(3.6 * len(spaces), 3.9))
    labels, looks = np.array(content["labels"]), map_colors.choose(content)
    for axes, (when, title) in zip(
        figure.subplots(1, len(spaces), squeeze=False)[0], spaces, strict=True
    ):
        x, y = np.array(content[when])
        for c in np.unique(labels):
            name = run_data.printable(content["classes"][c]) if c >= 0 else "no label"
            color, shape = looks[c] if c >= 0 else (0, 0)
            marker, color = MARKERS[shape], COLORS[color]
            if c < 0 < len(np.unique(labels)) - 1:  # beside classes, which have all colors
                color = "0.75"
            of = labels == c
            axes.scatter(x[of], y[of], s=5, c=color, marker=marker, linewidths=0, label=name)
        axes.set_title(title.format(**content), fontsize=9)
        axes.set_axis_off()
    if 0 < len(content["classes"]) <= 20:
        drawn = axes.collections
        place = {"loc": "lower center", "ncols": 5}
        figure.legend(drawn, _names(drawn), **place, fontsize=7, markerscale=2)
    figure.subplots_adjust(bottom=0.16)
    return figure


MAPS = (("start", "before training"), ("now", "after step {step:,}"))


def _map_rows(run: Run) -> Iterator[list[object]]:
    content = run.gallery["atlas"]
    spaces = [when for when, _ in MAPS if when in content]
    yield ["name", "label", *(f"{when}_{axis}" for when in spaces for axis in "xy")]
    for i, (name, label) in enumerate(zip(content["names"], content["labels"], strict=True)):
        words = content["classes"][label] if label >= 0 else ""
        named = [spreadsheet.cell(str(text)) for text in (name, words)]
        yield [*named, *(content[when][axis][i] for when in spaces for axis in (0, 1))]


def _write_csv(path: pathlib.Path, rows: Iterator[list[object]]) -> pathlib.Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = text.getvalue().encode("utf-8", "backslashreplace")
    return writing.write(path, lambda part: part.write_bytes(data))


def write_grid(
    path: pathlib.Path, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]]
) -> None:
    """Writes rows of titled images as one PNG.

    Args:
      path: of the PNG.
      rows: (title, [(words, uint8 [H, W, 3])]).
    """
    columns = max(len(cells) for _, cells in rows)
    figure = figure_lib.Figure(figsize=(1.5 * columns + 1.4, 1.65 * len(rows)))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for (title, cells), line in zip(rows, grid, strict=True):
        for axes in line:
            axes.set_axis_off()
        line[0].text(-0.12, 0.5, title, transform=line[0].transAxes, ha="right", va="center")
        for (words, pixels), axes in zip(cells, line, strict=False):
            axes.imshow(pixels, interpolation="nearest")
            axes.set_title(run_data.printable(words), fontsize=8, pad=3, parse_math=False)
    options = {"format": "png", "dpi": 110, "bbox_inches": "tight"}
    figure.savefig(path, **options, metadata=METADATA["png"])
