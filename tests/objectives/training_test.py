"""What the trainer makes of each objective: several devices, targets, state, mistakes."""

import jax
import numpy as np
import optax
import pytest

from byol_jax.config import UsageError
from byol_jax.distributed import pmap
from byol_jax.models import byol_network
from byol_jax.objectives import contract, directpred, moco_v2, ssl_hsic, swav, table
from byol_jax.training import objective_setup, settings, step_loss, train_step
from tests.conftest import make_config

SETTINGS = {
    "moco_v2": moco_v2.Settings(queue_size=32),
    "swav": swav.Settings(prototypes=10, frozen_steps=1, queue_size=32),
    "ssl_hsic": ssl_hsic.Settings(features=16),
}
FAST = ("infonce", "moco_v2", "barlow_twins", "vicreg")  # others take long to compile


class Linear:
    """A forward function of matrices: encoder and projector in one, predictor."""

    def apply(self, params, state, _, view, *, is_training, part="online"):
        del is_training
        projection = view @ params["projector"]["w"]
        if part == "target":
            return byol_network.Outputs(view, projection), state
        return byol_network.Outputs(view, projection, projection @ params["predictor"]["w"]), state


def make(config, predictor="mlp"):
    return objective_setup.make_objective(settings.objective_of(config), predictor_head=predictor)


def train(bound, *, devices, steps=3, dtype=np.float64):
    """The state after some steps, and the losses."""
    rng = np.random.default_rng(0)
    optimizer = optax.sgd(0.1, momentum=0.9)
    axis = pmap.AXIS if devices > 1 else None
    update = train_step.make_update(
        step_loss.make_loss(Linear(), bound, axis=axis),
        optimizer,
        lambda key, batch: (batch["view1"], batch["view2"]),
        seed=0,
        learning_rate=lambda step: 0.1,
        target_ema=(lambda step: 0.9) if bound.has_target_network else None,
        axis=axis,
        constrain=bound.objective.constrain,
    )
    own = bound.init(jax.random.key(0), contract.Sizes(6, 16))
    cast = lambda tree: jax.tree.map(  # noqa: E731
        lambda x: np.asarray(x, dtype if np.issubdtype(x.dtype, np.floating) else None), tree
    )
    params = cast({name: {"w": rng.normal(size=s)} for name, s in SHAPES.items()} | own.params)
    target = {"projector": cast({"w": rng.normal(size=SHAPES["projector"])})}
    state = train_step.TrainState(
        np.int32(0),
        params,
        target if bound.has_target_network else {},
        {},
        {},
        optimizer.init(params),
        cast(own.state),
    )
    run = pmap.pmap_update(update, num_devices=devices) if axis else jax.jit(update)
    losses = []
    for _ in range(steps):
        views = rng.normal(size=(2, 16, 5)).astype(dtype)
        batch = {"view1": views[0], "view2": views[1], "labels": np.zeros(16, np.int32)}
        batch = pmap.shard(batch, num_devices=devices) if axis else batch
        state, scalars, _ = run(state, batch)
        losses.append(float(scalars["loss"]))
    return jax.device_get(state), losses


SHAPES = {"projector": (5, 6), "predictor": (6, 6)}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in table.OBJECTIVES],
)
def test_four_devices_train_as_one(name):
    bound = contract.bind(table.OBJECTIVES[name], SETTINGS.get(name))
    with jax.enable_x64(True):
        one, losses = train(bound, devices=1)
        four, sharded = train(bound, devices=4)
    np.testing.assert_allclose(losses, sharded, rtol=1e-9)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9, rtol=1e-9), one, four)
    assert losses[0] != losses[-1]


