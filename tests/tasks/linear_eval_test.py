"""Linear evaluation from end to end: what it changes, chooses, counts and refuses."""

import functools
import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.evaluation import features, results
from byol_jax.tasks import linear_eval
from configs import linear_eval as config_file
from tests.support import evaluations
from tests.support.samples import drawn_picture, encode

pytestmark = pytest.mark.slow  # each worker would train a run for them
ROOT = pathlib.Path(__file__).parents[2]


def make_config(run="", **overrides):
    config = config_file.get_config()
    small = {"checkpoint": str(run), "batch_size": 64, "total_epochs": 4.0, "features": "cached"}
    config.update_from_flattened_dict(small | overrides)
    return config


def measure(workdir, run, **overrides):
    return evaluations.measure(linear_eval, make_config(run, **overrides), workdir)


@pytest.fixture(scope="module")
def result(run_folder, tmp_path_factory):
    return measure(tmp_path_factory.mktemp("linear"), run_folder)


def test_the_result_says_everything_about_itself(result):
    names = "task data protocol choices seed accuracy interval_95 train_accuracy selected table "
    names += "calibration classes classifier test "
    names += "num_images batch_size steps checkpoint config versions devices seconds"
    assert set(result) == set(names.split())
    assert result["protocol"] == "linear evaluation, cached features"
    assert result["num_images"] == {"train": 200, "validation": 20, "evaluated": 200, "bad": 0}
    assert result["steps"] == 4 * 200 // 64
    best = max(result["table"], key=lambda row: row["validation_top1"])
    assert result["selected"] == best | {
        "among": 5,
        "on": "validation: 20 images held out of the train split",
    }
    low, high = result["interval_95"]["top1"]
    assert low <= result["accuracy"]["top1"] <= high


@pytest.mark.parametrize("mode", ["cached", "augmented"])
def test_frozen_means_frozen(mode, run_folder, monkeypatch, tmp_path):
    run = functools.partial(measure, tmp_path, run_folder, features=mode)
    evaluations.assert_frozen(run, run_folder, monkeypatch)


def test_poisoned_labels_of_the_evaluated_images_change_nothing_that_is_chosen(
    run_folder, result, monkeypatch, tmp_path
):
    extract = features.extract

    def poison(encoder, data, *, title, **options):
        found = extract(encoder, data, title=title, **options)
        return found._replace(labels=(found.labels + 1) % 10) if title == "test" else found

    monkeypatch.setattr(features, "extract", poison)
    poisoned = measure(tmp_path, run_folder)
    assert poisoned["accuracy"] != result["accuracy"]
    for key in ("selected", "table", "train_accuracy", "num_images"):
        assert poisoned[key] == result[key]


def test_neither_batches_of_the_encoder_nor_another_run_change_anything(
    run_folder, result, tmp_path
):
    again = measure(tmp_path, run_folder, extract_batch_size=33)
    for key in ("accuracy", "selected", "table"):
        assert again[key] == result[key]


def test_several_seeds_hold_out_other_images(run_folder, result, tmp_path):
    found = measure(tmp_path, run_folder, seeds=2)
    assert found["per_seed"][0]["table"] == result["table"]
    assert found["per_seed"][1]["table"] != result["table"]
    tops = [run["accuracy"]["top1"] for run in found["per_seed"]]
    assert found["accuracy"]["top1"] == pytest.approx(np.mean(tops))
    assert "over 2 seeds, mean and standard deviation" in describe(found)


def describe(found):
    return results.describe(found, linear_eval._table)


def test_the_printed_table_marks_what_was_chosen(result):
    text = describe(result)
    assert text.count("<- chosen") == 1 and "200 evaluated" in text
    assert f"top-1 {result['accuracy']['top1']:.2%} (95 % bootstrap interval" in text


def test_the_reference_preset_chooses_nothing(run_folder, tmp_path):
    config = config_file.get_config("reference")
    config.update(make_config(run_folder).to_dict() | {"base_learning_rates": (0.2,)})
    linear_eval.run(config, tmp_path)
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["selected"]["on"].startswith("nothing")
    assert found["num_images"]["validation"] == 0 and "<- chosen" not in describe(found)


def test_a_validation_split_is_learned_from_in_the_end(run_folder, tmp_path):
    keys = {"data.train_split": "train", "data.validation_split": "test", "data.eval_split": "test"}
    found = measure(tmp_path, run_folder, **keys)
    assert found["num_images"] == {"train": 400, "validation": 200, "evaluated": 200, "bad": 0}
    assert found["selected"]["on"] == "validation: 200 images of test"


