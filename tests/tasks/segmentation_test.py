"""Segmentation from end to end, on drawn sets in the layout of VOC and in folders."""

import json

import numpy as np
import pytest

from byol_jax.checkpoints import encoders
from byol_jax.config import UsageError
from byol_jax.evaluation import results, resume
from byol_jax.report import cli
from byol_jax.tasks import segmentation
from configs import segmentation as config_file
from tests.support import pixel_worlds

pytestmark = pytest.mark.slow  # each worker would train a run for them

NAMES = [f"n{i:02}" for i in range(14)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    pixel_worlds.write_voc(root, train=NAMES[:6], val=NAMES[6:10], extra=NAMES[10:])
    pixel_worlds.write_folder(root / "mine", count=30)
    return root


def make_config(run, root, preset="", **overrides):
    config = config_file.get_config(preset)
    small = {
        "checkpoint": str(run),
        "data.dir": str(root),
        "batch_size": 4,
        "total_steps": 4,
        "learning_rates": (0.1, 0.01),
        "output_stride": 4,
        "crop_size": 33,
        "head.channels": 8,
        "head.dilation": 2,
        "bootstrap_resamples": 20,
        "test_batch_size": 4,
    }
    config.update_from_flattened_dict(small | overrides)
    return config


def of_folder(root):
    mine = root / "mine"
    keys = {"data.name": "folder", "data.dir": "", "data.classes": "ground,red,green,blue"}
    return keys | {"data.images": str(mine / "images"), "data.masks": str(mine / "masks")}


def measure(workdir, *args, **overrides):
    segmentation.run(make_config(*args, **overrides), workdir)
    return json.loads((workdir / "result.json").read_text())


@pytest.fixture(scope="module")
def result(run_folder, world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    return measure(folder, run_folder, world) | {"folder": folder}


def test_the_result_says_everything_about_itself(result):
    names = "task data protocol choices seed accuracy interval_95 iou selected table num_images "
    names += "steps batch_size checkpoint config versions devices seconds folder"
    assert set(result) == set(names.split())
    counts = {"learned from": 10, "validation": 2, "evaluated": 4, "bad": 0}
    assert result["num_images"] == counts and result["data"]["train_split"] == "train_aug"
    assert len(result["table"]) == 2 and result["selected"]["among"] == 2
    assert len(result["iou"]) == 21 and set(result["accuracy"]) == {"miou", "pixel_accuracy"}
    text = results.describe(result, segmentation._table)
    assert text.count("<- chosen") == 1 and "IoU: background" in text


def test_predictions_are_on_the_page_beside_the_truth(result):
    content = json.loads((result["folder"] / "gallery" / "predictions.json").read_text())
    assert len(content["images"]) == 4 and len(content["legend"]) == 21
    page = cli.write_for(result["folder"]).read_text()
    assert page.count("prediction: ") == 4 and page.count("truth: ") == 4


def test_the_same_command_gives_the_same_numbers(run_folder, world, result, tmp_path):
    again = measure(tmp_path, run_folder, world)
    for key in ("accuracy", "table", "selected", "iou"):
        assert again[key] == result[key]


def test_a_short_training_learns_what_is_drawn(run_folder, world, tmp_path):
    keys = {"total_steps": 60, "learning_rates": (0.1,), "min_scale": 1.0, "max_scale": 1.0}
    keys |= of_folder(world) | {"batch_size": 8}
    found = measure(tmp_path, run_folder, world, **keys)
    assert found["accuracy"]["miou"] > 0.5
    assert found["num_images"]["validation"] == 0 and found["table"] == [{"learning_rate": 0.1}]
    assert list(found["iou"]) == ["ground", "red", "green", "blue"]


def test_a_frozen_encoder_stays_as_it_was_and_the_head_learns(run_folder, world, tmp_path):
    keys = {"total_steps": 30, "learning_rates": (0.1,)} | of_folder(world)
    found = measure(tmp_path, run_folder, world, "frozen", **keys)
    assert "the head alone" in found["protocol"] and found["accuracy"]["pixel_accuracy"] > 0.3


def test_sliding_windows_count_every_pixel(run_folder, world, tmp_path):
    keys = {"learning_rates": (0.1,), "inference": "slide"} | of_folder(world)
    assert measure(tmp_path, run_folder, world, **keys)["accuracy"]["miou"] >= 0


def test_a_stopped_evaluation_goes_on_to_the_same_result(
    run_folder, world, result, tmp_path, monkeypatch
):
    train = resume.Unfinished.train
    seen = []

    def stopping(self, name, update, state, batches, **options):
        seen.append(name)
        if name == "trial 2/2 of seed 0" and seen.count(name) == 1:
            raise resume.Stopped("killed")
        return train(self, name, update, state, batches, **options)

    monkeypatch.setattr(resume.Unfinished, "train", stopping)
    with pytest.raises(resume.Stopped):
        measure(tmp_path, run_folder, world)
    again = measure(tmp_path, run_folder, world)
    assert seen.count("trial 1/2 of seed 0") == 1
    assert again["table"] == result["table"] and again["accuracy"] == result["accuracy"]
    assert not (tmp_path / "unfinished").exists()


def test_the_checkpoint_stays_as_it_was(run_folder, result):
    assert encoders.load_encoder(str(run_folder)).identity == result["checkpoint"]


def test_a_network_that_diverges_is_not_chosen(run_folder, world, tmp_path):
    found = measure(tmp_path, run_folder, world, learning_rates=(1e30, 0.01), refit=False)
    assert found["selected"]["learning_rate"] == 0.01
    assert found["num_images"]["learned from"] == 8


BAD = {
    "stride": ({"output_stride": 16}, "stem 'patch'.*stride is 8.*--config.output_stride=4"),
    "crop": ({"crop_size": 32}, "crop_size must be a multiple.*take 33"),
    "folder": ({"data.dir": "/nowhere"}, "holds no VOCdevkit/VOC2012"),
    "set": ({"data.name": "voc"}, "Unknown data.name: 'voc'"),
    "scales": ({"max_scale": 0.1}, "max_scale must be --config.min_scale"),
    "classes": ({"data.name": "folder", "data.classes": "1"}, "Say which classes the masks have"),
    "splits": ({"data.train_split": "val"}, "'val' is both train_split and eval_split"),
    "inference": ({"inference": "all"}, "Unknown inference: 'all'.*crop, slide"),
    "checkpoint": ({"checkpoint": "/nowhere"}, "No checkpoint at /nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_before_anything_is_written(case, run_folder, world, tmp_path):
    overrides, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        measure(tmp_path / "out", run_folder, world, **overrides)
    assert not (tmp_path / "out").exists()


def test_bad_masks_of_tested_images_end_it_before_hours_of_training(run_folder, tmp_path):
    pixel_worlds.write_voc(tmp_path, train=NAMES[:6], val=NAMES[6:8], extra=NAMES[8:])
    path = tmp_path / "VOCdevkit/VOC2012/SegmentationClass/n06.png"
    pixel_worlds.save_mask(path, np.full((40, 48), 99, np.uint8))
    with pytest.raises(UsageError, match="n06.png: label 99, where 21"):
        measure(tmp_path / "out", run_folder, tmp_path)
    assert not (tmp_path / "out").exists()
    found = measure(tmp_path / "out", run_folder, tmp_path, **{"data.max_bad_share": 0.1})
    assert found["num_images"]["bad"] == 1 and found["num_images"]["evaluated"] == 1
