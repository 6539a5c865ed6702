"""LARS, schedules and the moving average against the reference's values."""

import jax
import numpy as np
import optax
import pytest

from byol_jax.training import optimizers
from tests.support import golden_data

LARS = golden_data.load("lars")
SCHEDULES = golden_data.load("schedules")
PRESETS = golden_data.config(SCHEDULES)


@pytest.mark.parametrize("case", golden_data.config(LARS))
def test_lars_equals_the_reference_step_by_step(case):
    config = golden_data.config(LARS)[case]
    rates = LARS[f"{case}|learning_rate"]
    optimizer = optimizers.lars(
        lambda step: jax.numpy.asarray(rates)[step],
        weight_decay=config["weight_decay"],
        momentum=config["momentum"],
        trust_coefficient=config["eta"],
    )
    params = golden_data.tree(LARS, f"{case}|params_0")
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for step in range(1, config["num_steps"] + 1):
        grads = golden_data.tree(LARS, f"{case}|grads_{step}")
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        golden_data.assert_trees_close(
            params, golden_data.tree(LARS, f"{case}|params_{step}"), atol=5e-6
        )
        momentum = optax.tree_utils.tree_get(state, "trace")
        golden_data.assert_trees_close(
            momentum, golden_data.tree(LARS, f"{case}|momentum_{step}"), atol=5e-6
        )


def test_lars_leaves_biases_and_norms_alone():
    params = {
        "conv": {"w": 1, "b": 1},
        "batch_norm": {"scale": 1},
        "group_normalizer/linear": {"w": 1},
        "token": {"scale": 1},
    }
    adapted = optimizers.is_adapted(params)
    assert adapted == {
        "conv": {"w": True, "b": False},
        "batch_norm": {"scale": False},
        "group_normalizer/linear": {"w": False},
        "token": {"scale": True},
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_learning_rate_equals_the_reference(preset):
    config = PRESETS[preset]
    schedule = optimizers.learning_rate_schedule(
        config["base_learning_rate"],
        batch_size=config["batch_size"],
        total_steps=config["max_steps"],
        warmup_steps=config["warmup_steps"],
    )
    peak = config["base_learning_rate"] * config["batch_size"] / 256
    actual = jax.vmap(schedule)(SCHEDULES[f"{preset}|steps"])
    expected = SCHEDULES[f"{preset}|learning_rate"]
    np.testing.assert_allclose(actual, expected, atol=5e-7 * peak, rtol=0)


@pytest.mark.parametrize("preset", PRESETS)
def test_tau_equals_the_reference(preset):
    config = PRESETS[preset]
    schedule = optimizers.cosine_target_ema_schedule(
        config["base_target_ema"], total_steps=config["max_steps"]
    )
    actual = jax.vmap(schedule)(SCHEDULES[f"{preset}|steps"])
    np.testing.assert_allclose(actual, SCHEDULES[f"{preset}|tau"], atol=2e-7, rtol=0)


def test_a_run_that_is_all_warmup_has_a_rate_at_every_step():
    schedule = optimizers.learning_rate_schedule(1.0, batch_size=256, total_steps=5, warmup_steps=5)
    rates = [float(schedule(step)) for step in range(5)]
    np.testing.assert_allclose(rates, [0, 0.2, 0.4, 0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_others_decay_weights_but_not_biases(name):
    recipe = optimizers.OPTIMIZERS[name]
    arguments = {"weight_decay": 0.5, "momentum": 0.9, "b1": 0.9, "b2": 0.999}
    optimizer = recipe.make(
        optax.constant_schedule(0.1), **{key: arguments[key] for key in recipe.arguments}
    )
    params = {"linear": {"w": np.ones(2, np.float32), "b": np.ones(2, np.float32)}}
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["linear"]["w"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["linear"]["b"], 0)


def test_ema_moves_towards_the_new_and_keeps_only_its_own_modules():
    average = {"encoder": {"w": np.zeros(2)}}
    new = {"encoder": {"w": np.ones(2)}, "predictor": {"w": np.ones(3)}}
    result = optimizers.ema(average, new, 0.75)
    assert result.keys() == {"encoder"}
    np.testing.assert_allclose(result["encoder"]["w"], 0.25)


NETWORK = {
    "encoder/~/conv": {"w": np.full((2, 3), 0.5, np.float32)},
    "projector/linear": {"w": np.full((3, 2), 0.5, np.float32), "b": np.full(2, 0.25, np.float32)},
    "predictor/linear": {"w": np.full((3, 2), 0.5, np.float32), "b": np.full(2, 0.25, np.float32)},
}
RECIPES = {
    "lars": dict(weight_decay=1e-2, momentum=0.9, trust_coefficient=1e-3),
    "sgd": dict(weight_decay=1e-2, momentum=0.9),
    "adamw": dict(weight_decay=1e-2, b1=0.9, b2=0.999),
}


def updates_of(name, *, rate, multipliers, steps=3):
    """The last of several updates with the same gradients."""
    optimizer = optimizers.OPTIMIZERS[name].make(lambda step: rate, **RECIPES[name])
    optimizer = optimizers.with_multipliers(optimizer, multipliers)
    state = optimizer.init(NETWORK)
    for _ in range(steps):
        updates, state = optimizer.update(NETWORK, state, NETWORK)
    return updates


@pytest.mark.parametrize("name", RECIPES)
def test_a_multiplier_is_a_learning_rate_of_its_own(name):
    mixed = updates_of(name, rate=0.1, multipliers={"predictor": 10.0, "*/linear": 2.0})
    factors = {"encoder/~/conv": 1, "projector/linear": 2, "predictor/linear": 10}
    for module, factor in factors.items():
        alone = updates_of(name, rate=0.1 * factor, multipliers={})[module]
        for leaf, expected in alone.items():
            np.testing.assert_allclose(mixed[module][leaf], expected, rtol=1e-6)


def test_without_multipliers_the_optimizer_and_its_state_are_what_they_were():
    optimizer = optimizers.sgd(lambda step: 0.1, weight_decay=0.0, momentum=0.9)
    assert optimizers.with_multipliers(optimizer, {}) is optimizer


def test_a_multiplier_that_fits_no_module_is_refused_by_what_there_is():
    optimizer = optimizers.sgd(lambda step: 0.1, weight_decay=0.0, momentum=0.9)
    with pytest.raises(ValueError, match="'predict'. Modules: encoder, predictor, projector"):
        optimizers.with_multipliers(optimizer, {"predict": 2.0}).init(NETWORK)


def test_multipliers_are_read_from_a_text():
    assert optimizers.parse_multipliers(" predictor = 10, */linear_1=0 ,") == {
        "predictor": 10.0,
        "*/linear_1": 0.0,
    }
    assert optimizers.parse_multipliers("") == {}


@pytest.mark.parametrize("text", ["predictor", "=3", "predictor=x", "a=-1", "a=inf", "a=nan"])
def test_multipliers_that_are_no_numbers_are_refused(text):
    with pytest.raises(ValueError, match="optimizer.multipliers: .* such as predictor=10"):
        optimizers.parse_multipliers(text)
