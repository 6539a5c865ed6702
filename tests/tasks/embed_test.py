"""Features to files: what comes back is what the encoder gives, under the right names."""

import csv
import functools
import json
import sys

import numpy as np
import pytest

from byol_jax.checkpoints import encoders
from byol_jax.config import UsageError
from byol_jax.data import datasets, eval_loader
from byol_jax.tasks import embed as run_embed
from configs import embed as config_file
from tests.support import evaluations
from tests.support.samples import drawn_picture, encode

pytestmark = pytest.mark.slow  # each worker would train a run for them

NAMES = ["dog/1.png", 'cat/a "b", c.png', "cat/deep/é.png", "dog/2.png", "cat/3.png"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A labeled folder with unusual names, sorted as features are: by the hash of the name."""
    top = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(NAMES):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(encode(drawn_picture(40, 36 + number, seed=number)))
    return top


def embed(workdir, run, **overrides):
    config = config_file.get_config()
    config.update_from_flattened_dict({"checkpoint": str(run), "batch_size": 2} | overrides)
    run_embed.run(config, workdir)
    return json.loads((workdir / "result.json").read_text())


def read(workdir, file_format):
    """Features, labels and names, by other means than those that wrote them."""
    path = workdir / f"embeddings.{file_format}"
    if file_format == "npz":
        with np.load(path) as arrays:
            return arrays["features"], arrays["labels"], arrays["names"].tolist()
    if file_format == "parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path).to_pydict()
        return np.array(table["features"]), np.array(table["label"]), table["name"]
    with path.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head[:3] == ["name", "label", "f0"]
    return (
        np.array([row[2:] for row in rows], np.float32),
        np.array([int(row[1]) for row in rows]),
        [row[0] for row in rows],
    )


@pytest.mark.parametrize("file_format", run_embed.FORMATS)
def test_features_labels_and_names_come_back(file_format, run_folder, pictures, tmp_path):
    keys = {"data.name": "folder", "data.dir": f"{pictures}/", "format": file_format}
    result = embed(tmp_path, run_folder, **keys)
    features, labels, names = read(tmp_path, file_format)
    encoder = encoders.load_encoder(str(run_folder))
    data = datasets.load("folder", "all", data_dir=str(pictures))
    batches = list(eval_loader.eval_batches(data, batch_size=5, image_size=32))
    expected = encoder.encode(batches[0].images)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)
    assert sorted(names) == sorted(NAMES)
    assert [("cat", "dog")[label] for label in labels] == [name.split("/")[0] for name in names]
    assert result["num_images"] == {"embedded": 5, "bad": 0}
    assert result["checkpoint"] == encoder.identity
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"lock", "result.json", f"embeddings.{file_format}"}


def test_all_formats_hold_the_same_numbers_to_the_last_bit(run_folder, pictures, tmp_path):
    keys = {"data.name": "folder", "data.dir": str(pictures)}
    found = []
    for file_format in run_embed.FORMATS:
        embed(tmp_path, run_folder, **keys, format=file_format)
        found.append(read(tmp_path, file_format))
    for features, labels, names in found[1:]:
        np.testing.assert_array_equal(features.astype(np.float32), found[0][0])
        np.testing.assert_array_equal(labels, found[0][1])
        assert names == found[0][2]


def test_without_a_set_it_is_the_runs_evaluation_split(run_folder, tmp_path):
    result = embed(tmp_path, run_folder, batch_size=64)
    features, labels, names = read(tmp_path, "npz")
    expected = {"name": "patterns", "dir": "", "split": "test", "labels": "folders"}
    assert result["data"] == expected
    assert features.dtype == np.float32 and features.shape == (200, 96)
    assert names == [str(number) for number in range(200)]
    np.testing.assert_array_equal(labels, datasets.load("patterns", "test").labels)


def test_a_bad_image_is_named_and_leaves_no_file_unless_so_many_may_be_bad(run_folder, tmp_path):
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encode(drawn_picture(20, 20, seed=number)))
    (folder / "bad.png").write_bytes(b"no image")
    keys = {"data.name": "folder", "data.dir": str(folder)}
    for file_format in run_embed.FORMATS:
        with pytest.raises(UsageError, match="pictures/bad.png"):
            embed(out, run_folder, **keys, format=file_format)
        assert [path.name for path in out.iterdir()] == ["lock"]
    result = embed(out, run_folder, **keys, **{"data.max_bad_share": 0.25})
    features, labels, names = read(out, "npz")
    assert result["num_images"] == {"embedded": 3, "bad": 1}
    assert sorted(names) == ["0.png", "1.png", "2.png"] and labels.tolist() == [-1] * 3
    assert len(features) == 3


def test_an_old_file_stays_until_the_new_one_is_whole(run_folder, pictures, tmp_path):
    (tmp_path / "embeddings.npz").write_bytes(b"old")
    (tmp_path / "result.json").write_text('{"config": {}, "file": "embeddings.npz"}')
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "bad.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="bad.png"):
        embed(
            tmp_path,
            run_folder,
            **{"data.name": "folder", "data.dir": str(tmp_path / "pictures")},
        )
    assert (tmp_path / "embeddings.npz").read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="no such names")
def test_names_that_are_not_utf8_are_written_so_that_they_can_be_told(run_folder, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        path = bytes(folder) + b"/%d\xff.png" % number
        with open(path, "wb") as file:
            file.write(encode(drawn_picture(20, 20, seed=number)))
    for file_format in run_embed.FORMATS:
        keys = {"data.name": "folder", "data.dir": str(folder), "format": file_format}
        embed(tmp_path / "out", run_folder, **keys)
        assert sorted(read(tmp_path / "out", file_format)[2]) == ["0\\xff.png", "1\\xff.png"]


def test_parquet_without_pyarrow_says_what_to_do(run_folder, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pip install pyarrow, or take npz or csv"):
        embed(tmp_path, run_folder, format="parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


BAD = {
    "format": ({"format": "parkett"}, "Unknown format: 'parkett'.*parquet"),
    "batch": ({"batch_size": -1}, "batch_size must be above 0"),
    "checkpoint": ({"checkpoint": "/nowhere"}, "no such path"),
    "split": ({"data.split": "tset"}, "split.*Did you mean 'test'"),
    "folder": ({"data.dir": "/nowhere"}, "add --config.data.name=folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_before_anything_is_written(case, run_folder, tmp_path):
    overrides, message = BAD[case]
    run = functools.partial(embed, run=run_folder, **overrides)
    evaluations.assert_refused(run, tmp_path / "out", message)


def test_a_workdir_that_cannot_be_written_to(run_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Cannot write to the workdir .*file"):
        embed(tmp_path / "file", run_folder)


def test_an_inner_layer_is_the_mean_of_its_map(run_folder, pictures, tmp_path):
    keys = {"data.name": "folder", "data.dir": str(pictures), "batch_size": 4}
    found = {}
    for layer in ("", "group_0", "group_1"):
        folder = tmp_path / (layer or "whole")
        result = embed(folder, run_folder, **keys, layer=layer)
        found[layer] = read(folder, "npz")[0]
        assert result["layer"] == layer and result["embedding_size"] == found[layer].shape[1]
    assert found["group_0"].shape[1] == 48
    np.testing.assert_allclose(found["group_1"], found[""], rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="Unknown layer: 'group_7'.*group_0, group_1"):
        embed(tmp_path / "none", run_folder, **keys, layer="group_7")
    assert not (tmp_path / "none").exists()
