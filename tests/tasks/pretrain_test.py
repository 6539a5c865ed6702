"""A whole small run inside of this process: what it leaves, how it resumes, what it refuses."""

import json
import shutil

import jax
import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.tasks import pretrain
from byol_jax.training import build, summary
from byol_jax.workdir import run_folder as workdir
from tests.conftest import final_state, make_config, make_settings

pytestmark = pytest.mark.slow  # each worker would train a run for them


def without_speed(rows):
    return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in rows]


def test_a_run_leaves_config_metrics_checkpoints_and_events(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    expected = {"config.json", "data.json", "metrics.jsonl", "checkpoints", "tensorboard"}
    assert names == expected | {"sessions.jsonl", "gallery", "lock"}
    galleries = {path.name for path in (run_folder / "gallery").iterdir()}
    assert galleries == {
        "start.npz",
        *(f"{n}.json" for n in "pairs neighbours atlas classes".split()),
    }
    (events,) = (run_folder / "tensorboard").iterdir()
    assert all(words in events.read_bytes() for words in (b"pairs", b"neighbours"))
    assert json.loads((run_folder / "config.json").read_text())["batch_size"] == 8
    assert {path.name for path in (run_folder / "checkpoints").iterdir()} == {"2", "4"}


def test_metrics_have_the_names_that_scripts_rely_on(run_folder):
    rows = workdir.read_metrics(run_folder)
    assert [row["step"] for row in rows] == [0, 1, 2, 2, 3, 4, 4]
    names = "loss repr_loss view1_loss view2_loss target_cosine online_loss online_top1"
    names += " online_top5 learning_rate tau gradient_norm feature_std effective_rank"
    names += " images_per_second"
    assert set(rows[1]) == {"step"} | {f"train/{name}" for name in names.split()}
    probe = {"step", "probe/knn_top1", "probe/feature_std", "probe/effective_rank"}
    assert set(rows[0]) == probe | {"probe/linear_top1", "probe/raw_pixels_knn_top1"}
    assert set(rows[3]) == probe and set(rows[-1]) == probe | {"probe/linear_top1"}
    assert rows[1]["train/loss"] == pytest.approx(
        rows[1]["train/repr_loss"] + rows[1]["train/online_loss"]
    )


@pytest.mark.slow
def test_stopped_at_any_step_and_resumed_is_bit_identical(run_folder, tmp_path):
    """As if the run had been killed after its first checkpoint."""
    shutil.copytree(run_folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    pretrain.run(make_config(), tmp_path / "run")
    straight, resumed = (
        final_state(folder, make_config()) for folder in (run_folder, tmp_path / "run")
    )
    assert straight.step == 4
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    rows = [without_speed(workdir.read_metrics(f)) for f in (run_folder, tmp_path / "run")]
    assert rows[0] == rows[1]


def test_a_session_notes_of_how_many_images_its_probes_are(run_folder):
    rows = [json.loads(line) for line in (run_folder / "sessions.jsonl").read_text().splitlines()]
    probes = [row for row in rows if row["event"] == "probe"]
    assert probes == [{"event": "probe", "num_images": 100}]


def test_a_finished_run_says_so_and_changes_nothing(run_folder, capsys):
    before = (run_folder / "metrics.jsonl").read_bytes()
    pretrain.run(make_config(), run_folder)
    assert (run_folder / "metrics.jsonl").read_bytes() == before
    assert "after 4 steps" in capsys.readouterr().err


def test_a_run_killed_before_its_last_probe_makes_up_for_it(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    pretrain.run(make_config(), tmp_path / "run")
    assert path.read_text() == "".join(lines)


def test_the_summary_is_shown(run_folder):
    text = summary.summarize(run_folder, make_settings().collapse)
    assert "random network" in text and "raw pixels" in text and str(run_folder) in text


def test_a_collapsed_run_says_so(run_folder, tmp_path):
    shutil.copy(run_folder / "metrics.jsonl", tmp_path)
    overrides = {"collapse.patience": 2, "collapse.min_effective_rank": 0.0}
    collapse = make_settings(**overrides).collapse
    for step in (5, 6):
        assert "COLLAPSED" not in summary.summarize(tmp_path, collapse)
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "train/feature_std": 0.02}) + "\n")
    assert "nearly the same projection (feature std 0.020)" in summary.summarize(tmp_path, collapse)


@pytest.mark.slow
def test_another_run_can_be_started_from_its_networks(run_folder):
    job = build.build(make_config(seed=1, checkpoint=str(run_folder)))
    expected = final_state(run_folder, make_config())
    assert job.state.step == 0
    for name in ("online_params", "target_params", "online_state", "target_state"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(job.state, name), getattr(expected, name)
        )


