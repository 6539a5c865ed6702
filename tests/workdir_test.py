"""The folder of a run: config, metrics, and what a kill may leave behind."""

import json

import pytest
from ml_collections import ConfigDict

from byol_jax import workdir

CONFIG = ConfigDict({"seed": 0, "data": {"name": "patterns"}})


def test_the_config_is_stored_and_the_same_one_may_come_back(tmp_path):
    folder = tmp_path / "new" / "run"
    workdir.open_workdir(folder, CONFIG)
    workdir.open_workdir(folder, CONFIG)
    assert json.loads((folder / "config.json").read_text()) == CONFIG.to_dict()


def test_another_config_is_refused_and_the_differences_are_named(tmp_path):
    workdir.open_workdir(tmp_path, CONFIG)
    before = (tmp_path / "config.json").read_bytes()
    other = ConfigDict({"seed": 1, "data": {"name": "patterns"}})
    with pytest.raises(workdir.UsageError, match="seed: 0 -> 1"):
        workdir.open_workdir(tmp_path, other)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(workdir.UsageError, match="Cannot write to the workdir .*file/run"):
        workdir.open_workdir(tmp_path / "file" / "run", CONFIG)


def test_a_resumed_log_drops_what_will_be_done_again_and_half_lines(tmp_path):
    first = workdir.Logger(tmp_path)
    for step in (0, 10, 20, 30):
        first.write(step, {"train/loss": step / 10})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "train/lo')
    second = workdir.Logger(tmp_path, first_step=20)
    second.write(25, {"train/loss": float("nan")})
    second.close()
    assert workdir.read_metrics(tmp_path) == [
        {"step": 0, "train/loss": 0},
        {"step": 10, "train/loss": 1},
        {"step": 20, "train/loss": 2},
        {"step": 25, "train/loss": None},
    ]


def test_tensorboard_gets_the_scalars(tmp_path):
    logger = workdir.Logger(tmp_path)
    logger.write(1, {"train/loss": 1.0})
    logger.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()
