"""The kNN task: what it counts, what it chooses on, what it refuses, what it leaves."""

import functools

import numpy as np
import pytest

from byol_jax.checkpoints import encoders
from byol_jax.config import UsageError
from byol_jax.data import datasets
from byol_jax.evaluation.features import Features
from byol_jax.metrics import knn as neighbors
from byol_jax.tasks import knn as run_knn
from configs import knn as config_file
from tests.support import evaluations
from tests.support.samples import drawn_picture, encode
from tests.training.online_eval_test import clusters

pytestmark = pytest.mark.slow  # each worker would train a run for them


def make_config(run="", **overrides):
    config = config_file.get_config()
    small = {"checkpoint": str(run), "batch_size": 64, "knn.k": (1, 5, 20)}
    config.update_from_flattened_dict(small | overrides)
    return config


def measure(workdir, run, **overrides):
    return evaluations.measure(run_knn, make_config(run, **overrides), workdir)


@pytest.fixture(scope="module")
def result(run_folder, tmp_path_factory):
    before = encoders.load_encoder(str(run_folder)).identity
    found = measure(tmp_path_factory.mktemp("knn"), run_folder, **{"knn.leave_one_out": True})
    return found | {"before": before}


def test_the_result_says_everything_about_itself(result):
    names = (
        "choices task data seed protocol accuracy interval_95 selected table num_images label_free "
    )
    names += "classes train_leave_one_out checkpoint config versions devices seconds before"
    assert set(result) == set(names.split())
    assert result["num_images"] == {"train": 200, "validation": 20, "evaluated": 200, "bad": 0}
    columns = {"k", "temperature", "validation_top1", "validation_top5", "top1", "top5"}
    assert len(result["table"]) == 6 and all(set(row) == columns for row in result["table"])
    quality = {"effective_rank", "effective_rank_images", "feature_std", "alignment"}
    assert set(result["label_free"]) == quality | {"uniformity", "view_images"}
    assert result["config"]["knn"]["k"] == [1, 5, 20]
    assert {"python", "jax", "dm-haiku", "numpy"} <= set(result["versions"])
    assert result["data"]["eval_split"] == "test" and result["protocol"] == "eval split"


def test_the_accuracy_is_that_of_the_chosen_row_and_lies_in_its_interval(result):
    chosen = result["selected"]
    best = max(row["validation_top1"] for row in result["table"])
    row = next(row for row in result["table"] if row["validation_top1"] == best)
    assert (chosen["k"], chosen["temperature"]) == (row["k"], row["temperature"])
    assert chosen["validation_top1"] == best and chosen["on"].startswith("validation: 20 images")
    for name in ("top1", "top5"):
        low, high = result["interval_95"][name]
        assert result["accuracy"][name] == row[name] and low <= row[name] <= high


def test_frozen_means_frozen(run_folder, result, monkeypatch, tmp_path):
    run = functools.partial(measure, tmp_path, run_folder)
    evaluations.assert_frozen(run, run_folder, monkeypatch)


def test_the_same_command_gives_the_same_numbers(run_folder, result, tmp_path):
    again = measure(tmp_path, run_folder, **{"knn.leave_one_out": True})
    for key in ("accuracy", "interval_95", "table", "label_free", "selected"):
        assert again[key] == result[key]


def test_the_batch_size_changes_nothing_but_the_views(run_folder, result, tmp_path):
    again = measure(tmp_path, run_folder, batch_size=33)
    assert again["table"] == result["table"]


def test_the_printed_table_has_the_numbers_of_the_file(result):
    text = run_knn.describe(result)
    assert text.count("<- chosen") == 1
    low, high = result["interval_95"]["top1"]
    assert f"top-1 {result['accuracy']['top1']:.2%} (95 % bootstrap interval {low:.2%}" in text
    assert "leave-one-out: top-1" in text and "uniformity" in text


def test_every_seed_draws_a_random_network_of_its_own(run_folder, tmp_path):
    together = measure(tmp_path / "both", run_folder, weights="random", seeds=2)
    for run in together["per_seed"]:
        alone = measure(tmp_path / str(run["seed"]), run_folder, weights="random", seed=run["seed"])
        assert run["checkpoint"] == alone["checkpoint"]
        assert run["accuracy"] == alone["accuracy"] and run["table"] == alone["table"]
    first, second = (run["checkpoint"]["sha256"] for run in together["per_seed"])
    assert first != second
    assert together["std_over"].endswith("a network for each seed")
    assert "a network for each seed" in run_knn.describe(together)


# Selection, on features that are given.

SETTINGS = [neighbors.KnnParams(k, t) for k in (1, 5, 40) for t in (0.07, 1.0)]


def splits(test_labels=None, *, leave_one_out=False):
    train, labels = clusters(200, spread=2.5)
    queries, right = clusters(150, seed=1, spread=2.5)
    right = right if test_labels is None else test_labels
    made = [Features(x, y, np.arange(len(y))) for x, y in ((train, labels), (queries, right))]
    test = None if leave_one_out else made[1]
    return run_knn.Splits(made[0], test, 4, made[not leave_one_out], {"bad": 0})


