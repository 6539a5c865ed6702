"""Values and gradients of all objectives against recorded ones, on one device and on several.

The file (tests/golden/README.md) says of each case which arrays go in, which get a gradient, and
how exact the recorded values are.
"""

import functools

import jax
import numpy as np
import pytest

from byol_jax.objectives import (
    barlow_twins,
    byol,
    infonce,
    moco_v2,
    moco_v3,
    raft,
    simclr,
    simsiam,
    swav,
    vicreg,
)
from tests.support import golden_data

GOLDEN = golden_data.load("objectives")
CASES = golden_data.config(GOLDEN)["cases"]
AXIS = "devices"


def _byol(x, axis):
    loss = byol.byol_loss((x["p1"], x["p2"]), (x["t1"], x["t2"]))
    return loss, {}


def _simsiam(x, axis):
    return simsiam.simsiam_loss((x["p1"], x["p2"]), (x["z1"], x["z2"])), {}


def _simclr(x, axis, *, temperature):
    return sum(simclr.simclr_loss((x["z1"], x["z2"]), temperature=temperature, axis=axis)), {}


def _barlow_twins(x, axis, *, lambd, scale):
    found = barlow_twins.barlow_twins_terms((x["z1"], x["z2"]), axis=axis)
    return scale * (found.invariance + lambd * found.redundancy), {}


def _vicreg(x, axis, *, sim_coeff, std_coeff, cov_coeff):
    found = vicreg.vicreg_terms((x["z1"], x["z2"]), axis=axis)
    loss = sim_coeff * found.invariance + std_coeff * found.variance
    return loss + cov_coeff * found.covariance, {}


def _bridge(x, axis, *, alpha, beta):
    online = x["phi1"], x["phi2"]
    target = (x["psi1"], x["psi2"]) if "psi1" in x else online
    views = infonce.infonce_loss(online, target, temperature=alpha, weight=beta, axis=axis)
    return sum(views), {f"infonce_view{i + 1}": -view for i, view in enumerate(views)}


def _moco_v2(x, axis, *, temperature):
    return moco_v2.moco_v2_loss(x["q"], x["k"], x["queue"], temperature=temperature), {}


def _moco_v3(x, axis, *, temperature):
    queries, keys = (x["q1"], x["q2"]), (x["k1"], x["k2"])
    return sum(moco_v3.moco_v3_loss(queries, keys, temperature=temperature, axis=axis)), {}


LOSSES = {
    "moco_v2": _moco_v2,
    "moco_v3": _moco_v3,
    "byol": _byol,
    "simsiam": _simsiam,
    "simclr": _simclr,
    "barlow_twins": _barlow_twins,
    "vicreg": _vicreg,
    "bridge": _bridge,
}
OF_LOSSES = [name for name, case in CASES.items() if case["objective"] in LOSSES]


def inputs(name):
    return {argument: GOLDEN[key] for argument, key in CASES[name]["inputs"].items()}


@functools.cache
def compiled(objective, devices=1):
    """(arrays that get a gradient, the others, parameters) -> loss, terms and gradients.

    One for all cases of an objective, whose parameters are arguments: compiling takes longest.
    """
    axis = AXIS if devices > 1 else None

    def loss(moving, still, shared, params):
        return LOSSES[objective](moving | still | shared, axis, **params)

    step = jax.value_and_grad(loss, has_aux=True)
    if axis is None:
        return jax.jit(step)
    return jax.pmap(step, AXIS, devices=jax.devices()[:devices])


SHARED = ("queue",)  # the same on all devices


def arguments(name):
    """The arrays that get a gradient, the others, and those that are alike on all devices."""
    found = inputs(name)
    moving = {key: found[key] for key in CASES[name]["grads"]}
    shared = {key: value for key, value in found.items() if key in SHARED}
    still = {key: value for key, value in found.items() if key not in moving | shared}
    return moving, still, shared


def assert_scalar(actual, expected, *, tolerance=1e-5):
    assert abs(float(actual) - float(expected)) <= tolerance * max(1, abs(float(expected)))


def assert_gradient(actual, expected, metric):
    """As a whole, or each row or column on its own; rows of NaN are not compared."""
    actual, expected = np.atleast_2d(actual), np.atleast_2d(expected)
    assert np.isfinite(actual).all()
    kept = ~np.isnan(expected).any(axis=1)
    actual, expected = actual[kept], expected[kept]
    axis = {"tensor": None, "row": 1, "column": 0}[metric]
    error = np.abs(actual - expected).max(axis=axis)
    size = np.maximum(np.abs(expected).max(axis=axis), 1e-30)
    assert (error / size).max() <= (2e-5 if metric == "tensor" else 1e-4)


