"""The task of transfer: what it counts, what it chooses on, what it refuses, what it leaves."""

import functools
import json

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.metrics

from byol_jax.checkpoints import encoders
from byol_jax.config import UsageError
from byol_jax.data import datasets
from byol_jax.evaluation import features, protocol, results
from byol_jax.evaluation.features import Features
from byol_jax.metrics import accuracy
from byol_jax.tasks import transfer
from configs import transfer as config_file
from tests.cli.config_test import Recording, config_lib
from tests.data.datasets_test import ByolTestVoc
from tests.support import evaluations
from tests.training.online_eval_test import clusters

pytestmark = pytest.mark.slow  # each worker would train a run for them


def make_config(run="", preset="", **overrides):
    config = config_file.get_config(preset)
    small = {"checkpoint": str(run), "extract_batch_size": 64, "bootstrap_resamples": 100}
    small |= {"lambdas.count": 4, "lambdas.max": 100.0, "lambdas.min": 1e-2}
    config.update_from_flattened_dict(small | overrides)
    return config


def measure(workdir, run, **overrides):
    return evaluations.measure(transfer, make_config(run, **overrides), workdir)


@pytest.fixture(scope="module")
def result(run_folder, tmp_path_factory):
    before = encoders.load_encoder(str(run_folder)).identity
    read = set()
    config, workdir = make_config(run_folder, **{"lambdas.count": 3}), tmp_path_factory.mktemp("t")
    transfer.run(Recording(config, read), workdir)
    assert set(config_lib.flatten(config.to_dict())) - read == {"preset"}  # no key is idle
    return json.loads((workdir / "result.json").read_text()) | {"before": before}


def test_the_result_says_everything_about_itself(result):
    names = (
        "choices task protocol metric data seed accuracy interval_95 train_accuracy selected final "
    )
    names += "calibration classes classifier test "
    names += "not_converged table num_images checkpoint config versions devices seconds before"
    assert set(result) == set(names.split())
    assert result["num_images"] == {"train": 200, "validation": 20, "evaluated": 200, "bad": 0}
    assert [row["lambda"] for row in result["table"]] == pytest.approx([100, 1, 0.01])
    assert result["metric"] == "top1" and result["checkpoint"] == result["before"]
    best = max(row["validation_top1"] for row in result["table"])
    assert result["selected"]["validation_top1"] == best
    assert result["selected"]["on"] == "validation: 20 images held out of the train split"
    for name in ("top1", "top5"):
        low, high = result["interval_95"][name]
        assert low <= result["accuracy"][name] <= high


def test_frozen_means_frozen(run_folder, result, monkeypatch, tmp_path):
    run = functools.partial(measure, tmp_path, run_folder)
    evaluations.assert_frozen(run, run_folder, monkeypatch)


def exact(strength):
    options = {"solver": "newton-cholesky", "tol": 1e-8}
    return sklearn.linear_model.LogisticRegression(C=1 / strength, **options)


def test_accuracies_are_those_of_scikit_learn_called_directly(run_folder, result, tmp_path):
    """Images of one size are not cropped: their features need nothing but the encoder."""
    encoder = encoders.load_encoder(str(run_folder))
    train, test = (datasets.load("patterns", split) for split in ("train", "test"))
    found, unseen = (encoder.encode(data.images).astype(float) for data in (train, test))
    validation, rest = protocol.hold_out(200, 0.1, seed=0)
    for row in result["table"]:
        peer = exact(row["lambda"])
        peer.fit(found[rest], train.labels[rest])
        expected = peer.score(found[validation], train.labels[validation])
        assert row["validation_top1"] == pytest.approx(expected, abs=0.051)  # one image
    peer = exact(result["selected"]["lambda"])
    peer.fit(found, train.labels)
    expected = peer.score(unseen, test.labels)
    assert result["accuracy"]["top1"] == pytest.approx(expected, abs=0.0051)


def test_the_printed_table_has_the_numbers_of_the_file(result):
    text = results.describe(result, transfer._table)
    assert text.count("<- chosen") == 1 and "validation top1" in text
    assert f"top-1 {result['accuracy']['top1']:.2%} (95 % bootstrap interval" in text
    unfinished = result | {"not_converged": 2, "final": {"not_converged": 1}}
    text = results.describe(unfinished, transfer._table)
    assert "2 regressions did not converge, the final one among them: yes" in text


# Selection, on features that are given.


def measured(metric="top1", test_labels=None):
    pairs = [clusters(200, spread=2.5), clusters(150, seed=1, spread=2.5)]
    if test_labels is not None:
        pairs[1] = (pairs[1][0], test_labels)
    made = [Features(x, y, np.arange(len(y))) for x, y in pairs]
    none = np.zeros((200, 2, 2, 3), np.uint8)
    data = datasets.ArrayDataset(none, pairs[0][1], 4)
    splits = {"train_split": "train", "validation_split": "", "eval_split": "test"}
    setup = protocol.EvalSetup(None, features.Source("", ""), data, 0, data, splits)
    targets = [transfer._targets(found, data, metric, "some") for found in made]
    return transfer.Measured(setup, metric, made[0], targets[0], made[1], targets[1], {"bad": 0})


@pytest.mark.parametrize("metric", ["top1", "mean_per_class", "map11"])
def test_poisoned_labels_of_the_evaluated_images_change_nothing_but_the_score(metric):
    """They are the wrong ones, all of them, or shuffled."""
    right = measured(metric)
    wrong = np.random.default_rng(0).permutation((right.test.labels + 1) % 4)
    settings = transfer.resolve(make_config())
    clean, poisoned = (
        transfer.score(settings, found, 0) for found in (right, measured(metric, wrong))
    )
    for key in ("selected", "table", "final", "train_accuracy", "num_images"):
        assert clean[key] == poisoned[key]
    assert clean["accuracy"][metric] > poisoned["accuracy"][metric]


