"""Sets of which only some images have labels, through pretraining and every evaluation."""

import json

import numpy as np
import pytest

from byol_jax.data import datasets
from byol_jax.tasks import knn, linear_eval, pretrain, semi_supervised, transfer
from byol_jax.training import build
from byol_jax.workdir import run_folder as workdir
from tests.conftest import make_config
from tests.support.samples import encode
from tests.tasks.knn_test import make_config as knn_config
from tests.tasks.linear_eval_test import make_config as linear_config
from tests.tasks.semi_supervised_test import make_config as finetune_config
from tests.tasks.transfer_test import make_config as transfer_config

pytestmark = pytest.mark.slow

EVERY = 3  # of the images, one has a label


class _Encoded:
    """Images of a set in memory as files, with labels."""

    def __init__(self, data):
        self._data = data

    def __len__(self):
        return self._data.num_images

    def read(self, index):
        return encode(self._data.images[index]), self.label(index)

    def label(self, index):
        return int(self._data.labels[index])

    def name(self, index):
        return f"image {index}"

    file_name = name


def partly(data, *, is_labeled=lambda index: index % EVERY == 0, on_disk=False):
    labels = np.where(is_labeled(np.arange(data.num_images)), data.labels, -1)
    data = data.replace(labels=labels.astype(np.int32))
    return (
        datasets.RecordDataset(_Encoded(data), len(labels), data.num_classes) if on_disk else data
    )


@pytest.fixture(params=["in memory", "on disk"])
def partly_labeled(request, monkeypatch):
    load = datasets.load
    monkeypatch.setattr(
        datasets,
        "load",
        lambda *args, **options: partly(load(*args, **options), on_disk=request.param == "on disk"),
    )


@pytest.fixture
def unlabeled_training_images(monkeypatch):
    load = datasets.load

    def patched(name, split, **options):
        data = load(name, split, **options)
        is_train = split == "train"
        return partly(data, is_labeled=lambda index: index < 0) if is_train else data

    monkeypatch.setattr(datasets, "load", patched)


def test_a_run_learns_from_all_images_and_is_measured_by_those_with_labels(
    partly_labeled, tmp_path, capsys
):
    config = make_config(total_steps=2, **{"probe.every_steps": 1})
    pretrain.run(config, tmp_path)
    text = capsys.readouterr().err
    assert "of the training images and 34 % of the evaluation images have labels" in text
    assert "accuracy of the 34 with labels of 100" in text
    rows = workdir.read_metrics(tmp_path)
    assert {"probe/knn_top1", "probe/linear_top1"} < rows[0].keys()
    online = [row["train/online_loss"] for row in rows if "train/online_loss" in row]
    assert online and np.isfinite(online).all()
    classes = json.loads((tmp_path / "gallery" / "classes.json").read_text())
    assert sum(row["count"] for row in classes["rows"]) == 34
    atlas = json.loads((tmp_path / "gallery" / "atlas.json").read_text())
    assert set(atlas["labels"]) >= {-1, 0} and atlas["purity"]["now"] is not None


def test_a_run_on_images_without_labels_logs_no_accuracy(
    unlabeled_training_images, tmp_path, capsys
):
    pretrain.run(make_config(total_steps=2), tmp_path)
    text = capsys.readouterr().err
    assert "the training images have no labels, so that no accuracy is measured" in text
    rows = workdir.read_metrics(tmp_path)
    assert not [key for row in rows for key in row if "online" in key or "top1" in key]
    before = build.build(make_config(total_steps=2)).state.online_params
    assert "classifier" in {module.split("/")[0] for module in before}


def test_evaluations_learn_from_and_count_images_with_labels(partly_labeled, run_folder, tmp_path):
    tasks = {
        "knn": (knn, knn_config(run_folder)),
        "cached": (linear_eval, linear_config(run_folder, features="cached", total_epochs=1)),
        "augmented": (linear_eval, linear_config(run_folder, total_epochs=1)),
        "finetune": (semi_supervised, finetune_config(run_folder, **{"labels.share": 0.5})),
        "transfer": (transfer, transfer_config(run_folder, **{"lambdas.count": 2})),
    }
    for name, (task, config) in tasks.items():
        task.run(config, tmp_path / name)
        result = json.loads((tmp_path / name / "result.json").read_text())
        counts = result["num_images"]
        assert counts["evaluated"] == 67 and counts["bad"] == 0, name
        learned = counts.get("train", counts.get("learned from"))
        assert learned <= 67
        assert counts["unlabeled"] == (133 if name == "finetune" else 266), name