@pytest.mark.parametrize("name", OF_LOSSES)
def test_the_loss_and_its_gradients_equal_the_recorded_ones(name):
    case = CASES[name]
    (loss, terms), grads = compiled(case["objective"])(*arguments(name), case["params"])
    assert_scalar(loss, GOLDEN[f"{name}|loss"])
    for term, value in terms.items():
        assert_scalar(value, GOLDEN[f"{name}|terms|{term}"])
    for argument, grad in grads.items():
        expected = GOLDEN[f"{name}|grad|{argument}"]
        assert_gradient(grad, expected, case["gradient_metric"])


SHARDED = [
    pytest.param(name, devices, marks=[pytest.mark.slow] if "|large" in name else [])
    for name in OF_LOSSES
    for devices in CASES[name]["shards"]
]


@pytest.mark.parametrize(("name", "devices"), SHARDED)
def test_the_loss_of_several_devices_is_that_of_the_whole_batch(name, devices):
    case = CASES[name]
    moving, still, shared = arguments(name)
    split = jax.tree.map(lambda x: np.reshape(x, (devices, -1, *x.shape[1:])), (moving, still))
    copies = jax.tree.map(lambda x: np.stack([x] * devices), (shared, case["params"]))
    (losses, _), grads = compiled(case["objective"], devices)(*split, *copies)
    expected = GOLDEN[f"{name}|shards{devices}|loss_per_shard"]
    np.testing.assert_allclose(losses, expected, atol=2e-5, rtol=2e-5)
    assert_scalar(losses.mean(), GOLDEN[f"{name}|loss"])
    if case["local_control"] and case["params"].get("beta") != 0:
        local = GOLDEN[f"{name}|local{devices}|loss"]  # what a device sees of its own rows
        assert abs(losses.mean() - local) > 1e-3 * abs(local)
    for argument, grad in grads.items():
        whole = np.reshape(grad, moving[argument].shape) / devices
        expected = GOLDEN[f"{name}|grad|{argument}"]
        assert_gradient(whole, expected, case["gradient_metric"])


QUEUES = [name for name, case in CASES.items() if case["objective"] == "moco_queue"]


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_holds_the_recorded_keys_in_the_order_of_devices(name, devices):
    found, pointer = inputs(name), CASES[name]["params"]["pointer"]
    queue = moco_v2.Queue(found["queue"], np.int32(pointer))
    axis = AXIS if devices > 1 else None
    step = functools.partial(moco_v2.enqueue, axis=axis)
    step = jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None) if axis else jax.jit(step)
    for i, keys in enumerate(found["keys"], 1):
        keys = keys.reshape(devices, -1, keys.shape[-1]) if axis else keys
        queue = jax.device_get(step(queue, keys))
        np.testing.assert_allclose(queue.keys, GOLDEN[f"{name}|queue_after_{i}"], atol=1e-6)
        assert queue.pointer == GOLDEN[f"{name}|pointer_after_{i}"]


# Relations between objectives.


@pytest.mark.parametrize("name", [n for n in OF_LOSSES if CASES[n].get("relation")])
def test_the_bridge_ends_at_byol_and_at_simclr(name):
    relation = CASES[name]["relation"]
    ours, theirs = (
        compiled(CASES[case]["objective"])(*arguments(case), CASES[case]["params"])[0][0]
        for case in (name, relation["case"])
    )
    assert_scalar(ours, relation["factor"] * theirs + relation["constant"])


def test_byol_is_bounded_by_what_raft_takes_the_difference_of():
    views = jax.random.normal(jax.random.key(0), (4, 32, 8))
    online, target = (views[0], views[1]), (views[2], views[3])
    assert byol.byol_loss(online, target) <= 4 * sum(raft.raft_terms(online, target))
    near = views[0], views[0] + 1e-3 * views[1]
    assert float(byol.byol_loss(near, near)) == pytest.approx(
        2 * float(raft.raft_terms(near, near)[0]), rel=1e-4
    )  # where the teacher has not moved away, both are alignment


@pytest.mark.parametrize("name", ["swav|main", "swav|tiny"])
def test_swapped_assignments_equal_the_recorded_ones(name):
    x = inputs(name)
    options = {"epsilon": 0.05, "iterations": 3}
    prototypes = byol.l2_normalize(x["prototypes"])
    codes = swav.sinkhorn(byol.l2_normalize(x["z1"]) @ prototypes.T, **options)
    np.testing.assert_allclose(codes, GOLDEN[f"{name}|codes3|z1"], atol=2e-5)

    def loss(z1, z2, prototypes):
        return sum(swav.swav_loss((z1, z2), prototypes, temperature=0.1, **options))

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    value, grads = step(x["z1"], x["z2"], prototypes)
    assert_scalar(value, GOLDEN[f"{name}|loss"])
    for argument, grad in zip(("z1", "z2", "prototypes"), grads, strict=True):
        assert_gradient(grad, GOLDEN[f"{name}|grad|{argument}"], CASES[name]["gradient_metric"])