BAD = {
    "encoder": ({"model.encoder": "resnet51"}, "Unknown encoder.*resnet50"),
    "stem": ({"model.stem": "imagnet"}, "Unknown stem.*imagenet"),
    "padding": ({"model.padding": "valid"}, "Unknown padding.*same, torch"),
    "objective": ({"objective.name": "boyl"}, "objective.name.*Did you mean 'byol'"),
    "schedule": ({"objective.target_ema_schedule": "cos"}, "target_ema_schedule.*cosine"),
    "optimizer": ({"optimizer.name": "adam"}, "optimizer.name.*adamw"),
    "data set": ({"data.name": "cifar"}, "data.name.*Did you mean 'cifar10'"),
    "split": ({"data.train_split": "trian"}, "split.*Did you mean 'train'"),
    "devices": ({"batch_size": 6}, "does not divide by 4 devices: take 4 or 8"),
    "micro-batches": (
        {"batch_size": 24, "accumulate": 4},
        "does not divide by 4 devices x 4 micro-batches: take 16 or 32",
    ),
    "accumulate": ({"accumulate": 0}, "accumulate must be above 0"),
    "one image a norm": (
        {"batch_size": 4, "model.bn_group_size": 1},
        "Batch norm would see one image at a time.*bn_group_size",
    ),
    "statistics": ({"accumulate_statistics": "exakt"}, "Did you mean 'exact'"),
    "groups": ({"model.bn_group_size": 3}, "divide the 4 devices: take one of 1, 2, 4"),
    "collapse": ({"collapse.action": "halt"}, "collapse.action.*stop, warn"),
    "dtype": ({"model.dtype": "float16"}, "model.dtype.*bfloat16, float32"),
    "batch": ({"batch_size": 400}, "larger than the data set"),
    "zero steps": ({"total_steps": 0}, "total_steps must be above 0"),
    "no steps": ({"total_steps": None, "total_epochs": 1e-3}, "would have 0 steps"),
    "no length": ({"total_steps": None}, "Set total_steps or total_epochs"),
    "crop": ({"augment.crop.min_area": 0.01}, "too small for this crop"),
    "size": ({"data.image_size": 4}, "too small for this crop"),
    "area": ({"augment.crop.max_area": 0.1}, "min_area 0.4 is above max_area"),
    "method": ({"augment.crop.method": "cubicc"}, "Did you mean 'cubic'"),
    "probability": ({"augment.view1.blur_probability": 1.5}, "blur_probability must be between"),
    "tau": ({"objective.base_target_ema": 1.5}, "base_target_ema must be between"),
    "fraction": ({"data.max_bad_share": 1.5}, "max_bad_share must be between 0 and 1"),
    "mean alone": ({"data.std": None}, "Set both data.mean and data.std"),
    "threads": ({"data.threads": -1}, "data.threads must"),
    "workers": ({"data.workers": -1}, "data.workers must"),
    "folder": ({"data.name": "folder", "data.dir": "/nowhere"}, "No folder '/nowhere'"),
    "no folder": ({"data.name": "folder"}, "No folder ''.*--config.data.dir"),
    "checkpoint": ({"checkpoint": "/nowhere"}, "No checkpoint at /nowhere"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_configs_are_refused_before_anything_is_written(case, tmp_path):
    overrides, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        pretrain.run(make_config(**overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_checkpoint_of_another_encoder_is_refused(run_folder):
    config = make_config(checkpoint=str(run_folder), **{"model.encoder": "tiny_resnet"})
    message = "of another encoder.*set --config.model.encoder=micro_resnet"
    with pytest.raises(UsageError, match=message):
        build.build(config)


@pytest.mark.slow
def test_a_workdir_with_checkpoints_of_another_encoder_is_refused(run_folder, tmp_path):
    """Also when its config was lost."""
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    config = make_config(**{"model.encoder": "tiny_resnet"})
    with pytest.raises(UsageError, match="model.encoder: micro_resnet -> tiny_resnet"):
        pretrain.run(config, tmp_path / "run")
    for about in (tmp_path / "run" / "checkpoints").glob("*/about"):  # as by earlier versions
        shutil.rmtree(about)
    with pytest.raises(UsageError, match="another network"):
        pretrain.run(config, tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert (tmp_path / "run" / "checkpoints" / "4").exists()


def test_changes_are_accepted_only_if_the_checkpoint_fits_them(run_folder, tmp_path):
    """Else the run could be resumed under neither config."""
    shutil.copytree(run_folder, tmp_path / "run")
    for key, value, message in (
        ("model.encoder", "tiny_resnet", "another network"),
        ("optimizer.name", "adamw", "another optimizer"),
    ):
        with pytest.raises(UsageError, match=message):
            pretrain.run(make_config(accept_changes=True, **{key: value}), tmp_path / "run")
        for name in ("config.json", "data.json", "sessions.jsonl", "metrics.jsonl"):
            same = (tmp_path / "run" / name, run_folder / name)
            assert same[0].read_bytes() == same[1].read_bytes()
    pretrain.run(make_config(), tmp_path / "run")


def test_a_workdir_of_another_config_is_refused(run_folder):
    with pytest.raises(UsageError, match="total_steps: 4 -> 5"):
        pretrain.run(make_config(total_steps=5), run_folder)


def test_a_run_with_a_queue_resumes_to_the_last_bit(tmp_path):
    """As if it had been killed after its first checkpoint."""
    keys = {"objective.name": "moco_v2", "objective.moco_v2.queue_size": 32}
    config = make_config(**keys, **{"gallery.max_images": 0})
    pretrain.run(config, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "4")
    pretrain.run(config, tmp_path / "resumed")
    straight, resumed = (final_state(tmp_path / name, config) for name in ("straight", "resumed"))
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    assert straight.objective_state[1] == 0  # 4 steps of 8 keys fill 32 columns
