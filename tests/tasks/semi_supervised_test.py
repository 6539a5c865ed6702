"""Training a whole encoder on few labels, from end to end."""

import functools

import numpy as np
import pytest

from byol_jax.checkpoints import encoders
from byol_jax.evaluation import features, finetune, results
from byol_jax.tasks import semi_supervised
from configs import semi_supervised as config_file
from tests.support import evaluations

pytestmark = pytest.mark.slow  # each worker would train a run for them


def make_config(run="", preset="10percent", **overrides):
    config = config_file.get_config(preset)
    small = {"checkpoint": str(run), "batch_size": 8, "base_learning_rates": (0.1, 0.01)}
    small |= {"epochs": (1.0, 2.0)}
    config.update_from_flattened_dict(small | overrides)
    return config


def measure(workdir, run, preset="10percent", **overrides):
    return evaluations.measure(semi_supervised, make_config(run, preset, **overrides), workdir)


@pytest.fixture(scope="module")
def result(run_folder, tmp_path_factory):
    return measure(tmp_path_factory.mktemp("semi"), run_folder)


def test_the_result_says_everything_about_itself(result):
    names = "task data protocol choices seed accuracy interval_95 selected table num_images "
    names += "calibration classes classifier test "
    names += (
        "steps bn_decay_rate images_per_class batch_size checkpoint config versions devices seconds"
    )
    assert set(result) == set(names.split())
    counts = {"learned from": 20, "validation": 20, "evaluated": 200, "bad": 0}
    assert result["num_images"] == counts and result["images_per_class"] == [2] * 10
    assert len(result["table"]) == 4 and result["selected"]["among"] == 4
    best = max(result["table"], key=lambda row: row["validation_top1"])
    assert result["selected"]["validation_top1"] == best["validation_top1"]
    assert result["protocol"] == "the whole network trained on 0.1 of the labels"
    text = results.describe(result, semi_supervised._table)
    assert text.count("<- chosen") == 1


def test_the_same_command_gives_the_same_numbers(run_folder, result, tmp_path):
    again = measure(tmp_path, run_folder)
    for key in ("accuracy", "table", "selected"):
        assert again[key] == result[key]


def test_poisoned_labels_of_the_evaluated_images_change_nothing_that_is_chosen(
    run_folder, result, monkeypatch, tmp_path
):
    extract = features.extract

    def poison(encoder, data, *, title, **options):
        found = extract(encoder, data, title=title, **options)
        return found._replace(labels=(found.labels + 1) % 10) if title == "test" else found

    monkeypatch.setattr(features, "extract", poison)
    poisoned = measure(tmp_path, run_folder)
    for key in ("selected", "table", "num_images"):
        assert poisoned[key] == result[key]


def test_the_checkpoint_stays_as_it_was(run_folder, result):
    assert encoders.load_encoder(str(run_folder)).identity == result["checkpoint"]


def test_fine_tuning_takes_all_labels_and_trains_the_best_again(run_folder, tmp_path):
    keys = {"total_steps": 2, "weight_decays": (0.0, 1e-4), "base_learning_rates": (0.1,)}
    found = measure(tmp_path, run_folder, "finetune", **keys)
    counts = found["num_images"]
    assert counts["learned from"] == 200 and counts["validation"] == 20
    assert found["steps"] == 2 and len(found["table"]) == 2


def test_training_again_on_more_images_takes_their_decay_and_their_steps(
    run_folder, monkeypatch, tmp_path
):
    decays = []
    make_forward = encoders.make_forward

    def recording(encoder, *, axis, bn_decay_rate):
        decays.append((axis, bn_decay_rate))
        return make_forward(encoder, axis=axis, bn_decay_rate=bn_decay_rate)

    monkeypatch.setattr(encoders, "make_forward", recording)
    monkeypatch.setattr(finetune, "bn_decay_rate", lambda steps: 1 - 1 / steps)
    keys = {"base_learning_rates": (0.1,), "epochs": (0.02, 0.04), "weight_decays": (0.0,)}
    keys |= {"total_steps": None, "batch_size": 4, "data.validation_share": 0.5}
    found = measure(tmp_path, run_folder, "finetune", **keys)
    of_training = [decay for axis, decay in decays if axis]
    assert of_training == pytest.approx([1 - 1 / 25, 1 - 1 / 50])
    assert found["bn_decay_rate"] == of_training[1] and found["steps"] == int(
        found["selected"]["epochs"] * 200 // 4
    )


def test_from_scratch_has_other_weights_and_the_same_labels(run_folder, result, tmp_path):
    found = measure(tmp_path, run_folder, weights="random")
    assert found["checkpoint"]["sha256"] != result["checkpoint"]["sha256"]
    assert found["num_images"] == result["num_images"]


def test_a_network_that_diverges_is_not_chosen(run_folder, tmp_path):
    found = measure(tmp_path, run_folder, base_learning_rates=(1e30, 0.01), epochs=(2.0,))
    assert found["selected"]["base_learning_rate"] == 0.01


BAD = {
    "fraction": ({"labels.share": 0.0}, "labels.share must be above 0"),
    "classes": ({"labels.share": 0.01}, "without an image: take 0.05 or more"),
    "list": ({"labels.list": "/nowhere"}, "Cannot read --config.labels.list=/nowhere"),
    "decay": ({"weight_decays": (-1.0,)}, "0 or more, such as --config.weight_decays="),
    "weights": ({"weights": "pixels"}, "Unknown weights: 'pixels'.*checkpoint, random"),
    "epochs": ({"epochs": (0.0,)}, "above 0, such as --config.epochs="),
    "checkpoint": ({"checkpoint": "/nowhere"}, "No checkpoint at /nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_before_anything_is_written(case, run_folder, tmp_path):
    overrides, message = BAD[case]
    run = functools.partial(measure, run=run_folder, **overrides)
    evaluations.assert_refused(run, tmp_path / "out", message)


def test_labels_of_a_validation_split_are_not_learned_from(run_folder, tmp_path):
    keys = {"data.validation_split": "test", "epochs": (1.0,), "labels.share": 0.05}
    found = measure(tmp_path, run_folder, **keys)
    assert found["num_images"]["validation"] == 200
    assert sum(found["images_per_class"]) == found["num_images"]["learned from"]
    assert np.ptp(found["images_per_class"]) == 0
