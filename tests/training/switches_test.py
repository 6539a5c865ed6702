"""The switches of the paper's ablations in training: what starts, and that each takes a step."""

import functools

import jax
import numpy as np
import optax
import pytest

from byol_jax.distributed import pmap
from byol_jax.models import byol_network, norms, resnet
from byol_jax.training import build, config_checks, settings, train_step
from byol_jax.workdir import run_folder
from tests.conftest import make_config

CARD = run_folder.DataCard(640, 10, "", (0.5,) * 3, (0.5,) * 3)
NO_BATCH_NORM = {"model.norm": "group", "model.head_norm": "group", "model.norm_groups": 4}
SWITCHES = {
    "without batch norm": NO_BATCH_NORM | {"model.weight_standardization": True},
    "no predictor": {"model.predictor": "none"},
    "faster predictor": {"optimizer.multipliers": "predictor=10"},
    "layer norm": {"model.norm": "layer", "model.head_norm": "layer"},
    "no norm": {"model.norm": "none", "model.head_norm": "none"},
    "linear predictor": {"model.predictor": "linear"},
    "deep heads": {"model.projector_hidden_layers": 2, "model.predictor_hidden_layers": 3},
    "linear heads": {"model.projector_hidden_layers": 0, "model.predictor_hidden_layers": 0},
    "bias": {"model.head_bias": True},
    "in parts": NO_BATCH_NORM | {"accumulate": 2, "accumulate_statistics": "exact"},
    "one target": {"objective.target_init": "online"},
    "no crop": {"augment.crop.enabled": False},
    "tau 1": {"objective.base_target_ema": 1.0, "objective.target_ema_schedule": "constant"},
    "tau 0": {"objective.base_target_ema": 0.0, "objective.target_ema_schedule": "constant"},
    "adamw": {"optimizer.name": "adamw", "optimizer.multipliers": "projector=2,predictor=10"},
}
FAST = ("without batch norm", "no predictor", "faster predictor")


@pytest.fixture
def traced(monkeypatch):
    """Lets `init_state` be traced: options of a compiler are for what is compiled."""
    monkeypatch.setattr(jax, "default_backend", lambda: "none")


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[] if c in FAST else pytest.mark.slow) for c in SWITCHES]
)
def test_each_switch_takes_a_step_that_keeps_the_shapes_of_its_state(case, traced):
    config = make_config(**SWITCHES[case])
    config_checks.check(config)
    found = settings.resolve(config, num_images=640)
    optimizer, learning_rate = build.make_optimizer(found)
    init = functools.partial(
        train_step.init_state,
        build.make_forward(found, CARD),
        optimizer,
        seed=0,
        image_size=32,
        target_init=found.objective.target_init,
    )
    state = jax.eval_shape(init)
    update = build.make_update(found, CARD, optimizer, learning_rate)
    images = np.zeros((8, 32, 32, 3), np.uint8)
    batch = {"images": images, "labels": np.zeros(8, np.int32), "place": np.arange(8)}
    step = jax.vmap(update, axis_name=pmap.AXIS, in_axes=(None, 0), out_axes=(None, None, 0))
    after, metrics, _ = jax.eval_shape(step, state, pmap.shard(batch))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].shape == ()


@pytest.fixture
def mini_network(monkeypatch):
    spec = resnet.ResNetSpec("mini", (1,), (8,), (2,), False, stem_channels=4)
    monkeypatch.setitem(resnet.ENCODERS, "mini", spec)
    return byol_network.make_forward(
        "mini",
        stem="patch",
        num_classes=0,
        projector_hidden_size=8,
        projector_output_size=4,
        head_norm=norms.NormSpec("none"),
    )


def test_the_target_starts_equal_to_the_online_network_or_is_drawn(mini_network):
    def start(target_init):
        state = train_step.init_state(
            mini_network, optax.sgd(0.1), seed=0, image_size=16, target_init=target_init
        )
        w = "mini/~/initial_conv"
        return state.online_params[w]["w"], state.target_params[w]["w"]

    online, target = start("online")
    np.testing.assert_array_equal(target, online)
    assert target is not online  # each has a buffer of its own, which training gives away
    again, drawn = start("drawn")
    np.testing.assert_array_equal(again, online)
    assert (drawn != online).any()


MISTAKES = {
    "norm": ({"model.norm": "instance"}, "Unknown model.norm: 'instance'"),
    "heads": ({"model.head_norm": "b"}, "Unknown model.head_norm"),
    "predictor": ({"model.predictor": "deep"}, "Unknown model.predictor"),
    "groups": ({"model.norm": "group", "model.norm_groups": 5}, "take 16, for example"),
    "head groups": ({"model.head_norm": "group", "model.norm_groups": 32}, "does not divide 16"),
    "multipliers": ({"optimizer.multipliers": "predictor"}, "optimizer.multipliers"),
    "target": ({"objective.target_init": "equal"}, "Unknown objective.target_init"),
    "layers": ({"model.predictor_hidden_layers": -1}, "predictor_hidden_layers must be at least"),
    "tau": ({"objective.base_target_ema": 1.5}, "base_target_ema must be between 0 and 1"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_in_switches_are_refused_by_their_key(case):
    keys, words = MISTAKES[case]
    with pytest.raises(build.config_lib.UsageError, match=words):
        config_checks.check(make_config(**keys))


def test_a_multiplier_of_no_module_is_refused_when_the_run_is_built(traced):
    config = make_config(**{"optimizer.multipliers": "predictr=10"})
    found = settings.resolve(config, num_images=640)
    optimizer, _ = build.make_optimizer(found)
    with pytest.raises(build.config_lib.UsageError, match="no module fits 'predictr'"):
        jax.eval_shape(
            lambda: train_step.init_state(
                build.make_forward(found, CARD), optimizer, seed=0, image_size=32
            )
        )
