"""A search: the photo itself comes first, an index is used again, mistakes are refused."""

import csv
import json

import pytest

from byol_jax.config import UsageError
from byol_jax.tasks import search as run_search
from configs import search as config_file
from tests.support import evaluations, snippets


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return evaluations.write_pictures(tmp_path_factory.mktemp("pictures"))


def search(workdir, folder, run, **overrides):
    config = config_file.get_config()
    keys = {"checkpoint": str(run), "data.name": "folder", "data.dir": str(folder), "k": 5}
    config.update_from_flattened_dict(keys | {"query": str(folder / "cat/7.png")} | overrides)
    run_search.run(config, workdir)
    with (workdir / "search.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_photo_itself_comes_first_and_an_index_gives_the_same(folder, run_folder, tmp_path):
    rows = search(tmp_path / "first", folder, run_folder)
    assert len(rows) == 5 and rows[0]["file"] == "cat/7.png"
    assert float(rows[0]["similarity"]) == pytest.approx(1, abs=1e-4)
    index = str(tmp_path / "first" / "index.npz")
    again = search(tmp_path / "second", folder, run_folder, index=index)
    assert [row["file"] for row in again] == [row["file"] for row in rows]
    content = json.loads((tmp_path / "second" / "gallery" / "search.json").read_text())
    assert len(content["rows"][0]["images"]) == 6


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"query": ""}, "--config.query=photo.jpg"),
        ({"query": "nowhere.jpg"}, "There is no file nowhere.jpg"),
        ({"index": "nowhere.npz"}, "There is no index nowhere.npz"),
        ({"query": __file__}, "search_test.py cannot be read"),
        ({"k": 0}, "k"),
    ],
)
def test_mistakes_are_refused_before_anything_is_loaded(keys, words, folder, tmp_path):
    with pytest.raises(UsageError, match=words):
        search(tmp_path / "out", folder, "runs/none", **keys)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_more_hits_than_images_are_refused(folder, run_folder, tmp_path):
    evaluations.assert_refused(
        lambda workdir: search(workdir, folder, run_folder, k=41),
        tmp_path / "out",
        "k=41 is more than the 40 images",
    )


@pytest.mark.slow
def test_the_snippet_of_the_guide_runs(run_folder, tmp_path, monkeypatch):
    code = snippets.snippet("index = Index(encoder)").replace(
        "runs/pretrain-patterns", str(run_folder)
    )
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["hits"].names[0][0] == "image 0"
