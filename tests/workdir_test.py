"""The folder of a run: config, metrics, and what a kill may leave behind."""

import errno
import json
import os

import numpy as np
import pytest
from ml_collections import ConfigDict

from byol_jax import workdir

CONFIG = ConfigDict({"seed": 0, "data": {"name": "patterns"}, "accept_changes": False})
CARD = workdir.DataCard(1000, 10, "c0ffee", (0.5, 0.25, 0.125), (0.2, 0.1, 0.05))


def test_the_config_is_stored_and_the_same_one_may_come_back(tmp_path):
    folder = tmp_path / "new" / "run"
    workdir.open_workdir(folder, CONFIG, CARD)
    workdir.open_workdir(folder, CONFIG, CARD)
    assert json.loads((folder / "config.json").read_text()) == CONFIG.to_dict()


def test_another_config_is_refused_and_the_differences_are_named(tmp_path):
    workdir.open_workdir(tmp_path, CONFIG, CARD)
    before = (tmp_path / "config.json").read_bytes()
    other = ConfigDict({"seed": 1, "data": {"name": "patterns"}, "accept_changes": False})
    with pytest.raises(workdir.UsageError, match="seed: 0 -> 1"):
        workdir.open_workdir(tmp_path, other, CARD)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(workdir.UsageError, match="Cannot write to the workdir .*file/run"):
        workdir.open_workdir(tmp_path / "file" / "run", CONFIG, CARD)


def test_a_file_called_lock_that_is_none_is_left_alone(tmp_path):
    (tmp_path / "lock").write_bytes(b"\xff combination: 1234")
    with pytest.raises(workdir.UsageError, match="lock is no lock of a run"):
        with workdir.lock(tmp_path):
            raise AssertionError("it was taken")
    assert (tmp_path / "lock").read_bytes() == b"\xff combination: 1234"
    (tmp_path / "lock").write_text("process 1 on a machine that is gone\n")
    with workdir.lock(tmp_path):
        assert (tmp_path / "lock").read_text().startswith("process ")


def test_what_was_found_out_about_the_data_comes_back_as_it_was(tmp_path):
    assert workdir.read_data_card(tmp_path) is None
    workdir.open_workdir(tmp_path, CONFIG, CARD)
    assert workdir.read_data_card(tmp_path) == CARD
    unlabelled = CARD._replace(num_classes=0, fingerprint="")
    workdir.open_workdir(tmp_path, CONFIG, unlabelled)
    assert workdir.read_data_card(tmp_path) == unlabelled


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"num_images": 3}', '{"images": 3}'])
def test_a_data_card_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(workdir.UsageError, match="Cannot read .*data.json"):
        workdir.read_data_card(tmp_path)


def changeable(**values):
    return ConfigDict(
        {
            "accept_changes": False,
            "checkpoint_every_steps": 5,
            "keep_checkpoints": 3,
            "log_every_steps": 1,
            "seed": 0,
            "data": {"dir": "here", "max_bad_share": 0.01, "threads": 0, "workers": 0},
        }
        | values
    )


def test_what_does_not_change_the_learning_may_differ_when_a_run_goes_on(tmp_path):
    workdir.open_workdir(tmp_path, changeable(), CARD)
    other = changeable(
        checkpoint_every_steps=7,
        keep_checkpoints=1,
        log_every_steps=10,
        data={"dir": "there", "max_bad_share": 0.5, "threads": 3, "workers": 0},
    )
    workdir.open_workdir(tmp_path, other, CARD)
    assert json.loads((tmp_path / "config.json").read_text()) == other.to_dict()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"data": {"dir": "there", "max_bad_share": 0.5, "threads": 1, "workers": 2}}, "workers"),
        ({"extra": 3}, "extra: .absent. -> 3"),
    ],
)
def test_all_else_may_not_differ_and_is_listed_alone(tmp_path, values, message):
    workdir.open_workdir(tmp_path, changeable(), CARD)
    other = changeable()
    with other.unlocked():
        other.update(values)
    with pytest.raises(workdir.UsageError, match=message) as error:
        workdir.open_workdir(tmp_path, other, CARD)
    assert str(error.value).count("->") == 1
    assert json.loads((tmp_path / "config.json").read_text()) == changeable().to_dict()


def bad_images(folder):
    return (folder / "bad_images.txt").read_text(encoding="utf-8").splitlines()


def test_bad_images_are_listed_once(tmp_path):
    workdir.note_bad_images(tmp_path, {"a.png": "empty file", "b.png": "truncated"})
    workdir.note_bad_images(tmp_path, {"a.png": "empty file", "c.png": "too small"})
    workdir.note_bad_images(tmp_path, {})
    expected = ["a.png\tempty file", "b.png\ttruncated", "c.png\ttoo small"]
    assert bad_images(tmp_path) == expected


@pytest.mark.parametrize("name", ["caf\udce9.png", "caf\u00e9.png", "line\nbreak.png"])
def test_bad_images_with_unusual_names_are_listed_once_and_in_one_line(tmp_path, name):
    for _ in range(2):
        workdir.note_bad_images(tmp_path, {name: "empty\nfile"})
    (line,) = bad_images(tmp_path)
    assert line.endswith(".png\tempty file")


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


def test_tensorboard_gets_the_scalars_and_the_pictures(tmp_path):
    logger = workdir.Logger(tmp_path)
    logger.write(1, {"train/loss": 1.0})
    logger.write_image(1, "pairs", np.zeros((8, 8, 3), np.uint8))
    logger.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert all(words in events.read_bytes() for words in (b"train/loss", b"pairs", b"\x89PNG"))


def test_a_full_disk_is_named_when_a_folder_is_locked(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(workdir.UsageError, match="Cannot write to .*lock: No space left on device"):
        with workdir.lock(tmp_path):
            raise AssertionError("it was taken")
