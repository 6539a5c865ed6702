"""The studies of this repository fit the program, and their results fit them."""

import csv
import pathlib

import pytest

from byol_jax.cli import config_files
from byol_jax.studies import grid, study

ROOT = pathlib.Path(__file__).parents[2]
FILES = [ROOT / "configs" / "study.py", *sorted((ROOT / "experiments").glob("*/study.py"))]


@pytest.mark.parametrize("file", FILES, ids=[path.parent.name for path in FILES])
def test_a_study_that_is_here_can_be_run_and_its_results_are_of_its_cells(file, monkeypatch):
    monkeypatch.chdir(ROOT)  # whence its base is named
    config = config_files.load(str(file))
    cells = {run.cell: None for run in grid.make_runs(config)}
    table = file.with_name("results.csv")
    if table.exists():
        titles, *rows = csv.reader(table.open())
        count = len(config.axes)
        assert titles[:count] == [axis.name for axis in config.axes]
        assert rows[0][0] == study.UNTRAINED
        assert [tuple(row[:count]) for row in rows[1:]] == list(cells)
    if file.parent.name != "configs":
        text = file.with_name("README.md").read_text()
        assert f"--config=experiments/{file.parent.name}/study.py" in text
        assert table.exists() or "Not run yet" in text