def test_a_queue_is_part_of_the_state_and_goes_round():
    bound = contract.bind(table.OBJECTIVES["moco_v2"], SETTINGS["moco_v2"])
    state, _ = train(bound, devices=1, steps=1, dtype=np.float32)
    queue = moco_v2.Queue(*state.objective_state)
    assert queue.keys.shape == (6, 32) and queue.pointer == 16
    np.testing.assert_allclose(np.linalg.norm(queue.keys, axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("predictor", "target"),
    [(p, t) for p in (True, False) for t in ("ema", "stop_gradient", "none")],
)
def test_the_bridge_has_all_rows_of_the_papers_table_19_by_its_keys(predictor, target):
    for weight in (0.0, 1.0):
        keys = {"predictor": predictor, "target": target, "infonce.weight": weight}
        keys |= {"name": "infonce"}
        config = make_config(**{f"objective.{key}": value for key, value in keys.items()})
        bound = make(config)
        assert (bound.has_predictor, bound.target) == (predictor, target)
        assert bound.settings.weight == weight


def test_a_target_without_a_network_of_its_own_keeps_none():
    for kind, has_network in contract.TARGETS.items():
        bound = contract.bind(table.OBJECTIVES["infonce"], target=kind)
        assert bound.has_target_network == has_network


MISTAKES = {
    "target": ({"objective.target": "emaa"}, "objective.target.*Did you mean 'ema'"),
    "kind of target": (
        {"objective.name": "simclr", "objective.target": "ema"},
        "target=ema does not go with objective.name=simclr: take one of none, or .*infonce",
    ),
    "no predictor": (
        {"objective.name": "simsiam", "objective.predictor": False},
        "predictor=false: objective.name=simsiam needs its predictor.*byol",
    ),
    "a predictor": (
        {"objective.name": "vicreg", "objective.predictor": True},
        "predictor=true: objective.name=vicreg has no predictor.*infonce",
    ),
    "micro-batches": (
        {"objective.name": "simclr", "accumulate": 2},
        "simclr compares all images of a batch.*accumulate_statistics=exact",
    ),
    "no predictor, by the network": (
        {"objective.name": "simsiam", "model.predictor": "none"},
        "model.predictor=none: objective.name=simsiam needs its predictor.*byol",
    ),
    "both keys": (
        {"objective.predictor": True, "model.predictor": "none"},
        "objective.predictor=true and --config.model.predictor=none contradict",
    ),
    "closed form in parts": (
        {"model.predictor": "directpred", "accumulate": 2},
        "model.predictor=directpred is made of all images.*accumulate_statistics=exact",
    ),
    "one image": (
        {"objective.name": "vicreg", "batch_size": 1},
        "vicreg compares the images of a batch: --config.batch_size=1 leaves none",
    ),
    "queue of swav": (
        {"objective.name": "swav", "objective.swav.queue_size": 30},
        "swav.queue_size=30 is no multiple of --config.batch_size=8: take 24 or 32",
    ),
    "queue": (
        {"objective.name": "moco_v2", "objective.moco_v2.queue_size": 30},
        "queue_size=30 is no multiple of --config.batch_size=8: take 24 or 32",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_an_objective_that_does_not_fit_is_refused(case):
    keys, message = MISTAKES[case]
    config = make_config(**keys)
    with pytest.raises(UsageError, match=message):
        objective_setup.check(config, make(config, config.model.predictor))


def test_what_compares_images_takes_micro_batches_of_exact_statistics():
    keys = {"objective.name": "simclr", "accumulate": 2, "accumulate_statistics": "exact"}
    config = make_config(**keys)
    objective_setup.check(config, make(config))


@pytest.mark.parametrize("name", ["directpred", pytest.param("directcopy", marks=pytest.mark.slow)])
def test_a_predictor_of_closed_form_is_of_the_state_and_of_all_devices(name):
    bound = make(make_config(**{"model.predictor": name}), name)
    with jax.enable_x64(True):
        one, losses = train(bound, devices=1)
        four, sharded = train(bound, devices=4)
    np.testing.assert_allclose(losses, sharded, rtol=1e-9)
    statistics = directpred.Statistics(*one.objective_state[0])
    assert statistics.count == 3 and statistics.correlation.shape == (6, 6)
    np.testing.assert_allclose(statistics.correlation, four.objective_state[0][0], atol=1e-12)


@pytest.mark.slow
def test_the_assignments_of_a_batch_change_once_the_queue_is_full():
    settings_of = {"prototypes": 10, "frozen_steps": 0}
    with_queue, without = (
        contract.bind(table.OBJECTIVES["swav"], swav.Settings(**settings_of, queue_size=size))
        for size in (32, 0)
    )
    state, losses = train(with_queue, devices=1, steps=4)
    _, plain = train(without, devices=1, steps=4)
    assert swav.Queue(*state.objective_state).count == 32
    np.testing.assert_allclose(losses[:2], plain[:2])  # two batches of 16 fill it
    assert abs(losses[2] - plain[2]) > 1e-6
