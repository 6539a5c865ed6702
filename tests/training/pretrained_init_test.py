"""Pretraining that starts from other people's files."""

import json
import shutil

import jax
import numpy as np
import pytest

from byol_jax.checkpoints import (
    deepmind,
    encoders,
    orbax_reader,
    torch_checkpoint,
    torchvision_names,
)
from byol_jax.config import UsageError
from byol_jax.models import encoder_spec
from byol_jax.tasks import pretrain
from byol_jax.training import build, pretrained_init
from tests.checkpoints.third_party_weights_test import random_network
from tests.conftest import final_state, make_config
from tests.support import golden_data

PICKLE = golden_data.FOLDER / "deepmind_tiny.pkl"
SAME_NETWORK = {
    "checkpoint": str(PICKLE),
    "model.encoder": "tiny_resnet",
    "model.stem": "imagenet",
    "model.projector_hidden_size": 64,
    "model.projector_output_size": 32,
    "model.predictor_hidden_size": 64,
}


def config_for_pickle(**overrides):
    return make_config(**SAME_NETWORK, **overrides)


@pytest.fixture(scope="module")
def job():
    return build.build(config_for_pickle())


def assert_equal(tree, expected):
    """Every array, and no other."""
    kept = {module: dict(leaves) for module, leaves in expected.items()}
    assert tree.keys() == kept.keys()
    for module, leaves in kept.items():
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(tree[module][name], leaf, err_msg=f"{module}/{name}")


def test_both_networks_of_deepminds_file_are_taken_and_training_begins_anew(job):
    golden = deepmind.load_pickle(PICKLE)
    assert_equal(job.state.online_params, golden.online_params)
    assert_equal(job.state.online_state, golden.online_state)
    for tree in ("target_params", "target_state"):
        whole = getattr(golden, tree)  # theirs has heads that nothing reads
        expected = {name: x for name, x in whole.items() if golden_data.is_kept(name)}
        assert_equal(getattr(job.state, tree), expected)
    assert job.state.step == 0
    momentum = [x for x in jax.tree.leaves(job.state.opt_state) if np.ndim(x)]
    assert momentum and not any(np.any(x) for x in momentum)


def test_a_classifier_of_other_classes_stays_as_drawn(job):
    classifier = {"w": np.ones((8, 3), np.float32), "b": np.ones(3, np.float32)}
    drawn = job.state._replace(online_params=job.state.online_params | {"classifier": classifier})
    card = encoder_spec.EncoderSpec("tiny_resnet")
    taken = pretrained_init.load_networks(str(PICKLE), drawn, card).online_params
    assert taken["classifier"] is classifier
    np.testing.assert_array_equal(
        taken["projector/linear"]["w"], job.state.online_params["projector/linear"]["w"]
    )


def test_without_a_target_both_networks_start_from_the_same_and_heads_are_drawn(job, tmp_path):
    card = encoder_spec.EncoderSpec("resnet18", padding="torch")
    (params, state), (drawn, drawn_state) = (random_network(card, seed) for seed in (0, 1))
    path = str(tmp_path / "resnet18.safetensors")
    torch_checkpoint.save_safetensors(path, torchvision_names.to_torch(params, state), metadata={})
    head = {"projector/linear": {"b": np.ones(3, np.float32)}}
    begin = job.state._replace(
        online_params=drawn | head,
        target_params=drawn | head,
        online_state=drawn_state,
        target_state=drawn_state,
    )
    taken = pretrained_init.load_networks(path, begin, card)
    for tree in (taken.online_params, taken.target_params):
        assert_equal(tree, params | head)
    for tree in (taken.online_state, taken.target_state):
        averages = {module: {"average": leaves["average"]} for module, leaves in tree.items()}
        assert_equal(averages, {m: {"average": x["average"]} for m, x in state.items()})


def test_another_padding_is_refused_though_shapes_agree():
    with pytest.raises(UsageError, match="another encoder.*set --config.model.padding=same"):
        build.build(config_for_pickle(**{"model.padding": "torch"}))