def test_both_the_sweep_and_the_last_fit_show_that_they_are_at_work(capsys):
    transfer.score(transfer.resolve(make_config(**{"lambdas.count": 2})), measured("top1"), 0)
    shown = capsys.readouterr().err
    assert "sweep" in shown and "fit on all training images" in shown


def test_mean_per_class_and_map_are_those_of_the_final_classifier():
    settings = transfer.resolve(make_config(**{"lambdas.count": 1, "lambdas.max": 1.0}))
    found = transfer.score(settings, measured("mean_per_class"), 0)
    data = measured()
    peer = sklearn.linear_model.LogisticRegression(max_iter=1000)
    peer.fit(data.train.features, data.train.labels)
    predicted = peer.predict(data.test.features)
    expected = sklearn.metrics.balanced_accuracy_score(data.test.labels, predicted)
    assert list(found["accuracy"]) == ["mean_per_class", "top1", "top5"]
    assert found["accuracy"]["mean_per_class"] == pytest.approx(expected, abs=0.01)
    assert found["selected"]["on"].startswith("nothing")
    assert found["num_images"]["validation"] == 0
    found = transfer.score(settings, measured("map11"), 0)
    scores = np.stack(
        [
            peer.fit(data.train.features, data.train.labels == c).decision_function(
                data.test.features
            )
            for c in range(4)
        ],
        axis=1,
    )
    multi_labels = np.eye(4, dtype=np.int8)[data.test.labels]
    assert list(found["accuracy"]) == ["map11"]
    assert found["accuracy"]["map11"] == pytest.approx(
        accuracy.map11(scores, multi_labels), abs=0.01
    )


# Other sets, and mistakes.


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voc")
    ByolTestVoc(data_dir=folder, file_format="array_record").download_and_prepare()
    keys = {"data.name": "tfds:byol_test_voc", "data.dir": str(folder)}
    return keys | {"data.validation_split": "validation"}


def test_a_set_like_voc_is_measured_by_its_mean_average_precision(run_folder, voc, tmp_path):
    found = measure(tmp_path, run_folder, weights="pixels", **voc)
    assert found["metric"] == "map11" and list(found["accuracy"]) == ["map11"]
    assert found["accuracy"]["map11"] == 1  # red and green say it all; the third class has no image
    assert found["num_images"] == {"train": 30, "validation": 10, "evaluated": 15, "bad": 0}
    assert found["selected"]["on"] == "validation: 10 images of validation"
    assert found["data"]["validation_split"] == "validation"


def test_other_tasks_say_which_one_measures_several_labels(run_folder, voc):
    with pytest.raises(UsageError, match="several labels each.*configs/transfer.py"):
        protocol.open_setup(transfer.resolve(make_config(run_folder, **voc)))


@pytest.fixture
def pictures(tmp_path):
    return evaluations.write_pictures(tmp_path / "pictures", 40, 60)


def of_folder(folder, **more):
    keys = {"data.name": "folder", "data.dir": str(folder), "data.train_split": "all"}
    return keys | {"data.eval_split": "all", "data.validation_share": 0.25} | more


def test_a_folder_is_measured_in_its_largest_center_squares(
    run_folder, pictures, tmp_path, monkeypatch
):
    fractions = []
    crop = features.eval_loader.host_crops.center_crop

    def center_crop(image, size, *, fraction, is_reduced):
        fractions.append(fraction)
        return crop(image, size, fraction=fraction, is_reduced=is_reduced)

    monkeypatch.setattr(features.eval_loader.host_crops, "center_crop", center_crop)
    found = measure(tmp_path, run_folder, **of_folder(pictures, metric="mean_per_class"), seeds=2)
    assert set(fractions) == {1.0} and len(fractions) == 80
    assert set(found["std"]) == {"mean_per_class", "top1", "top5"}
    assert found["per_seed"][1]["num_images"]["validation"] == 10


def test_a_bad_image_among_those_evaluated_is_named(run_folder, pictures, tmp_path):
    (pictures / "cat" / "bad.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="cat/bad.png"):
        measure(tmp_path, run_folder, **of_folder(pictures))


BAD = {
    "count": ({"lambdas.count": 0}, "lambdas.count must be above 0"),
    "min": ({"lambdas.min": 0.0}, "lambdas.min must be above 0"),
    "order": ({"lambdas.min": 1e3}, "lambdas.min=1000 is above --config.lambdas.max=100"),
    "metric": ({"metric": "top2"}, "Unknown metric: 'top2'.*mean_per_class"),
    "fraction": ({"data.validation_share": 0.0}, "validation_share must be between"),
    "weights": ({"weights": "none"}, "Unknown weights"),
    "checkpoint": ({"checkpoint": "/nowhere"}, "No checkpoint at /nowhere|no such path"),
    "split": ({"data.eval_split": "tset"}, "split.*Did you mean 'test'"),
    "not prepared": ({"preset": "pets", "data.dir": "/nowhere"}, "tfds build oxford_iiit_pet"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_before_anything_is_written(case, run_folder, tmp_path):
    overrides, message = BAD[case]
    run = functools.partial(measure, run=run_folder, **overrides)
    evaluations.assert_refused(run, tmp_path / "out", message)


def test_one_label_metrics_are_refused_for_several_labels(run_folder, voc, tmp_path):
    with pytest.raises(UsageError, match="metric=top1 needs one label an image.*map11"):
        measure(tmp_path, run_folder, metric="top1", **voc)
