"""The folders of evaluations: one for each checkpoint, one user at a time, nothing overwritten."""

import json

import pytest

from byol_jax.config import UsageError
from byol_jax.evaluation import result_folder
from configs import embed as embed_config
from configs import knn as knn_config


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(folder, *steps):
    for step in steps:
        (folder / "checkpoints" / str(step) / "state").mkdir(parents=True)
    return folder


def place(checkpoint, config_file=knn_config, **overrides):
    config = config_file.get_config()
    config.update_from_flattened_dict({"checkpoint": str(checkpoint)} | overrides)
    folder, pinned = result_folder.place(config)
    assert config.checkpoint == str(checkpoint)
    return str(folder), pinned.checkpoint


def test_a_folder_is_named_after_the_run_and_the_step(here):
    run = make_run(here / "runs" / "byol", 100, 200)
    expected = ("runs/knn-byol-step200", f"{run}/checkpoints/200")
    assert place(run) == place(run) == place(run / "checkpoints" / "200") == expected
    relative = place("runs/byol", embed_config)
    assert relative == ("runs/embed-byol-step200", "runs/byol/checkpoints/200")
    assert place(run, weights="random")[0] == "runs/knn-byol-step200-random"
    assert place(run, **{"data.name": "tfds:a/b"})[0] == "runs/knn-byol-step200-a_b"


def test_two_checkpoints_never_share_a_folder(here):
    runs = [make_run(here / top / "byol", 7, 8) for top in ("runs", "a", "b", "a/byol-step7")]
    paths = [run / "checkpoints" / str(step) for run in runs for step in (7, 8)]
    for name in ("byol.pt", "a/byol.pt", "byol.pkl", "byol-step7", "a/my weights.pt"):
        (here / name).touch()
        paths.append(here / name)
    (here / "export").mkdir()
    (here / "export" / "model.json").touch()
    folders = [place(path)[0] for path in [*paths, here / "export"]]
    assert len(set(folders)) == len(folders) and all(" " not in name for name in folders)


def test_without_a_checkpoint_no_folder_is_named():
    with pytest.raises(UsageError, match="No checkpoint was given"):
        place("")


def result(sha256="a", **config):
    return {"config": {"k": 10, "checkpoint": "x"} | config, "checkpoint": {"sha256": sha256}}


def read(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_same_evaluation_replaces_its_result(here):
    for path in ("x", "y"):
        result_folder.write(here, result(checkpoint=path) | {"seconds": path})
    assert read(here)["seconds"] == "y" and not (here / "earlier").exists()


def test_a_result_of_another_config_or_encoder_is_kept_by_name(here, capsys):
    found = [result(), result(k=20), result("b", k=20)]
    for one in found:
        result_folder.write(here, one)
    kept = [read(here / "earlier" / "1"), read(here / "earlier" / "2"), read(here)]
    assert kept == found
    assert "Kept the earlier result" in capsys.readouterr().err


def test_features_are_kept_with_their_result(here):
    (here / "embeddings.npz").write_text("old")
    result_folder.write(here, result() | {"file": "embeddings.npz"})
    result_folder.write(here, result("b") | {"file": "embeddings.npz"})
    assert (here / "earlier" / "1" / "embeddings.npz").read_text() == "old"
    assert read(here / "earlier" / "1")["file"] == "embeddings.npz"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": 3}', "x", '{"accuracy": 1}'])
def test_a_result_of_somebody_else_is_refused_before_anything_is_written(text, here):
    (here / "result.json").write_text(text)
    with pytest.raises(UsageError, match="result.json.*another --workdir"):
        with result_folder.opened(here):
            raise AssertionError("it was opened")
    with pytest.raises(UsageError, match="result.json"):
        result_folder.write(here, result())
    assert [path.name for path in here.iterdir()] == ["result.json"]
    assert (here / "result.json").read_text() == text


@pytest.mark.parametrize("known", [None, {"file": "embeddings.csv"}])
def test_features_of_somebody_else_are_refused_before_anything_is_written(known, here):
    (here / "embeddings.npz").write_text("mine")
    if known:
        (here / "result.json").write_text(json.dumps(result() | known))
    before = sorted(path.name for path in here.iterdir())
    with pytest.raises(UsageError, match="embeddings.npz is not of the evaluation"):
        with result_folder.opened(here, "embeddings.npz"):
            raise AssertionError("it was opened")
    assert sorted(path.name for path in here.iterdir()) == before
    assert (here / "embeddings.npz").read_text() == "mine"


def test_two_evaluations_at_once_do_not_share_a_folder(here):
    with result_folder.opened(here / "knn"):
        with (
            pytest.raises(UsageError, match="Another run is using"),
            result_folder.opened(here / "knn"),
        ):
            raise AssertionError("both were let in")
    with result_folder.opened(here / "knn"):
        pass
