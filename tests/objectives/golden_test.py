"""Values and gradients of all objectives against recorded ones, on one device and on several.

The file (tests/golden/README.md) says of each case which arrays go in, which get a gradient, and
how exact the recorded values are.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.objectives import (
    barlow_twins,
    byol,
    dino,
    directpred,
    infonce,
    moco_v2,
    moco_v3,
    raft,
    simclr,
    simsiam,
    ssl_hsic,
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


def _swav(x, axis, *, temperature, epsilon, iterations, crops, normalise, queue):
    assert crops == 2
    prototypes = byol.l2_normalize(x["prototypes"]) if normalise else x["prototypes"]
    earlier = None
    if queue:
        rows = jnp.stack([x["queue1"], x["queue2"]])
        earlier = swav.Queue(rows, np.int32(rows.shape[1]))
    options = {"temperature": temperature, "epsilon": epsilon, "iterations": iterations}
    z = x["z1"], x["z2"]
    return sum(swav.swav_loss(z, prototypes, axis=axis, queue=earlier, **options)), {}


def _dino(x, axis, *, student_temp, teacher_temp, center_momentum, crops):
    assert crops == 2
    temperatures = {"student_temperature": student_temp, "teacher_temperature": teacher_temp}
    teacher = x["t1"], x["t2"]
    return sum(dino.dino_loss((x["s1"], x["s2"]), teacher, x["center"], **temperatures)), {}


def _ssl_hsic(x, axis, *, num_features, regul_weight):
    hidden = [byol.l2_normalize(x[name]) for name in ("p1", "p2", "t2", "t1")]
    draws = tuple(ssl_hsic.Draw(x[f"w_{name}"], x[f"b_{name}"]) for name in "ab")
    samples = x["sample_1"], x["sample_2"]
    terms = ssl_hsic.ssl_hsic_terms(hidden, draws, x["scale"], samples, axis=axis)
    loss = ssl_hsic.ssl_hsic_loss(terms, regularization_weight=regul_weight)
    of_scale = terms.grad_norm_loss  # whose gradient alone the scale gets
    return loss + of_scale - jax.lax.stop_gradient(of_scale), terms._asdict()


LOSSES = {
    "swav": _swav,
    "dino": _dino,
    "ssl_hsic": _ssl_hsic,
    "moco_v2": _moco_v2,
    "moco_v3": _moco_v3,
    "byol": _byol,
    "simsiam": _simsiam,
    "simclr": _simclr,
    "barlow_twins": _barlow_twins,
    "vicreg": _vicreg,
    "bridge": _bridge,
}
OF_LOSSES = [  # a step has two views
    name
    for name, case in CASES.items()
    if case["objective"] in LOSSES and case["params"].get("crops", 2) == 2
]
STATIC = ("iterations", "crops", "normalise", "queue", "num_features")


def inputs(name):
    found = {argument: GOLDEN[key] for argument, key in CASES[name]["inputs"].items()}
    if "prototypes" in found and not CASES[name]["params"]["normalise"]:
        found["prototypes"] = GOLDEN.get(f"{name}|prototypes_normalised", found["prototypes"])
    return found


@functools.cache
def compiled(objective, static=(), devices=1):
    """(arrays that get a gradient, the others, parameters) -> loss, terms and gradients.

    One for all cases of an objective, whose parameters are arguments: compiling takes longest.
    """
    axis = AXIS if devices > 1 else None

    def loss(moving, still, shared, params):
        return LOSSES[objective](moving | still | shared, axis, **params, **dict(static))

    step = jax.value_and_grad(loss, has_aux=True)
    if axis is None:
        return jax.jit(step)
    return jax.pmap(step, AXIS, devices=jax.devices()[:devices])


def split_params(name):
    """Of a case: those that are known when it is compiled, and the others."""
    params = CASES[name]["params"]
    static = tuple((key, value) for key, value in params.items() if key in STATIC)
    return static, {key: value for key, value in params.items() if key not in STATIC}


SHARED = (  # the same on all devices
    *("queue", "queue1", "queue2", "prototypes", "center", "scale"),
    *("w_a", "b_a", "w_b", "b_b", "sample_1", "sample_2"),
)


def arguments(name):
    """The arrays that get a gradient, the others, and those that are alike on all devices."""
    found = inputs(name)
    moving = {key: found[key] for key in CASES[name]["grads"]}
    shared = {k: value for k, value in found.items() if k in SHARED and k not in moving}
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


# Of what takes longest to compile, one case is fast, on one device and on four.
LONG = {"ssl_hsic": "ssl_hsic|main_c1", "swav": "swav|main"}


def is_slow(name, devices):
    if name in LONG.values():
        return devices == 2
    return CASES[name]["objective"] in LONG or (devices > 1 and "|large" in name)


ONE_DEVICE = [
    pytest.param(name, marks=[pytest.mark.slow] if is_slow(name, 1) else []) for name in OF_LOSSES
]


@pytest.mark.parametrize("name", ONE_DEVICE)
def test_the_loss_and_its_gradients_equal_the_recorded_ones(name):
    case = CASES[name]
    static, params = split_params(name)
    (loss, terms), grads = compiled(case["objective"], static)(*arguments(name), params)
    assert_scalar(loss, GOLDEN[f"{name}|loss"])
    for term, value in terms.items():
        assert_scalar(value, GOLDEN[f"{name}|terms|{term}"])
    for argument, grad in grads.items():
        expected = GOLDEN[f"{name}|grad|{argument}"]
        assert_gradient(grad, expected, case["gradient_metric"])


SHARDED = [
    pytest.param(name, devices, marks=[pytest.mark.slow] if is_slow(name, devices) else [])
    for name in OF_LOSSES
    for devices in CASES[name]["shards"]
]


@pytest.mark.parametrize(("name", "devices"), SHARDED)
def test_the_loss_of_several_devices_is_that_of_the_whole_batch(name, devices):
    case = CASES[name]
    moving, still, shared = arguments(name)
    static, params = split_params(name)

    def split(tree):
        return {
            key: np.stack([x] * devices)
            if key in SHARED
            else np.reshape(x, (devices, -1, *x.shape[1:]))
            for key, x in tree.items()
        }

    copies = jax.tree.map(lambda x: np.stack([x] * devices), params)
    step = compiled(case["objective"], static, devices)
    (losses, _), grads = step(split(moving), split(still), split(shared), copies)
    expected = GOLDEN[f"{name}|shards{devices}|loss_per_shard"]
    np.testing.assert_allclose(losses, expected, atol=2e-5, rtol=2e-5)
    assert_scalar(losses.mean(), GOLDEN[f"{name}|loss"])
    if case["local_control"] and case["params"].get("beta") != 0:
        local = GOLDEN[f"{name}|local{devices}|loss"]  # what a device sees of its own rows
        assert abs(losses.mean() - local) > 1e-3 * abs(local)
    for argument, grad in grads.items():
        is_shared = argument in SHARED
        whole = (
            np.mean(grad, axis=0)
            if is_shared
            else np.reshape(grad, moving[argument].shape) / devices
        )
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


# What is not a loss.


@pytest.mark.parametrize("name", ["swav|main", "swav|tiny"])
def test_assignments_equal_the_recorded_ones_after_each_number_of_iterations(name):
    x = inputs(name)
    scores = byol.l2_normalize(x["z1"]) @ byol.l2_normalize(x["prototypes"]).T
    for iterations in (1, 3):
        codes = swav.sinkhorn(scores, epsilon=0.05, iterations=iterations)
        np.testing.assert_allclose(codes, GOLDEN[f"{name}|codes{iterations}|z1"], atol=2e-5)


@pytest.mark.parametrize("devices", [1, 4])
def test_assignments_beside_a_queue_equal_the_recorded_ones(devices):
    """Each device takes a part of the queue; one that is not full takes no part."""
    name = "swav|main_queue"
    x = inputs(name)
    rows = np.stack([x["queue1"], x["queue2"]])
    axis = AXIS if devices > 1 else None

    def codes(z, count):
        queue = swav.Queue(rows, count)
        scores = byol.l2_normalize(z) @ x["prototypes"].T
        options = {"epsilon": 0.05, "iterations": 3, "axis": axis}
        return swav.codes_beside(queue, 0, scores, x["prototypes"], **options)

    step = jax.pmap(codes, AXIS, in_axes=(0, None)) if axis else jax.jit(codes)
    z = x["z1"].reshape(devices, -1, x["z1"].shape[1]) if axis else x["z1"]
    for count, case in ((rows.shape[1], name), (rows.shape[1] - 1, "swav|main")):
        found = np.reshape(step(z, np.int32(count)), GOLDEN[f"{case}|codes3|z1"].shape)
        np.testing.assert_allclose(found, GOLDEN[f"{case}|codes3|z1"], atol=2e-5)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("name", ["dino|main_crops2", "dino|large_crops2"])
def test_the_center_moves_as_recorded(name, devices):
    x = inputs(name)
    axis = AXIS if devices > 1 else None

    def step(t1, t2):
        return dino.next_center(x["center"], (t1, t2), momentum=0.9, axis=axis)

    rows = [x["t1"], x["t2"]]
    if axis:
        rows = [r.reshape(devices, -1, r.shape[1]) for r in rows]
        step = jax.pmap(step, AXIS, out_axes=None)
    np.testing.assert_allclose(step(*rows), GOLDEN[f"{name}|center_after"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("ssl_hsic_amplitude")])
def test_frequencies_of_the_kernel_have_the_recorded_probabilities(name):
    found = ssl_hsic.amplitude_probabilities(CASES[name]["params"]["dimension"])
    np.testing.assert_allclose(found[::50], GOLDEN[f"{name}|probs_every_50"], atol=1e-7)
    np.testing.assert_allclose(np.cumsum(found)[::500], GOLDEN[f"{name}|cdf_every_500"], atol=1e-6)


@pytest.mark.parametrize("devices", [1, 4])
def test_predictors_of_closed_form_are_the_recorded_ones(devices):
    x = inputs("directpred|eps0.01")
    axis = AXIS if devices > 1 else None
    step = functools.partial(directpred.update, axis=axis)
    step = jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None) if axis else jax.jit(step)
    found = directpred.init(x["features_1"].shape[-1])
    for views in zip(x["features_1"], x["features_2"], strict=True):
        if axis:
            views = [view.reshape(devices, -1, view.shape[1]) for view in views]
        found = jax.device_get(step(found, tuple(views)))
    for epsilon in (0.01, 0.1):
        for key, ours in {
            "correlation": found.correlation,
            "directpred": jax.jit(directpred.directpred)(found.correlation, epsilon),
            "directcopy": jax.jit(directpred.directcopy)(found.correlation, epsilon),
        }.items():
            expected = GOLDEN[f"directpred|eps{epsilon:g}|{key}"]
            assert np.abs(ours - expected).max() <= 2e-5 * np.abs(expected).max(), key
