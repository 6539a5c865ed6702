"""From a study to its runs, and what is refused before any of them starts."""

import json

import pytest

from byol_jax import config as config_lib
from byol_jax.cli import typed_values
from byol_jax.studies import children, grid, study
from tests.studies import small

TAU = study.axis_of_key("tau", "objective.base_target_ema", (1.0, 0.5))
PREDICTOR = study.Axis(
    "predictor", {"with": {}, "without": {"objective.name": "byol_no_predictor"}}
)


def test_there_is_a_run_for_each_cell_and_seed_and_all_cells_of_the_first_seed_come_first():
    runs = grid.make_runs(small.make(axes=(TAU, PREDICTOR)))
    assert [run.name for run in runs][:5] == [
        *("1.0_with-seed0", "1.0_without-seed0", "0.5_with-seed0", "0.5_without-seed0"),
        "1.0_with-seed1",
    ]
    assert len(runs) == 8
    last = runs[-1].config
    assert (last.objective.base_target_ema, last.objective.name, last.seed) == (
        *(0.5, "byol_no_predictor", 1),
    )
    assert last.total_steps == 4


def test_a_level_wins_over_the_settings_of_all_runs():
    axis = study.axis_of_key("length", "total_steps", (3, 5))
    assert [
        run.config.total_steps for run in grid.make_runs(small.make(axes=(axis,), seeds=1))
    ] == [
        3,
        5,
    ]


def test_the_command_of_a_run_is_what_a_person_would_type(tmp_path):
    run = grid.make_runs(small.make())[0]
    words = children.command(run, "configs/byol.py:patterns", tmp_path)
    assert words[:4] == ["python", "-m", "byol_jax.main_loop", "--config=configs/byol.py:patterns"]
    assert "--config.objective.base_target_ema=1.0" in words and "--config.seed=0" in words


REFUSED = {
    "an unknown key": (
        {"axes": (study.axis_of_key("tau", "objective.tau", (1.0,)),)},
        "Cell '1.0, seed 0' of the study 'small': Unknown key in --config: 'objective.tau'",
    ),
    "a value of another type": (
        {"axes": (study.axis_of_key("tau", "objective.base_target_ema", ("fast",)),)},
        "base_target_ema takes a number",
    ),
    "a value out of range": (
        {"axes": (study.axis_of_key("tau", "objective.base_target_ema", (2.0,)),)},
        "base_target_ema must be between 0 and 1, not 2",
    ),
    "a key without effect": (
        {"settings": {"optimizer.adamw.b1": 0.5}},
        "optimizer.adamw.b1 has no effect",
    ),
    "a base that does not train": ({"base": "configs/knn.py"}, "is a config of knn"),
    "a base that there is not": ({"base": "configs/bio.py"}, "Cannot read the file"),
    "the seed as an axis": (
        {"axes": (study.axis_of_key("seed", "seed", (1, 2)),)},
        "sets seed, which is not for it to set",
    ),
    "an axis twice": ({"axes": (TAU, TAU)}, "two axes called 'tau'"),
    "a key of two axes": (
        {"axes": (TAU, study.axis_of_key("ema", "objective.base_target_ema", (0.3, 0.4)))},
        "The axes 'tau' and 'ema' both set objective.base_target_ema",
    ),
    "names that are the same as files": (
        {"axes": (study.Axis("x", {"a b": {}, "a/b": {"total_steps": 9}}),)},
        "'a b' and 'a/b' would have the same files",
    ),
    "cells that are the same": (
        {"axes": (study.Axis("x", {"a": {}, "b": {"total_steps": 4}}),)},
        "'a' and 'b' have the same settings",
    ),
    "no axis": ({"axes": ()}, "has no axes"),
    "an axis without levels": ({"axes": (study.Axis("x", {}),)}, "'x' has no levels"),
    "a key that is unset": ({"settings": {"total_steps": None}}, "unsets total_steps"),
    "a finding about nothing": (
        {"findings": (study.Finding("it helps", "0.5", "0.6"),)},
        r"a cell that it does not have: '0.6'. Did you mean '0.5'\?",
    ),
    "a finding about a metric that there is not": (
        {"findings": (study.Finding("it helps", "0.5", "1.0", metric="probe/loss"),)},
        "is about probe/loss, which is none of the metrics",
    ),
    "the paper's number of nothing": ({"paper": {"0.7": 1.0}}, "does not have: '0.7'"),
}


@pytest.mark.parametrize("changes, message", REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_one_line(changes, message):
    with pytest.raises(config_lib.UsageError, match=message) as caught:
        grid.make_runs(small.make(**changes))
    assert "\n" not in str(caught.value)


PARTS = {
    "objective.name": "byl",
    "objective.target_ema_schedule": "cosin",
    "model.encoder": "micro_resnett",
    "model.stem": "pach",
    "data.name": "pattern",
    "batch_size": 100_000,
}


@pytest.mark.parametrize("key", PARTS)
def test_what_a_run_would_refuse_is_refused_before_any_starts(key, tmp_path):
    runs = grid.make_runs(small.make(settings={key: PARTS[key]}, seeds=1))
    with pytest.raises(config_lib.UsageError, match="Cell '1.0': "):
        grid.check(runs, lambda run: tmp_path / run.name)
    assert list(tmp_path.iterdir()) == []


def test_runs_of_other_settings_in_the_same_folder_are_refused(tmp_path):
    runs = grid.make_runs(small.make(seeds=1))
    for run in runs:
        (tmp_path / run.name).mkdir()
        (tmp_path / run.name / "config.json").write_text(json.dumps(run.config.to_dict()))
    grid.check(runs, lambda run: tmp_path / run.name)
    longer = grid.make_runs(small.make(seeds=1, settings={"total_steps": 9}))
    with pytest.raises(
        config_lib.UsageError, match=r"other settings \(.*total_steps: 4 -> 9\): give"
    ):
        grid.check(longer, lambda run: tmp_path / run.name)


def test_what_a_study_file_says_is_not_typed():
    with pytest.raises(config_lib.UsageError, match="the study file says what metrics are"):
        typed_values.check("metrics", tuple, "loss")


def test_runs_are_chosen_by_name_and_by_shard():
    runs = grid.make_runs(small.make())
    assert [run.name for run in grid.select(runs, only="0.5*", shard="")] == [
        *("0.5-seed0", "0.5-seed1"),
    ]
    assert len(grid.select(runs, only="0.5-seed0, 1.0-seed1", shard="")) == 2
    shards = [grid.select(runs, only="", shard=f"{i}/3") for i in range(3)]
    assert sorted(run.name for shard in shards for run in shard) == sorted(run.name for run in runs)


@pytest.mark.parametrize("only, shard", [("0.7*", ""), ("", "3/3"), ("", "two")])
def test_a_choice_that_is_none_is_refused(only, shard):
    with pytest.raises(config_lib.UsageError, match="--config.(only|shard)="):
        grid.select(grid.make_runs(small.make()), only=only, shard=shard)
