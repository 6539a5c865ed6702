"""A curated folder: its table, its list of files to keep and its page; no image is touched."""

import csv
import json
import os

import pytest

from byol_jax.config import UsageError
from byol_jax.report import cli as report
from byol_jax.report import spreadsheet
from byol_jax.tasks import curate as run_curate
from configs import curate as config_file
from tests.support import evaluations
from tests.support.samples import drawn_picture, encode


def make_config(folder, run="runs/none", **overrides):
    config = config_file.get_config()
    keys = {"checkpoint": str(run), "data.name": "folder", "data.dir": str(folder)}
    config.update_from_flattened_dict(keys | overrides)
    return config


def read(workdir):
    with (workdir / "curation.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes, a copy in each, a name that a spreadsheet would run, and a broken file."""
    top = evaluations.write_pictures(tmp_path_factory.mktemp("pictures"), 40, 44)
    (top / "cat" / "copy.png").write_bytes((top / "cat" / "1.png").read_bytes())
    (top / "dog" / "=1+1.png").write_bytes(encode(drawn_picture(40, 44, seed=99)))
    (top / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return top


@pytest.fixture(scope="module")
def curated(folder, run_folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("curated") / "out"
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    keys = {"similarity": 0.9999, "subset": 7, "clusters": 3, "data.max_bad_share": 0.1}
    run_curate.run(make_config(folder, run_folder, **keys), workdir)
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before
    return workdir


@pytest.mark.slow
def test_every_image_has_a_row_and_the_subset_is_the_list(curated, folder):
    rows = read(curated)
    assert len(rows) == 43 and rows["dog/broken.png"]["problem"]
    pair = {rows["cat/copy.png"]["duplicate_of"], rows["cat/1.png"]["duplicate_of"]}
    assert "" in pair and pair & {"cat/1.png", "cat/copy.png"}
    kept = (curated / "keep.txt").read_text().splitlines()
    assert len(kept) == 7 and all((folder / name).is_file() for name in kept)
    assert {name for name, row in rows.items() if row["keep"] == "1"} == {
        spreadsheet.cell(name) for name in kept
    }
    ranks = sorted(int(row["outlier_rank"]) for row in rows.values() if row["outlier_rank"])
    assert ranks == list(range(1, 43))
    assert {row["label"] for row in rows.values() if row["label"]} == {"cat", "dog"}


@pytest.mark.slow
def test_the_page_shows_every_section_and_counts_in_words(curated):
    page = report.write([str(curated)], curated / "report.html").read_text()
    for words in ("Near-duplicates", "Outliers", "Clusters", "Subset", "none was changed"):
        assert words in page
    assert "<script>alert" not in page
    result = json.loads((curated / "result.json").read_text())
    assert result["num_images"] == {"curated": 42, "bad": 1} and result["kept"] == 7


@pytest.mark.slow
def test_a_second_look_keeps_the_first_in_its_own_folder(curated, folder, run_folder):
    first = (curated / "keep.txt").read_bytes()
    keys = {"similarity": 0.9999, "subset": 3, "clusters": 3, "data.max_bad_share": 0.1}
    run_curate.run(make_config(folder, run_folder, **keys), curated)
    assert (curated / "earlier" / "1" / "keep.txt").read_bytes() == first
    assert len((curated / "keep.txt").read_text().splitlines()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("key", ["subset", "clusters"])
def test_more_than_there_are_images_is_refused(key, folder, run_folder, tmp_path):
    workdir = tmp_path / "out"
    config = make_config(folder, run_folder, **{key: 44, "data.max_bad_share": 0.1})
    with pytest.raises(UsageError, match=f"config.{key}=44 is more than the 43 images.* less"):
        run_curate.run(config, workdir)
    assert not workdir.exists()


def test_a_folder_with_a_table_of_somebody_else_is_left_as_it_is(tmp_path):
    from byol_jax.evaluation import result_folder

    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(UsageError, match="keep.txt is not of the evaluation"):
        with result_folder.opened(tmp_path, "curation.csv", "keep.txt"):
            pass
    assert os.listdir(tmp_path) == ["keep.txt"]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx"])
def test_cells_that_a_spreadsheet_would_run_are_text(text):
    assert spreadsheet.cell(text) == f"'{text}"


def test_other_cells_are_as_they_are():
    assert spreadsheet.cell("a=b/-c.jpg") == "a=b/-c.jpg"
