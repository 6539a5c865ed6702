"""The figure of a study: every cell here, and beside it what the paper has."""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import axes as axes_lib
from matplotlib import figure as figure_lib

from byol_jax.report import charts, figures, writing
from byol_jax.studies import results, study


def write(config: Any, cells: Sequence[results.Cell], path: pathlib.Path) -> pathlib.Path | None:
    """Draws the first metric of the study; None if no run has it.

    Args:
      config: of the study.
      cells: of `results.collect`.
      path: of the PNG.
    """
    metric = config.metrics[0]
    drawn = [cell for cell in cells if cell.levels]
    if not any(cell.values[metric] for cell in drawn):
        return None
    paper = {k: v for k, v in dict(config.paper).items() if isinstance(v, int | float)}
    with matplotlib.rc_context(figures.STYLE):
        panels = 2 if paper else 1
        height = 1.1 + 0.24 * len(drawn)
        figure = figure_lib.Figure(figsize=(3.4 * panels + 1.2, height), layout="constrained")
        panel, *others = np.atleast_1d(figure.subplots(1, panels, sharey=True))
        _draw_ours(panel, config, cells, drawn)
        for other in others:
            _draw_paper(other, config, drawn, paper)
    options = {"format": "png", "dpi": 110, "metadata": figures.METADATA["png"]}
    return writing.write(path, lambda part: figure.savefig(part, **options))


def _colors(config: Any, drawn: Sequence[results.Cell]) -> list[str]:
    """A color for each level of the first axis, if there are several axes."""
    levels = list(config.axes[0].levels)
    several = len(config.axes) > 1
    return [
        charts.COLORS[levels.index(cell.levels[0]) % len(charts.COLORS) if several else 0]
        for cell in drawn
    ]


def _draw_ours(
    panel: axes_lib.Axes,
    config: Any,
    cells: Sequence[results.Cell],
    drawn: Sequence[results.Cell],
) -> None:
    metric = config.metrics[0]
    factor = 100 if results.is_percent(metric) else 1
    for place, (cell, color) in enumerate(zip(drawn, _colors(config, drawn), strict=True)):
        values = factor * np.array(list(cell.values[metric].values()))
        if len(values):
            found = results.interval(values)
            std = found.std if len(values) > 1 else 0
            panel.errorbar(found.mean, place, xerr=std, color=color, marker="o", capsize=2)
            panel.plot(values, np.full(len(values), place), "|", color=color, markersize=7)
    for cell in cells:
        if cell.name == study.UNTRAINED and cell.values[metric]:
            mean = factor * results.interval(list(cell.values[metric].values())).mean
            panel.axvline(mean, color="0.5", linewidth=1, linestyle="--")
            panel.annotate(
                study.UNTRAINED,
                (mean, 1),
                xycoords=("data", "axes fraction"),
                xytext=(2, 2),
                textcoords="offset points",
                fontsize=7,
                color="0.4",
            )
    panel.set_yticks(range(len(drawn)), [cell.name for cell in drawn])
    panel.set_ylim(len(drawn) - 0.5, -0.5)
    panel.set_xlabel(f"{results.title(metric)}{', %' if factor == 100 else ''}, here")


def _draw_paper(
    panel: axes_lib.Axes, config: Any, drawn: Sequence[results.Cell], paper: dict[str, float]
) -> None:
    for place, (cell, color) in enumerate(zip(drawn, _colors(config, drawn), strict=True)):
        if cell.name in paper:
            panel.plot(paper[cell.name], place, "D", color=color, markerfacecolor="none")
    panel.set_xlabel(config.paper_title)
