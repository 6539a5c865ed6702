"""Classifiers that are kept: what is in their folder, what they say of new photos, bad input."""

import csv
import json
import shutil

import jax
import jax.export
import numpy as np
import pytest

import byol_jax
from byol_jax.checkpoints import classifiers
from byol_jax.config import UsageError
from byol_jax.tasks import predict
from configs import predict as config_file
from tests.support import classified, snippets
from tests.support.evaluations import assert_refused
from tests.tasks import export_test as export


@pytest.fixture(scope="module")
def encoder():
    return classified.make_encoder()


@pytest.fixture(scope="module")
def kept(encoder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("kept")
    classified.evaluate(workdir, encoder)
    return workdir


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = classified.write_photos(tmp_path_factory.mktemp("photos"))
    (folder / "day0" / "broken.jpg").write_bytes(b"\xff\xd8\xffno image")
    return folder


def make_config(checkpoint, photos, **changes):
    config = config_file.get_config()
    config.checkpoint, config.data.dir = str(checkpoint), str(photos)
    config.update_from_flattened_dict(changes)
    return config


def rows_of(workdir):
    with (workdir / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_kept_classifier_says_what_it_is_and_classifies_as_it_was_measured(kept, encoder):
    result = json.loads((kept / "result.json").read_text())
    found = byol_jax.load_classifier(kept)
    assert result["classes"] == list(found.classes) == list(classified.CLASSES)
    assert found.card["encoder"]["sha256"] == encoder.identity["sha256"]
    assert found.card["accuracy"] == result["accuracy"]
    assert found.card["calibration"]["images"] == 18 and found.temperature > 0
    test = classified.data(20, first=60)
    right = found.predict(test.images) == np.array(classified.CLASSES)[test.labels]
    assert right.mean() == result["accuracy"]["top1"] > 0.8
    probabilities = found.predict_proba(test.images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_every_photo_has_a_row_and_bad_files_say_why(kept, photos, tmp_path, capsys):
    predict.run(make_config(kept, photos), tmp_path)
    rows = rows_of(tmp_path)
    names = ["day0/0.png", "day0/1.png", "day0/2.png", "day0/broken.jpg", "day1/3.png"]
    assert [row["file"] for row in rows] == names
    assert rows[3]["class"] == "" and rows[3]["problem"]
    assert [rows[n]["class"] for n in (0, 1, 2, 4)] == ["'=red", "blue", "'=red", "blue"]
    assert float(rows[0]["probability"]) + float(rows[0]["probability_2"]) == pytest.approx(1)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["num_images"] == {"classified": 4, "bad": 1}
    assert "day0/broken.jpg" in capsys.readouterr().err


def test_labels_of_photos_count_what_is_right(kept, photos, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nday0/0.png,=red\nday0/1.png,=red\n")
    predict.run(make_config(kept, photos, **{"data.labels": str(table)}), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["accuracy"] == {"top1": 0.5}
    assert rows_of(tmp_path / "out")[0]["label"] == "'=red"
    table.write_text("file,label\nday0/0.png,rot\n")
    config = make_config(kept, photos, **{"data.labels": str(table)})
    assert_refused(lambda to: predict.run(config, to), tmp_path / "no", "not know the class 'rot'")


def test_a_parquet_file_holds_the_same(kept, photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    predict.run(make_config(kept, photos, format="parquet", top=1), tmp_path)
    table = parquet.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert list(table) == ["file", "class", "probability", "problem"]
    assert table["class"][:2] == ["=red", "blue"] and table["probability"][3] is None


def damage_nothing(folder):
    shutil.rmtree(folder)


def rename_a_class(folder):
    card = json.loads((folder / classifiers.CARD).read_text())
    card["classes"][1] = "azure"
    (folder / classifiers.CARD).write_text(json.dumps(card))


def swap_the_encoder(folder):
    other = classified.make_encoder(padding="torch")
    params = {name: {k: -x for k, x in leaves.items()} for name, leaves in other.params.items()}
    classifiers.export_contents.save_weights(folder, params, other.state)


def cut_the_weights(folder):
    path = folder / classifiers.WEIGHTS
    path.write_bytes(path.read_bytes()[:-7])


BROKEN = {
    "No classifier at": damage_nothing,
    "names other classes .=red, azure. than classifier.safetensors": rename_a_class,
    "is not the one that the classifier was fitted on": swap_the_encoder,
    "Cannot read .*classifier.safetensors": cut_the_weights,
    "Cannot read .*model.json": lambda folder: (folder / "model.json").unlink(),
    "Cannot read .*classifier.json: it lacks 'calibration'": lambda folder: (
        folder / classifiers.CARD
    ).write_text('{"format": "byol_jax classifier 1", "classes": ["a"]}'),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_classifier_that_is_not_as_it_was_kept_is_refused(message, kept, photos, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(kept / "classifier", copy / "classifier")
    BROKEN[message](copy / "classifier")
    config = make_config(copy, photos)
    assert_refused(lambda to: predict.run(config, to), tmp_path / "no", message)


def test_a_folder_without_a_usable_photo_is_refused(kept, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"\x89PNGno image")
    with pytest.raises(UsageError, match="None of the 1 images"):
        predict.run(make_config(kept, tmp_path / "photos"), tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_what_a_person_has_put_beside_a_classifier_stays(kept, encoder, tmp_path):
    shutil.copytree(kept, tmp_path / "again")
    note = tmp_path / "again" / "classifier" / "notes.txt"
    note.write_text("mine")
    classified.evaluate(tmp_path / "again", encoder)
    assert note.read_text() == "mine"
    assert byol_jax.load_classifier(tmp_path / "again").sha256 == (
        byol_jax.load_classifier(kept).sha256
    )


def test_a_folder_called_classifier_that_is_somebody_elses_is_left_alone(encoder, tmp_path):
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="no classifier of this program"):
        classified.evaluate(tmp_path, encoder)
    assert [path.name for path in (tmp_path / "classifier").iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_an_exported_classifier_is_the_same_classifier(kept, tmp_path):
    export.export(tmp_path / "export", kept, formats="safetensors,stablehlo")
    first, second = (byol_jax.load_classifier(path) for path in (kept, tmp_path / "export"))
    assert first.sha256 == second.sha256
    images = classified.data(4).images
    data = bytearray((tmp_path / "export" / "encoder.stablehlo").read_bytes())
    found = jax.export.deserialize(data).call(images)
    names = [bytes(row).rstrip(b"\0").decode() for row in np.asarray(found["classes"])]
    assert names == list(classified.CLASSES)
    expected = first.predict_proba(images)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    model = json.loads((tmp_path / "export" / "model.json").read_text())
    assert model["classes"] == names and model["output"] == "logits"
    assert_refused(
        lambda to: export.export(to, kept, head="projector"), tmp_path / "no", "has no projector"
    )


def test_the_lines_of_the_guide_run(kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(kept, "runs/linear_eval-paper-photos-step200")
    names = {"images": classified.data(4).images}
    exec(snippets.snippet("import byol_jax\n\nclassifier ="), names)
    assert names["probabilities"].shape == (4, len(names["classifier"].classes))