@pytest.mark.parametrize("favorite", range(len(SETTINGS)))
def test_poisoned_labels_of_the_evaluated_images_never_change_what_is_chosen(favorite):
    """They are what one setting predicts, so that it is right about all images."""
    clean = splits()
    bank = neighbors.Bank(clean.train.features, clean.train.labels, 4)
    labels = neighbors.predict(bank, clean.test.features, SETTINGS[favorite])
    scores = [
        run_knn.score(s, SETTINGS, run_knn.resolve(make_config()), 0)
        for s in (clean, splits(labels))
    ]
    assert scores[1]["table"][favorite]["top1"] == 1
    assert scores[0]["selected"] == scores[1]["selected"]
    keys = ("validation_top1", "validation_top5")
    rows = [[[row[key] for key in keys] for row in found["table"]] for found in scores]
    assert rows[0] == rows[1]


def test_images_that_chose_the_setting_are_not_counted_in_leave_one_out():
    scores = run_knn.score(splits(leave_one_out=True), SETTINGS, run_knn.resolve(make_config()), 0)
    assert scores["num_images"] == {"train": 200, "validation": 20, "evaluated": 180, "bad": 0}
    assert scores["protocol"].startswith("leave-one-out")


def test_with_one_setting_nothing_is_chosen_and_all_images_are_counted():
    scores = run_knn.score(
        splits(leave_one_out=True), SETTINGS[:1], run_knn.resolve(make_config()), 0
    )
    assert scores["num_images"]["evaluated"] == 200 and scores["num_images"]["validation"] == 0
    assert scores["selected"]["on"].startswith("nothing") and "validation_top1" not in str(scores)


# Other sets, and mistakes.


@pytest.fixture
def pictures(tmp_path):
    return evaluations.write_pictures(tmp_path / "pictures")


def of_folder(folder, **more):
    keys = {"data.name": "folder", "data.dir": str(folder), "data.train_split": "all"}
    return keys | {"data.eval_split": "leave_one_out"} | more


def test_leave_one_out_of_a_folder_leaves_bad_images_out(run_folder, pictures, tmp_path):
    (pictures / "cat" / "bad.png").write_bytes(b"no image")
    found = measure(tmp_path, run_folder, **of_folder(pictures, **{"data.max_bad_share": 0.05}))
    assert found["num_images"] == {"train": 40, "validation": 4, "evaluated": 36, "bad": 1}


def test_without_labels_there_is_no_accuracy_but_a_quality(run_folder, pictures, tmp_path):
    (pictures / "top.png").write_bytes(encode(drawn_picture(20, 24)))
    found = measure(tmp_path, run_folder, **of_folder(pictures))
    assert found["accuracy"] == {} and found["num_images"]["evaluated"] == 41
    assert found["label_free"]["view_images"] == 41
    assert "No labels: no accuracy" in run_knn.describe(found)


def test_a_bad_image_among_those_evaluated_is_named_unless_so_many_may_be_bad(
    run_folder, pictures, tmp_path
):
    (pictures / "cat" / "bad.png").write_bytes(b"no image")
    overrides = of_folder(pictures, **{"data.eval_split": "all"})
    with pytest.raises(UsageError, match="cat/bad.png"):
        measure(tmp_path, run_folder, **overrides)
    found = measure(tmp_path, run_folder, **overrides, **{"data.max_bad_share": 0.05})
    assert found["num_images"]["evaluated"] == 40 and found["num_images"]["bad"] == 2


BAD = {
    "k": ({"knn.k": (0,)}, "numbers above 0, such as --config.knn.k="),
    "no k": ({"knn.k": ()}, "one or more numbers"),
    "temperature": ({"knn.temperature": (-1.0,)}, "--config.knn.temperature="),
    "fraction": ({"knn.validation_share": 1.0}, "validation_share must be between"),
    "batch": ({"batch_size": 0}, "batch_size must be above 0"),
    "checkpoint": ({"checkpoint": "/nowhere"}, "no such path"),
    "no checkpoint": ({"checkpoint": ""}, "--config.checkpoint=RUN"),
    "set": ({"data.name": "cifar"}, "Did you mean 'cifar10'"),
    "split": ({"data.eval_split": "tset"}, "split.*Did you mean 'test'"),
    "folder": ({"data.dir": "/nowhere"}, "add --config.data.name=folder"),
    "no folder": ({"data.name": "folder", "data.dir": "/nowhere"}, "No folder '/nowhere'"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_refused_before_anything_is_written(case, run_folder, tmp_path):
    overrides, message = BAD[case]
    run = functools.partial(measure, run=run_folder, **overrides)
    evaluations.assert_refused(run, tmp_path / "out", message)


@pytest.mark.parametrize("eval_split", ["test", "leave_one_out"])
def test_images_without_labels_neither_vote_nor_count(
    eval_split, run_folder, tmp_path, monkeypatch
):
    load = datasets.load

    def partly(name, split, **options):
        data = load(name, split, **options).take(60)
        return data.replace(labels=np.where(np.arange(60) % 3, data.labels, -1))

    monkeypatch.setattr(datasets, "load", partly)
    found = measure(tmp_path, run_folder, **{"data.eval_split": eval_split})
    counts = found["num_images"]
    assert counts["train"] == 40 and counts["bad"] == 0
    if eval_split == "test":
        assert counts["evaluated"] == 40 and counts["unlabeled"] == 40
    else:
        assert counts["evaluated"] == 36 and counts["unlabeled"] == 20
    assert found["label_free"]["view_images"] == 60


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_share_of_bad_images_is_a_share(fraction, run_folder, tmp_path):
    with pytest.raises(UsageError, match="max_bad_share must be between 0 and 1"):
        measure(tmp_path, run_folder, **{"data.max_bad_share": fraction})
