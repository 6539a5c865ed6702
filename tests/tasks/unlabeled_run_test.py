"""A small run on a folder without labels, in which two files are bad."""

import json
import shutil

import pytest

from byol_jax.config import UsageError
from byol_jax.report import cli
from byol_jax.tasks import pretrain
from byol_jax.training import build, run_files, summary
from byol_jax.workdir import run_folder
from tests.conftest import final_state, make_config, make_settings
from tests.support import pages
from tests.support.samples import drawn_picture, encode

pytestmark = pytest.mark.slow


def unlabeled_config(folder, **overrides):
    data = {"name": "folder", "dir": str(folder), "eval_split": "all", "mean": None, "std": None}
    data |= {"max_bad_share": 0.1, "threads": 1}
    overrides = {f"data.{key}": value for key, value in data.items()} | overrides
    return make_config(**{"probe.every_steps": 3, "checkpoint_every_steps": 3} | overrides)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(20):
        data = encode(drawn_picture(40, 50 + number, seed=number), ("JPEG", "PNG")[number % 2])
        (folder / f"{number}.{'jpg' if number % 2 == 0 else 'png'}").write_bytes(data)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def unlabeled_run(pictures, tmp_path_factory):
    """A workdir in which four steps have been done: 32 images, so that all files were met."""
    workdir = tmp_path_factory.mktemp("unlabeled")
    pretrain.run(unlabeled_config(pictures), workdir)
    return workdir


def test_without_labels_there_is_no_classifier(unlabeled_run, pictures):
    state = final_state(unlabeled_run, unlabeled_config(pictures))
    assert state.step == 4
    roots = {module.split("/")[0] for module in state.online_params}
    assert roots == {"micro_res_net", "projector", "predictor"}


def test_without_labels_nothing_is_logged_that_needs_them(unlabeled_run):
    rows = run_folder.read_metrics(unlabeled_run)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 3, 4, 4]
    assert not [key for row in rows for key in row if "online" in key or "top1" in key]
    probe = {"step", "probe/feature_std", "probe/effective_rank"}
    assert set(rows[0]) == set(rows[4]) == set(rows[6]) == probe
    assert all(row["train/loss"] == row["train/repr_loss"] for row in rows if "train/loss" in row)


def test_bad_images_are_counted_and_listed(unlabeled_run, pictures):
    counts = [row["data/bad_images"] for row in run_folder.read_metrics(unlabeled_run)[1::2][:2]]
    counts += [run_folder.read_metrics(unlabeled_run)[5]["data/bad_images"]]
    assert counts == sorted(counts) and counts[-1] == 2
    lines = sorted((unlabeled_run / "bad_images.txt").read_text().splitlines())
    assert [line.split("\t")[0] for line in lines] == [
        str(pictures / "empty.jpg"),
        str(pictures / "text.png"),
    ]
    assert "\tempty file" in lines[0] and "\tnot an image" in lines[1]


def test_the_summary_has_dashes_where_labels_are_missing_and_the_number_of_bad_images(
    unlabeled_run,
):
    text = summary.summarize(unlabeled_run, make_settings().collapse)
    rows = [line for line in text.splitlines() if line.startswith(("random network", "after 4"))]
    assert [row.split()[-4:-2] for row in rows] == [["-", "-"], ["-", "-"]]
    assert "raw pixels" not in text
    assert f"2 bad images were left out: {unlabeled_run / 'bad_images.txt'}" in text


def test_the_page_has_pictures_but_no_accuracy_where_labels_are_missing(unlabeled_run):
    path = cli.write([str(unlabeled_run)], unlabeled_run / "report.html")
    page = pages.Page(path.read_text())
    ids = {attributes.get("id") for tag, attributes in page.tags if tag == "section"}
    assert {"curves", "pairs-0", "neighbours-0", "atlas-0"} <= ids and "classes-0" not in ids
    assert "No labels, so no accuracy" in page.text and "unknown without labels" in page.text
    assert "damaged" not in page.text and set(page.data["atlases"][0]["labels"]) == {-1}


def test_channels_are_measured_once_and_kept_with_the_run(unlabeled_run, pictures):
    card = run_files.read_card(unlabeled_run, warn=pytest.fail)
    job = build.build(unlabeled_config(pictures))
    assert card == job.images.card
    assert (card.num_images, card.num_classes) == (22, 0) and card.fingerprint
    other = card._replace(mean=(0.1, 0.2, 0.3))
    assert build.build(unlabeled_config(pictures), other).images.card == other


def test_a_run_whose_images_have_changed_is_refused(unlabeled_run, pictures, tmp_path):
    before = {path: path.read_bytes() for path in unlabeled_run.glob("*.json*")}
    shutil.copytree(pictures, tmp_path / "more")
    (tmp_path / "more" / "new.png").write_bytes(encode(drawn_picture()))
    shutil.copytree(pictures, tmp_path / "renamed")
    (tmp_path / "renamed" / "1.png").rename(tmp_path / "renamed" / "one.png")
    for name in ("more", "renamed"):
        with pytest.raises(UsageError, match="not those that this run began with"):
            pretrain.run(unlabeled_config(tmp_path / name), unlabeled_run)
    assert {path: path.read_bytes() for path in unlabeled_run.glob("*.json*")} == before


def test_a_run_goes_on_in_another_place_with_other_limits(
    unlabeled_run, pictures, tmp_path, capsys
):
    shutil.copytree(pictures, tmp_path / "moved")
    shutil.copytree(unlabeled_run, tmp_path / "run")
    overrides = {"data.max_bad_share": 0.5, "data.threads": 2, "keep_checkpoints": 1}
    config = unlabeled_config(tmp_path / "moved", log_every_steps=2, **overrides)
    pretrain.run(config, tmp_path / "run")
    assert "after 4 steps" in capsys.readouterr().err
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["data"]["dir"] == str(tmp_path / "moved")
    assert stored["data"]["max_bad_share"] == 0.5 and stored["log_every_steps"] == 2
