"""Means, intervals, tables, and what they decide."""

import csv
import math

import numpy as np
import pytest

from byol_jax.studies import grid, plots, results, study
from tests.studies import small

METRIC = study.LINEAR


def test_the_interval_of_a_mean_is_students():
    found = results.interval([0.70, 0.72, 0.77])
    assert found.mean == pytest.approx(0.73)
    assert found.std == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert found.half == pytest.approx(4.302653 * found.std / math.sqrt(3))  # t of 2 degrees
    one, none = results.interval([0.5]), results.interval([])
    assert one.mean == 0.5 and math.isinf(one.half) and none.count == 0


def cells(**values):
    """Cells with the values of their seeds."""
    return [
        results.Cell(name, (name,), {METRIC: dict(enumerate(v)), study.KNN: {}})
        for name, v in values.items()
    ]


WORDS = {
    "apart": ((0.70, 0.71, 0.72), (0.50, 0.51, 0.52), 0.0, results.HOLDS),
    "the other way round": ((0.50, 0.51, 0.52), (0.70, 0.71, 0.72), 0.0, results.FAILS),
    "overlapping": ((0.70, 0.75, 0.80), (0.69, 0.73, 0.74), 0.0, results.UNDECIDED),
    "noisy, but alike": ((0.5, 0.7, 0.9), (0.40, 0.61, 0.79), 0.0, results.HOLDS),
    "one seed": ((0.9,), (0.1,), 0.0, results.UNDECIDED),
    "not by so much": ((0.70, 0.71, 0.72), (0.50, 0.51, 0.52), 0.3, results.FAILS),
    "at most so much below": ((0.70, 0.70, 0.71), (0.71, 0.71, 0.72), -0.05, results.HOLDS),
}


@pytest.mark.parametrize("a, b, margin, word", WORDS.values(), ids=WORDS)
def test_a_finding_is_decided_by_the_interval_of_the_differences_seed_by_seed(a, b, margin, word):
    config = small.make(findings=(study.Finding("a beats b", "1.0", "0.5", margin),))
    (verdict,) = results.decide(config, cells(**{"1.0": a, "0.5": b}))
    assert verdict.word == word
    assert results.describe(verdict).startswith(f"a beats b: {word} (")


def test_what_is_lost_between_cells_is_compared_seed_by_seed():
    loss = {"a": 1, "b": -1}
    finding = study.Finding("more is lost", loss, {"c": 1, "d": -1})
    config = small.make()
    config.findings = (finding,)
    values = {"a": (0.9, 0.8), "b": (0.4, 0.3), "c": (0.9, 0.8), "d": (0.8, 0.7)}
    (verdict,) = results.decide(config, cells(**values))
    assert verdict.greater.mean == pytest.approx(0.5) and verdict.greater.std < 1e-12
    assert verdict.word == results.HOLDS
    (verdict,) = results.decide(config, cells(**(values | {"b": (0.4,)})))
    assert verdict.greater.count == 1 and verdict.word == results.UNDECIDED


def test_a_finding_may_be_about_another_metric():
    config = small.make(findings=(study.Finding("x", "1.0", "0.5", metric=study.KNN),))
    some = [
        results.Cell(name, (name,), {METRIC: {0: 0.1, 1: 0.1}, study.KNN: {0: value, 1: value}})
        for name, value in (("1.0", 0.9), ("0.5", 0.3))
    ]
    (verdict,) = results.decide(config, some)
    assert verdict.word == results.HOLDS
    assert results.describe(verdict) == (
        "x: holds (90.0 ± 0.0 against 30.0 ± 0.0; difference 60.0 to 60.0)"
    )


def finish(folder, *, last, first=0.2, steps=4):
    """Files of a run that is over, or that has come to a step."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"total_steps": 4}')
    (folder / "data.json").write_text('{"num_images": 10}')
    rows = [(0, first), (steps, last)]
    (folder / "metrics.jsonl").write_text(
        "".join(
            f'{{"step": {step}, "probe/feature_std": 1.0, "{METRIC}": {value}, '
            f'"{study.KNN}": {value}}}\n'
            for step, value in rows
        )
    )


def test_only_finished_runs_count_and_the_first_probe_is_the_untrained_networks(tmp_path):
    config = small.make(paper={"0.5": 72.5}, findings=(study.Finding("x", "0.5", "1.0"),))
    runs = grid.make_runs(config)
    folders = {run.name: tmp_path / run.name for run in runs}
    finish(folders["0.5-seed0"], last=0.6)
    finish(folders["0.5-seed1"], last=0.7, first=0.3)
    finish(folders["1.0-seed0"], last=0.9, steps=3)  # of 4
    start, one, half = results.collect(config, runs, folders)
    assert start.name == study.UNTRAINED and start.values[METRIC] == {0: 0.2, 1: 0.3}
    assert one.values[METRIC] == {} and half.values[METRIC] == {0: 0.6, 1: 0.7}
    assert results.fraction_done(folders["1.0-seed0"]) == 0.75
    text = results.markdown(results.table(config, [start, one, half]))
    assert text.splitlines()[2:] == [
        "| untrained network | 25.0 ± 7.1 | 25.0 ± 7.1 |  |",
        "| 1.0 | - | - |  |",
        "| 0.5 | 65.0 ± 7.1 | 65.0 ± 7.1 | 72.5 |",
    ]
    csv_path, text_path = results.write(config, tmp_path / "out", [start, one, half])
    rows = list(csv.DictReader(csv_path.open()))
    assert rows[2]["tau"] == "0.5" and rows[2]["paper"] == "72.5"
    assert float(rows[2][f"{METRIC} mean"]) == pytest.approx(0.65)
    assert float(rows[2][f"{METRIC} std"]) == pytest.approx(np.std([0.6, 0.7], ddof=1), abs=1e-6)
    assert rows[1][f"{METRIC} mean"] == "" and "undecided" in text_path.read_text()
    picture = plots.write(config, [start, one, half], tmp_path / "plot.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_a_result_nothing_is_drawn(tmp_path):
    config = small.make()
    empty = [results.Cell("1.0", ("1.0",), {METRIC: {}, study.KNN: {}})]
    assert plots.write(config, empty, tmp_path / "plot.png") is None