@pytest.mark.parametrize("weights", ["random", "pixels"])
def test_baselines_take_the_place_of_the_encoder(weights, run_folder, result, tmp_path):
    found = measure(tmp_path, run_folder, weights=weights)
    assert found["checkpoint"]["sha256"] != result["checkpoint"]["sha256"]
    assert weights in found["checkpoint"]["path"]


def test_a_folder_with_a_bad_image_is_learned_from_in_both_modes(run_folder, tmp_path):
    evaluations.write_pictures(tmp_path / "set")
    (tmp_path / "set" / "cat" / "bad.png").write_bytes(b"no image")
    keys = {"data.name": "folder", "data.dir": str(tmp_path / "set"), "batch_size": 8}
    keys |= {"data.train_split": "all", "data.eval_split": "all", "data.max_bad_share": 0.05}
    for mode in ("cached", "augmented"):
        found = measure(tmp_path / mode, run_folder, features=mode, total_epochs=1.0, **keys)
        assert found["num_images"]["train"] == 40 and found["num_images"]["bad"] == 2


def start(workdir, run, *keys, devices, processes=1, **options):
    """The program in processes of its own, each with so many devices."""
    command = [sys.executable, "-m", "byol_jax.main_loop", "--config=configs/linear_eval.py"]
    command += [f"--config.checkpoint={run}", "--config.batch_size=64", f"--workdir={workdir}"]
    command += ["--config.total_epochs=4", *keys]
    flags = f"--xla_force_host_platform_device_count={devices}"
    options |= {"cwd": ROOT, "env": os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}}
    joined = [f"--coordinator=localhost:{free_port()}", f"--num_processes={processes}"]
    return [
        subprocess.Popen(
            [*command, *([*joined, f"--process_id={i}"] if processes > 1 else [])], **options
        )
        for i in range(processes)
    ]


def program(workdir, run, *, devices, processes=1):
    """The result of the program, on features that are made once."""
    keys = ("--config.features=cached", "--config.data.train_split=test")
    options = {"devices": devices, "processes": processes, "stderr": subprocess.PIPE}
    for process in start(workdir, run, *keys, **options):
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0, errors.decode()
    return json.loads((workdir / "result.json").read_text())


def free_port():
    """A free port."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def test_four_devices_and_two_processes_give_the_accuracy_of_one(run_folder, tmp_path):
    one = program(tmp_path / "one", run_folder, devices=1)
    four = program(tmp_path / "four", run_folder, devices=4)
    two = program(tmp_path / "two", run_folder, devices=2, processes=2)
    assert len({found["devices"] for found in (one, four, two)}) == 3
    for found in (four, two):
        for key in ("num_images", "selected", "accuracy", "table"):
            assert found[key] == one[key]


BAD = {
    "rates": ({"base_learning_rates": ()}, "--config.base_learning_rates="),
    "mode": ({"features": "both"}, "Unknown features: 'both'.*augmented, cached"),
    "weights": ({"weights": "randm"}, "Did you mean 'random'"),
    "pixels": ({"weights": "pixels", "features": "augmented"}, "add --config.features=cached"),
    "fraction": ({"data.validation_share": 0.0}, "validation_share must be between 0 and 1"),
    "area": ({"features": "augmented", "crop.min_area": 2.0}, "crop.min_area must be above 0"),
    "checkpoint": ({"checkpoint": "/nowhere"}, "No checkpoint at /nowhere"),
    "split": ({"data.eval_split": "tset"}, "Did you mean 'test'"),
    "classes": ({"data.name": "folder"}, "data.dir"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_before_anything_is_written(case, run_folder, tmp_path):
    overrides, message = BAD[case]
    run = functools.partial(measure, run=run_folder, **overrides)
    evaluations.assert_refused(run, tmp_path / "out", message)


def test_a_split_without_labels_is_refused(run_folder, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one.png").write_bytes(encode(drawn_picture(20, 24)))
    keys = {"data.name": "folder", "data.dir": str(tmp_path / "set")}
    keys |= {"data.train_split": "all", "data.eval_split": "all"}
    with pytest.raises(UsageError, match="The split 'all' has no labels to learn from"):
        measure(tmp_path / "out", run_folder, **keys)
