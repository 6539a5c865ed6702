"""The folder of a run: config, metrics, and what a kill may leave behind."""

import errno
import json
import os

import numpy as np
import pytest

from byol_jax.training import run_files
from byol_jax.workdir import metric_writer, metrics_log, run_folder
from tests.support import systems

CONFIG = {"seed": 0, "data": {"name": "patterns"}, "accept_changes": False}
CARD = run_folder.DataCard(1000, 10, "c0ffee", (0.5, 0.25, 0.125), (0.2, 0.1, 0.05))


def open_workdir(folder, config, card):
    """What a run does with its folder before it writes anything else."""
    with run_folder.lock(folder):
        changed = run_files.changes(folder, config, warn=pytest.fail)
        run_files.store(folder, config, card)
    return changed


def test_the_config_is_stored_and_the_same_one_may_come_back(tmp_path):
    folder = tmp_path / "new" / "run"
    open_workdir(folder, CONFIG, CARD)
    open_workdir(folder, CONFIG, CARD)
    assert json.loads((folder / "config.json").read_text()) == CONFIG


def test_another_config_is_refused_and_the_differences_are_named(tmp_path):
    open_workdir(tmp_path, CONFIG, CARD)
    before = (tmp_path / "config.json").read_bytes()
    other = {"seed": 1, "data": {"name": "patterns"}, "accept_changes": False}
    with pytest.raises(run_folder.UsageError, match="seed: 0 -> 1"):
        open_workdir(tmp_path, other, CARD)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(run_folder.UsageError, match="Cannot write to the workdir .*file/run"):
        open_workdir(tmp_path / "file" / "run", CONFIG, CARD)


def test_a_file_called_lock_that_is_none_is_left_alone(tmp_path):
    (tmp_path / "lock").write_bytes(b"\xff combination: 1234")
    with pytest.raises(run_folder.UsageError, match="lock is no lock of a run"):
        with run_folder.lock(tmp_path):
            raise AssertionError("it was taken")
    assert (tmp_path / "lock").read_bytes() == b"\xff combination: 1234"
    (tmp_path / "lock").write_text("process 1 on a machine that is gone\n")
    with run_folder.lock(tmp_path):
        assert (tmp_path / "lock").read_text().startswith("process ")


def test_what_was_found_out_about_the_data_comes_back_as_it_was(tmp_path):
    assert read_card(tmp_path) is None
    open_workdir(tmp_path, CONFIG, CARD)
    assert read_card(tmp_path) == CARD
    unlabeled = CARD._replace(num_classes=0, fingerprint="")
    open_workdir(tmp_path, CONFIG, unlabeled)
    assert read_card(tmp_path) == unlabeled


def read_card(workdir):
    return run_files.read_card(workdir, warn=pytest.fail)


FIELDS = {"num_images": 3, "num_classes": 0, "fingerprint": "", "mean": [0, 0, 0], "std": [1, 1, 1]}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", '{"num_images": 3}', '{"images": 3}', "[" * 10**5),
        *(
            json.dumps(FIELDS | change)
            for change in (
                {"mean": [0.5]},
                {"mean": "abc"},
                {"std": None},
                {"std": [1, 1, float("nan")]},
                {"grey_ranges": [1]},
                {"grey_ranges": {"unsigned": [0]}},
            )
        ),
    ],
)
def test_a_data_card_that_cannot_be_read_is_named(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(
        run_folder.UsageError, match="data.json is damaged.*remove .*data.json and re"
    ):
        read_card(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\xff"])
def test_a_damaged_config_is_named_with_what_to_do(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(run_folder.UsageError, match="config.json is damaged.*remove .*config.json"):
        run_files.changes(tmp_path, CONFIG, warn=pytest.fail)
    path.unlink()  # as it says
    assert open_workdir(tmp_path, CONFIG, CARD) == []


@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_what_cannot_be_read_at_the_moment_is_not_taken_for_damaged(name, tmp_path):
    (tmp_path / name).symlink_to(name)  # even root cannot read a link to itself
    with pytest.raises(run_folder.UsageError, match=f"Cannot read .*{name}: Too many levels"):
        run_files.changes(tmp_path, CONFIG, warn=pytest.fail)
        run_files.read_card(tmp_path, warn=pytest.fail)


def test_what_is_unchanged_is_not_written_again(tmp_path):
    open_workdir(tmp_path, CONFIG, CARD)
    before = [(tmp_path / name).stat().st_ino for name in ("config.json", "data.json")]
    open_workdir(tmp_path, CONFIG, CARD)
    assert [(tmp_path / name).stat().st_ino for name in ("config.json", "data.json")] == before


def changeable(**values):
    return {
        "accept_changes": False,
        "checkpoint_every_steps": 5,
        "keep_checkpoints": 3,
        "log_every_steps": 1,
        "seed": 0,
        "preset": "folder",
        "data": {"dir": "here", "max_bad_share": 0.01, "threads": 0, "workers": 4},
        "probe": {"every_steps": 10, "k": 20},
    } | values


def test_what_does_not_change_the_learning_may_differ_when_a_run_goes_on(tmp_path):
    open_workdir(tmp_path, changeable(), CARD)
    other = changeable(
        checkpoint_every_steps=7,
        keep_checkpoints=1,
        log_every_steps=10,
        preset="",
        data={"dir": "there", "max_bad_share": 0.5, "threads": 3, "workers": 1},
        probe={"every_steps": 5, "k": 20},
    )
    open_workdir(tmp_path, other, CARD)
    assert json.loads((tmp_path / "config.json").read_text()) == other


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"probe": {"every_steps": 5, "k": 10}}, "probe.k: 20 -> 10"),
        ({"extra": 3}, "extra: .absent. -> 3"),
    ],
)
def test_all_else_may_not_differ_and_is_listed_alone(tmp_path, values, message):
    open_workdir(tmp_path, changeable(), CARD)
    other = changeable() | values
    with pytest.raises(run_folder.UsageError, match=message) as error:
        open_workdir(tmp_path, other, CARD)
    assert str(error.value).count("->") == 1
    assert json.loads((tmp_path / "config.json").read_text()) == changeable()


