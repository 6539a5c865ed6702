"""Every row of docs/ablations.md is a config that can be run."""

import re

import pytest

from byol_jax.cli import overrides
from byol_jax.training import build, config_checks, settings
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
    kinds = {bool: lambda text: text == "true", int: int, float: float, str: str}
    config = byol.get_config("patterns")
    values = {key: kinds[type(config_value(config, key))](text) for key, text in typed.items()}
    config.batch_size = 4096
    overrides.settle(config, values)
    config_checks.check(config)
    found = settings.resolve(config, num_images=8192)
    build.make_train_forward(found, CARD, axis=None)
    build.make_optimizer(found)
    build.make_views(found.augment, image_size=32)


def config_value(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def test_there_are_rows_of_all_tables():
    assert len(ROWS) > 50