OTHERS = {
    "encoder": (encoder_spec.EncoderSpec("resnet18"), "set --config.model.encoder=tiny_resnet"),
    "width": (encoder_spec.EncoderSpec("tiny_resnet", 2), "set --config.model.width_multiplier=1"),
    "version": (
        encoder_spec.EncoderSpec("tiny_resnet", 1, True),
        "set --config.model.resnet_v2=False",
    ),
    "two": (
        encoder_spec.EncoderSpec("tiny_resnet", stem="cifar", padding="torch"),
        "set --config.model.stem=imagenet --config.model.padding=same",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_encoder_is_refused_by_what_to_set(case, job):
    card, message = OTHERS[case]
    with pytest.raises(UsageError, match=message):
        pretrained_init.load_networks(str(PICKLE), job.state, card)


@pytest.mark.slow
def test_a_run_of_equal_shapes_and_another_padding_is_refused_too(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    config = json.loads((run_folder / "config.json").read_text())
    config["model"]["padding"] = "same" if config["model"]["padding"] == "torch" else "torch"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    build.build(make_config(checkpoint=str(run_folder)))
    with pytest.raises(UsageError, match="another encoder .*set --config.model.padding="):
        build.build(make_config(checkpoint=str(tmp_path / "run")))


@pytest.mark.parametrize("head", ["projector", "predictor"])
def test_heads_of_other_sizes_are_refused(head, job):
    other = job.state.online_params | {f"{head}/linear": {"w": np.zeros((2, 3), np.float32)}}
    with pytest.raises(UsageError, match=f"holds {head}/linear of .*the config builds"):
        pretrained_init.load_networks(
            str(PICKLE),
            job.state._replace(online_params=other),
            encoder_spec.EncoderSpec("tiny_resnet"),
        )


@pytest.mark.slow
def test_a_run_learns_on_from_deepminds_file(tmp_path, job):
    config = config_for_pickle(total_steps=2)
    pretrain.run(config, tmp_path)
    state = final_state(tmp_path, config)
    assert state.step == 2
    name = "tiny_res_net/~/initial_conv"
    begin = job.state.online_params[name]["w"]
    moved = np.abs(state.online_params[name]["w"] - begin).max()
    assert 0 < moved < np.abs(begin).max()


@pytest.mark.slow
def test_a_method_without_target_or_predictor_starts_from_byols_encoder(run_folder, capfd):
    """Heads of other sizes are drawn anew, which is said."""
    keys = {"objective.name": "simclr", "model.projector_hidden_size": 24}
    drawn = build.build(make_config(**keys)).state
    started = build.build(make_config(**keys, checkpoint=str(run_folder))).state
    source = orbax_reader.load_networks(str(run_folder), encoder_of(drawn.online_params))
    assert_equal(encoder_of(started.online_params), encoder_of(source["online"].params))
    heads = {m: x for m, x in started.online_params.items() if m.startswith("projector")}
    assert_equal(heads, {m: x for m, x in drawn.online_params.items() if m in heads})
    assert started.target_params == {} and not any("predictor" in m for m in started.online_params)
    said = " ".join(capfd.readouterr().err.split())
    assert "is of objective byol: its projector would not fit, and what simclr needs is" in said


def encoder_of(params):
    return encoder_spec.encoder_modules(params)


@pytest.mark.slow
def test_byol_starts_from_a_run_without_target_whose_target_is_refused(tmp_path):
    keys = {"objective.name": "simclr", "total_steps": 2, "gallery.max_images": 0}
    pretrain.run(make_config(**keys), tmp_path / "run")
    path = str(tmp_path / "run")
    state = build.build(make_config(checkpoint=path)).state
    found = orbax_reader.load_networks(path, encoder_of(state.online_params))
    assert set(found) == {"online"}
    for tree in (state.online_params, state.target_params):
        assert_equal(encoder_of(tree), encoder_of(found["online"].params))
    assert any(module.startswith("predictor") for module in state.online_params)
    with pytest.raises(UsageError, match="objective.name=simclr keeps none, take .*network=online"):
        encoders.load_encoder(path, network="target")
    assert encoders.load_encoder(path).embedding_size == 96