def bad_images(folder):
    return (folder / "bad_images.txt").read_text(encoding="utf-8").splitlines()


def test_bad_images_are_listed_once(tmp_path):
    run_folder.note_bad_images(tmp_path, {"a.png": "empty file", "b.png": "truncated"})
    run_folder.note_bad_images(tmp_path, {"a.png": "empty file", "c.png": "too small"})
    run_folder.note_bad_images(tmp_path, {})
    expected = ["a.png\tempty file", "b.png\ttruncated", "c.png\ttoo small"]
    assert bad_images(tmp_path) == expected


@pytest.mark.parametrize("name", ["caf\udce9.png", "caf\u00e9.png", "line\nbreak.png"])
def test_bad_images_with_unusual_names_are_listed_once_and_in_one_line(tmp_path, name):
    for _ in range(2):
        run_folder.note_bad_images(tmp_path, {name: "empty\nfile"})
    (line,) = bad_images(tmp_path)
    assert line.endswith(".png\tempty file")


def log(folder, *steps):
    logger = metric_writer.Logger(folder)
    for step in steps:
        logger.write(step, {"train/loss": step / 10})
    logger.close()


def test_a_resumed_log_drops_what_will_be_done_again_and_half_lines(tmp_path):
    log(tmp_path, 0, 10, 20, 30)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "train/lo')
    assert metrics_log.cut(tmp_path, 20) == []
    second = metric_writer.Logger(tmp_path, first_step=20)
    second.write(25, {"train/loss": float("nan")})
    second.close()
    assert run_folder.read_metrics(tmp_path) == [
        {"step": 0, "train/loss": 0},
        {"step": 10, "train/loss": 1},
        {"step": 20, "train/loss": 2},
        {"step": 25, "train/loss": None},
    ]
    assert [path.name for path in tmp_path.glob("metrics*")] == ["metrics.jsonl"]


@systems.NEEDS_FULL_DEVICE
def test_a_disk_that_is_full_when_metrics_are_written_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    logger = metric_writer.Logger(tmp_path)
    with pytest.raises(
        run_folder.WriteError, match="Cannot write to .*metrics.jsonl: No space left"
    ):
        logger.write(1, {"train/loss": 1.0})
    (tmp_path / "bad_images.txt").mkdir()
    with pytest.raises(run_folder.WriteError, match="bad_images.txt: Is a directory"):
        run_folder.note_bad_images(tmp_path, {"a.png": "empty"})


def test_tensorboard_gets_the_scalars_and_the_pictures(tmp_path):
    logger = metric_writer.Logger(tmp_path)
    logger.write(1, {"train/loss": 1.0})
    logger.write_image(1, "pairs", np.zeros((8, 8, 3), np.uint8))
    logger.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert all(words in events.read_bytes() for words in (b"train/loss", b"pairs", b"\x89PNG"))


def test_a_full_disk_is_named_when_a_folder_is_locked(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(
        run_folder.UsageError, match="Cannot write to .*lock: No space left on device"
    ):
        with run_folder.lock(tmp_path):
            raise AssertionError("it was taken")
