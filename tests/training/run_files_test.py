"""What an earlier start has left in a workdir, and the copies that checkpoints have."""

import pytest

from byol_jax.checkpoints import manager
from byol_jax.config import UsageError
from byol_jax.training import run_files
from tests.checkpoints import manager_test
from tests.workdir import run_folder_test

CONFIG = {"seed": 0, "checkpoint_every_steps": 10, "total_steps": 40, "accept_changes": False}
CARD = run_folder_test.CARD


@pytest.fixture
def started(tmp_path):
    """A workdir that was started, up to some step, and has no checkpoint."""

    def start(step, config=CONFIG):
        run_files.store(tmp_path, config, CARD)
        run_folder_test.log(tmp_path, *range(0, step + 1))
        (tmp_path / "bad_images.txt").write_text("a.png\tempty\n")
        (tmp_path / "sessions.jsonl").write_text("{}\n")
        (tmp_path / "checkpoints").mkdir()
        return tmp_path

    return start


def test_what_a_start_without_a_checkpoint_has_logged_is_moved_aside_by_name(started):
    workdir = started(9)
    before = (workdir / "metrics.jsonl").read_bytes()
    text = run_files.set_aside(workdir, CONFIG)
    aside = workdir / "earlier-1"
    assert "at step 9" in text and f"{aside} (metrics.jsonl, tensorboard, bad_images.txt)" in text
    assert (aside / "metrics.jsonl").read_bytes() == before and list(aside.glob("tensorboard/*"))
    left = {path.name for path in workdir.iterdir()}
    assert left == {"config.json", "data.json", "sessions.jsonl", "checkpoints", "earlier-1"}
    assert run_files.set_aside(workdir, CONFIG) == ""
    run_folder_test.log(workdir, 0, 1)
    assert "earlier-2" in run_files.set_aside(workdir, CONFIG)


@pytest.mark.parametrize("total", [40, None])
def test_a_workdir_with_metrics_and_no_checkpoints_is_refused(total, started):
    """It had checkpoints: somebody has removed them, or they are on a disk that is not there."""
    config = CONFIG | {"total_steps": total}
    workdir = started(20, config)
    before = sorted(workdir.rglob("*"))
    with pytest.raises(UsageError, match="metrics up to step 20 but no checkpoint") as error:
        run_files.set_aside(workdir, config)
    assert sorted(workdir.rglob("*")) == before
    assert str(error.value).endswith(f"rename {workdir / 'metrics.jsonl'}.")
    (workdir / "metrics.jsonl").rename(workdir / "old.jsonl")  # as it says
    assert run_files.set_aside(workdir, config) == ""


def test_a_short_run_that_lost_its_only_checkpoint_is_refused(started):
    config = CONFIG | {"checkpoint_every_steps": 1000}
    workdir = started(40, config)
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "probe/feature_std": 1.0}\n')  # comes after the last checkpoint
    with pytest.raises(UsageError, match="metrics up to step 40 but no checkpoint"):
        run_files.set_aside(workdir, config)


@pytest.mark.parametrize("step, every", [(10, 10), (19, 10), (40, 40), (40, 1000)])
def test_a_run_killed_before_its_first_save_was_finished_begins_again(step, every, started):
    """A save goes on in the background, and may be cut off before there is anything of it."""
    config = CONFIG | {"checkpoint_every_steps": every}
    assert "earlier-1" in run_files.set_aside(started(step, config), config)


def test_a_run_killed_within_its_first_checkpoint_begins_again(started):
    workdir = started(22)
    (workdir / "checkpoints" / "10.orbax-checkpoint-tmp").mkdir()
    assert "earlier-1" in run_files.set_aside(workdir, CONFIG)


def test_saving_more_often_than_before_does_not_make_an_earlier_start_suspicious(started):
    config = CONFIG | {"checkpoint_every_steps": 2}
    assert "earlier-1" in run_files.set_aside(started(9), config)


@pytest.mark.parametrize("damage", ["", "{", None])
@pytest.mark.parametrize("name", ["config", "data"])
def test_a_small_damaged_file_comes_back_from_a_checkpoint(name, damage, tmp_path):
    run_files.store(tmp_path, CONFIG, CARD)
    about = {"config": CONFIG, "data": CARD._asdict()}
    manager_test.save(tmp_path, 1, about=about)
    path = tmp_path / f"{name}.json"
    whole = path.read_bytes()
    path.unlink() if damage is None else path.write_text(damage)
    warnings = []
    assert run_files.changes(tmp_path, CONFIG, warn=warnings.append) == []
    assert run_files.read_card(tmp_path, warn=warnings.append) == CARD
    (warning,) = warnings
    assert f"{path} is " in warning and "its copy in" in warning
    other = CONFIG | {"seed": 1}
    with pytest.raises(UsageError, match="seed: 0 -> 1"):
        run_files.changes(tmp_path, other, warn=warnings.append)
    run_files.store(tmp_path, CONFIG, CARD)
    assert path.read_bytes() == whole


def test_a_lost_config_of_an_earlier_version_is_said(tmp_path):
    run_files.store(tmp_path, CONFIG, CARD)
    manager_test.save(tmp_path, 1, about={})
    (tmp_path / "config.json").unlink()
    warnings = []
    assert run_files.changes(tmp_path, CONFIG, warn=warnings.append) == []
    assert "config.json is missing" in warnings[0]
    assert manager.read_about(tmp_path) is None
