"""Every row of docs/ablations.md is a config that can be run."""

import re

import pytest

from byol_jax.cli import config_files, overrides
from byol_jax.training import build, config_checks, objective_setup, settings
from byol_jax.workdir import run_folder
from configs import byol
from tests.support import documents

PAGE = (documents.ROOT / "docs" / "ablations.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and "--config." in line]
CARD = run_folder.DataCard(640, 10, "", (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_a_row_is_a_config_of_which_every_key_counts(row):
    typed = dict(re.findall(r"--config\.([\w.]+)=([^\s`]+)", row))
    assert len(typed) == row.count("--config.")
    config = byol.get_config("patterns")
    kinds = config_files.kinds(config)
    values = {key: READ.get(kinds[key], kinds[key])(text) for key, text in typed.items()}
    config.batch_size = 4096
    overrides.settle(config, values)
    config_checks.check(config)
    found = settings.resolve(config, num_images=8192)
    objective_setup.make_objective(found.objective, predictor_head=found.model.predictor)
    build.make_train_forward(found, CARD, axis=None)
    build.make_optimizer(found)
    build.make_views(found.augment, image_size=32)


READ = {bool: lambda text: text == "true"}


def test_table_18_and_table_19_are_there_as_a_whole():
    of_bridge = [row for row in ROWS if "objective.infonce.weight=" in row]
    assert len(of_bridge) == 18 + 13
    cells = [re.sub(r".*`(.*)`.*", r"\1", row) for row in of_bridge]
    assert len(set(cells)) == 18 + 12  # the paper lists one row twice


def test_there_are_rows_of_all_tables():
    assert len(ROWS) > 50
