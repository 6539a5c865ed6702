"""Losses of every pixel against values of two independent computations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.objectives import dense
from tests.support import golden_data

GOLDEN = golden_data.load("dense")
BERHU = sorted({key.split("|")[1] for key in GOLDEN if key.startswith("berhu|")})


def cross_entropy(logits, labels, **options):
    return dense.cross_entropy(logits, labels, ignored=255, **options)


def test_cross_entropy_is_a_mean_over_the_pixels_of_the_batch_that_count():
    function = jax.jit(jax.value_and_grad(cross_entropy))
    loss, grad = function(GOLDEN["ce|logits"], GOLDEN["ce|labels"])
    assert float(loss) == pytest.approx(float(GOLDEN["ce|mean_valid"]), abs=1e-5)
    assert abs(float(loss) - float(GOLDEN["ce|mean_all_pixels"])) > 0.01
    np.testing.assert_allclose(grad, GOLDEN["ce|grad_mean_valid"], atol=3e-8)


def test_a_batch_of_ignored_pixels_has_no_loss_and_no_gradient():
    labels = np.full_like(GOLDEN["ce|labels"], 255)
    loss, grad = jax.jit(jax.value_and_grad(cross_entropy))(GOLDEN["ce|logits"], labels)
    assert loss == 0 and not np.any(grad)


@pytest.mark.parametrize("case", BERHU)
def test_the_reverse_huber_loss_equals_the_golden_values(case):
    values = {key: GOLDEN[f"berhu|{case}|{key}"] for key in ("pred", "truth", "loss")}
    function = jax.jit(jax.value_and_grad(dense.reverse_huber))
    loss, grad = function(values["pred"], values["truth"])
    assert float(loss) == pytest.approx(float(values["loss"]), rel=1e-6, abs=1e-12)
    expected = GOLDEN[f"berhu|{case}|grad_c_constant"]
    np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-8)


def test_the_limit_is_of_the_batch_and_not_of_each_image():
    pred, truth = GOLDEN["berhu|plain|pred"], GOLDEN["berhu|plain|truth"]
    control = float(GOLDEN["berhu|plain|control_c_per_image"])
    assert abs(float(dense.reverse_huber(pred, truth)) - control) > 1e-4


@pytest.mark.parametrize("name", ["cross_entropy", "reverse_huber"])
def test_devices_with_unequal_numbers_of_counted_pixels_give_the_loss_of_the_whole_batch(name):
    rng = np.random.default_rng(0)
    if name == "cross_entropy":
        outputs = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
        truth = rng.integers(0, 3, (4, 5, 6))
        truth[0], truth[1, 2:] = 255, 255
        loss = cross_entropy
    else:
        outputs = rng.normal(size=(4, 5, 6)).astype(np.float32)
        truth = rng.uniform(1, 4, (4, 5, 6)).astype(np.float32)
        truth[0], truth[1, 2:] = 0, 0
        loss = dense.reverse_huber

    def of_devices(outputs):
        shared = jax.vmap(lambda o, t: loss(o, t, axis="x"), axis_name="x")
        return jnp.mean(shared(outputs[:, None], jnp.asarray(truth)[:, None]))

    functions = [jax.jit(jax.value_and_grad(f)) for f in (lambda o: loss(o, truth), of_devices)]
    one, many = (function(outputs) for function in functions)
    np.testing.assert_allclose(many[0], one[0], rtol=1e-6)
    np.testing.assert_allclose(many[1], one[1], rtol=1e-5, atol=1e-8)
