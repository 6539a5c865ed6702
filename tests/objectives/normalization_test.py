"""Table 20's normalizations against NumPy, and over several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.distributed import pmap
from byol_jax.objectives import byol, contract, normalization

X, Y = np.random.RandomState(0).standard_normal((2, 8, 6)) * 3 + 1


def expected(name, x):
    if name == "l2":
        return x / np.linalg.norm(x, axis=-1, keepdims=True)
    if name == "none":
        return x
    over = {"layer_norm": -1, "batch_norm": 0}[name]
    mean, var = x.mean(over, keepdims=True), x.var(over, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) / np.sqrt(x.shape[-1])


@pytest.mark.parametrize("name", normalization.NORMALIZATIONS)
def test_a_distance_is_that_of_the_formula(name):
    actual = normalization.distance(jnp.asarray(X), jnp.asarray(Y), normalization=name)
    distances = ((expected(name, X) - expected(name, Y)) ** 2).sum(-1)
    np.testing.assert_allclose(actual, distances, rtol=2e-5)


def test_l2_is_the_regression_loss_to_the_last_bit():
    x, y = X.astype(np.float32), Y.astype(np.float32)
    assert (normalization.distance(x, y) == byol.regression_loss(x, y)).all()


@pytest.mark.parametrize("name", normalization.NORMALIZATIONS)
def test_four_devices_have_the_loss_and_the_gradients_of_one(name):
    def loss(x, y, axis=None):
        return jnp.mean(normalization.distance(x, y, normalization=name, axis=axis))

    def on_devices(x, y):
        value, grads = jax.value_and_grad(loss, (0, 1))(x, y, pmap.AXIS)
        # A device's rows are a quarter of the batch, and gradients are averaged over devices.
        return jax.lax.pmean(value, pmap.AXIS), jax.tree.map(lambda g: g / 4, grads)

    with jax.enable_x64(True):
        value, grads = jax.value_and_grad(loss, (0, 1))(X, Y)
        shards = (x.reshape(4, 2, 6) for x in (X, Y))
        values, parts = jax.pmap(on_devices, axis_name=pmap.AXIS)(*shards)
        np.testing.assert_allclose(values, value, rtol=1e-12)
        for whole, part in zip(grads, parts, strict=True):
            np.testing.assert_allclose(part.reshape(8, 6), whole, atol=1e-12)


def bound(name):
    return contract.bind(byol.BYOL, byol.Settings(name))


def inputs(axis=None):
    pairs = [(jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32))] * 3
    return contract.Inputs(*pairs, {}, (), 0, None, axis)


@pytest.mark.parametrize("name", normalization.NORMALIZATIONS)
def test_byol_compares_what_its_key_normalizes(name):
    found = bound(name).evaluate(inputs())
    distance = ((expected(name, X) - expected(name, Y)) ** 2).sum(-1).mean()
    np.testing.assert_allclose(found.loss, 2 * distance, rtol=2e-5)
    np.testing.assert_allclose(found.terms["view1_loss"], distance, rtol=2e-5)


def test_byol_is_by_default_what_it_was_to_the_last_bit():
    given = inputs()
    found = contract.bind(byol.BYOL).evaluate(given)
    assert found.loss == byol.byol_loss(given.online, given.target)


def test_an_unknown_normalization_is_refused_by_what_there_is():
    with pytest.raises(ValueError, match="objective.byol.normalization: 'l1'.*batch_norm, l2, lay"):
        byol.BYOL.check(byol.Settings("l1"), contract.Sizes(8, 8))
