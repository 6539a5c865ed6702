"""What evaluations share: which images choose, what is counted, how seeds are put together."""

import types

import ml_collections
import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.data import datasets
from byol_jax.evaluation import baselines, features, protocol, results, settings


@pytest.mark.parametrize(
    ("count", "fraction", "expected"), [(100, 0.1, 10), (5, 0.01, 1), (3, 0.9, 1)]
)
def test_held_out_images_and_the_rest_are_all_images(count, fraction, expected):
    held, rest = protocol.hold_out(count, fraction, seed=3)
    assert len(held) == expected
    np.testing.assert_array_equal(np.sort(np.concatenate([held, rest])), np.arange(count))
    again, _ = protocol.hold_out(count, fraction, seed=3)
    np.testing.assert_array_equal(held, again)


def test_no_more_images_are_held_out_than_the_paper_holds_out():
    held, _ = protocol.hold_out(200_000, 0.1, seed=0)
    assert len(held) == protocol.VALIDATION_IMAGES == 10_000


def make_subject(num_validation):
    train = datasets.ArrayDataset(np.zeros((10, 2, 2, 3), np.uint8), np.zeros(10, np.int32), 2)
    return protocol.EvalSetup(None, None, train, num_validation, None, {})


def test_a_validation_split_is_used_as_it_is_without_its_bad_images():
    usable = np.array([0, 1, 3, 6, 7, 9])  # of ten, the last four are the validation split
    held, rest = protocol.split_train(make_subject(4), usable, 0.5, seed=0)
    np.testing.assert_array_equal(usable[held], [6, 7, 9])
    np.testing.assert_array_equal(usable[rest], [0, 1, 3])


def test_without_a_validation_split_some_images_are_held_out():
    usable = np.array([0, 1, 3, 6, 7, 9])
    found = protocol.split_train(make_subject(0), usable, 0.5, seed=2)
    for ours, expected in zip(found, protocol.hold_out(6, 0.5, seed=2), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert len(found[0]) == 3


def seeds_config(seeds):
    return ml_collections.ConfigDict({"seed": 5, "seeds": seeds})


def test_several_seeds_give_mean_and_deviation_of_a_sample():
    values = {5: 0.5, 6: 0.6, 7: 0.9}
    found = results.over_seeds(
        seeds_config(3),
        lambda seed: {"accuracy": {"top1": values[seed]}},
        lambda seed: {"path": "run", "sha256": "0"},
        drawn="the order",
    )
    assert found["checkpoint"] == {"path": "run", "sha256": "0"}
    assert found["std_over"] == "the order; one network"
    assert found["accuracy"]["top1"] == pytest.approx(2 / 3)
    expected = np.sqrt(sum((v - 2 / 3) ** 2 for v in values.values()) / 2)
    assert found["std"]["top1"] == pytest.approx(expected)
    assert [run["seed"] for run in found["per_seed"]] == [5, 6, 7]


def test_one_seed_has_no_deviation():
    found = results.over_seeds(
        seeds_config(1), lambda seed: {"accuracy": {"top1": 0.5}}, lambda seed: {}, drawn=""
    )
    assert found == {"seed": 5, "accuracy": {"top1": 0.5}, "checkpoint": {}}


def test_networks_that_seeds_draw_are_named_one_by_one():
    found = results.over_seeds(
        seeds_config(2),
        lambda seed: {"accuracy": {"top1": 0.5}},
        lambda seed: {"path": f"seed {seed}", "sha256": str(seed)},
        drawn="the order",
    )
    assert [run["checkpoint"]["sha256"] for run in found["per_seed"]] == ["5", "6"]
    assert found["checkpoint"]["path"] == "2 networks, the first: seed 5"
    assert found["checkpoint"]["sha256"] not in ("5", "6")
    assert found["std_over"] == "the order; a network for each seed"


@pytest.mark.parametrize(("weights", "made"), [("random", [3, 4]), ("checkpoint", [0])])
def test_a_seed_makes_a_network_of_its_own_only_where_it_draws_one(weights, made):
    calls = []
    make = baselines.by_seed(weights, lambda seed: calls.append(seed) or seed)
    assert [make(seed) for seed in (3, 3, 4)] == ([3, 3, 4] if len(made) > 1 else [0, 0, 0])
    assert calls == made


@pytest.mark.parametrize("value", [(), (0.0,), (-1.0, 2.0), ("a",)])
def test_lists_of_numbers_are_checked(value):
    config = ml_collections.ConfigDict({"rates": value})
    with pytest.raises(UsageError, match="above 0, such as --config.rates="):
        settings.numbers(config, "rates", "(0.1, 0.2)")


def test_a_single_number_is_a_list_of_one():
    config = ml_collections.ConfigDict({"rates": 0.5})
    assert settings.numbers(config, "rates", "(0.1, 0.2)") == (0.5,)


def test_images_without_labels_are_left_out_and_counted():
    found = features.Features(np.eye(3), np.array([-1, 0, -1]), np.arange(3))
    counted = protocol.labeled(found, "test")
    assert counted.labels.tolist() == [0] and counted.indices.tolist() == [1]
    data = datasets.ArrayDataset(np.zeros((4, 8, 8, 3), np.uint8), np.full(4, -1), 2)
    assert protocol.count_left_out([data], [found]) == {"bad": 1, "unlabeled": 2}
    with pytest.raises(UsageError, match="None of the 3 images of the test split has a label"):
        protocol.labeled(found._replace(labels=np.full(3, -1)), "test")


def _described(name, directory, trained_on):
    result = {
        "checkpoint": {
            "encoder": "micro_resnet",
            "parameters": 1,
            "path": "run",
            "sha256": "0" * 64,
            "trained_on": trained_on,
        },
        "data": {"name": name, "dir": directory, "train_split": "train", "eval_split": "test"},
        "num_images": {},
        "seed": 0,
        "accuracy": {},
        "choices": {},
    }
    return results.describe(result, lambda found: [])


def test_what_an_encoder_was_trained_on_and_what_it_is_measured_on_are_told_apart():
    text = _described("folder", "/mine", "train_and_valid of imagenet2012")
    assert "pretrained on train_and_valid of imagenet2012\n" in text
    assert "labels are those of train of folder in /mine, evaluated on test" in text
    assert "pretrained on what its file does not say" in _described("patterns", "", None)
    assert "pretrained on nothing\n" in _described("patterns", "", "nothing")


@pytest.mark.parametrize(("name", "split"), [("", "all"), ("folder", "all"), ("patterns", "train")])
def test_splits_of_a_run_are_those_of_its_own_set_only(name, split):
    trained = ml_collections.ConfigDict({"data": {"name": "folder", "train_split": "all"}})
    given = features.Source(name, "")
    encoder = types.SimpleNamespace(config=trained)
    assert features.find_split("", given, encoder, "train_split") == split
