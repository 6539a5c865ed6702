"""Depth estimation from end to end, on drawn sets in folders and in the layout of NYU."""

import json

import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.evaluation import results
from byol_jax.report import cli
from byol_jax.tasks import depth
from configs import depth as config_file
from tests.support import pixel_worlds

pytestmark = pytest.mark.slow  # each worker would train a run for them


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    pixel_worlds.write_folder(root, count=40)
    return root


def make_config(run, root, preset="", **overrides):
    config = config_file.get_config(preset)
    small = {
        "checkpoint": str(run),
        "data.name": "folder",
        "data.images": str(root / "images"),
        "data.depths": str(root / "depths"),
        "batch_size": 8,
        "total_steps": 4,
        "learning_rates": (0.03, 0.01),
        "input_height": 32,
        "input_width": 40,
        "up_channels": (8, 4),
        "bootstrap_resamples": 20,
    }
    config.update_from_flattened_dict(small | overrides)
    return config


def measure(workdir, *args, **overrides):
    depth.run(make_config(*args, **overrides), workdir)
    return json.loads((workdir / "result.json").read_text())


@pytest.fixture(scope="module")
def result(run_folder, world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("depth")
    return measure(folder, run_folder, world, seeds=2) | {"folder": folder}


def test_the_result_says_everything_about_itself(result):
    for found in result["per_seed"]:
        assert set(found["accuracy"]) == {"delta1", "delta2", "delta3"}
        assert set(found["errors"]) == {"rms", "rel", "log10", "rms_log"}
        assert found["num_images"]["evaluated"] >= 2 and len(found["table"]) == 2
    assert set(result["errors"]) == set(result["errors_std"]) == set(found["errors"])
    mean = np.mean([found["errors"]["rms"] for found in result["per_seed"]])
    assert result["errors"]["rms"] == pytest.approx(mean)
    assert "rms " in results.describe(result, depth._table)


def test_predictions_are_on_the_page(result):
    assert cli.write_for(result["folder"]).read_text().count("prediction: ") >= 2


def test_the_same_command_gives_the_same_numbers(run_folder, world, result, tmp_path):
    again = measure(tmp_path, run_folder, world, seeds=2)
    for key in ("accuracy", "errors"):
        assert again[key] == result[key]


def test_a_short_training_beats_the_mean_depth(run_folder, world, tmp_path):
    keys = {"total_steps": 120, "learning_rates": (0.03,), "weight_decay": 0.0}
    found = measure(tmp_path, run_folder, world, **keys)
    truth = np.concatenate([pixel_worlds.draw(i)[2].ravel() for i in range(40)])
    ratio = np.maximum(truth / truth.mean(), truth.mean() / truth)
    assert found["accuracy"]["delta1"] > (ratio < 1.25).mean() + 0.1


@pytest.mark.parametrize("keys", [{"inference": "whole"}, {"region": "eigen"}])
def test_other_parts_of_an_image_can_be_measured(keys, run_folder, world, tmp_path):
    keys = keys | {"learning_rates": (0.03,)}
    found = measure(tmp_path, run_folder, world, "frozen", **keys)
    assert np.isfinite(found["errors"]["rms"]) and "the head alone" in found["protocol"]


def test_nyus_labeled_set_is_measured_as_it_is_downloaded(run_folder, tmp_path):
    pytest.importorskip("h5py")
    pixel_worlds.write_nyu(tmp_path)
    for name in ("nyu", "nyu_h5"):
        keys = {"data.name": name, "data.dir": str(tmp_path), "learning_rates": (0.03,)}
        keys |= {"data.images": "", "data.depths": ""}
        found = measure(tmp_path / name, run_folder, tmp_path, **keys)
        assert found["num_images"] == {
            "learned from": 4,
            "validation": 0,
            "evaluated": 5,
            "bad": 0,
        }


BAD = {
    "folder": ({"data.depths": "/nowhere"}, "Give a folder by --config.data.depths"),
    "inference": ({"inference": "all"}, "Unknown inference: 'all'.*crop, whole"),
    "region": ({"region": "mine"}, "Unknown region: 'mine'.*all, eigen"),
    "splits": ({"data.train_split": "test"}, "is both train_split and eval_split"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_before_anything_is_written(case, run_folder, world, tmp_path):
    overrides, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        measure(tmp_path / "out", run_folder, world, **overrides)
    assert not (tmp_path / "out").exists()
