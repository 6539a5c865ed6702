"""Linear evaluation and fine-tuning, as the tasks set them up, against the reference's own steps.

Rates, penalties, lengths, decays and modes are those that the tasks' functions work out from a
config; batches are the reference's, neither cropped nor flipped.
"""

import functools

import jax
import numpy as np
import pytest

from byol_jax.checkpoints import encoders
from byol_jax.data import eval_loader
from byol_jax.data.datasets import ArrayDataset
from byol_jax.distributed import pmap
from byol_jax.evaluation import (
    features,
    finetune,
    finetune_trials,
    linear_probe,
    protocol,
    train_input,
)
from byol_jax.metrics import accuracy
from byol_jax.models import encoder_spec
from byol_jax.tasks import linear_eval as run_linear_eval
from byol_jax.training import optimizers
from configs import linear_eval, semi_supervised
from tests.support import golden_data
from tests.support.golden_data import relerr

G = golden_data.load("evaluation")
CONFIG = golden_data.config(G)
CASES = CONFIG["cases"]
B, K = CONFIG["batch_size"], CONFIG["num_classes"]


def cases(*, frozen):
    """Names of cases; those of ResNet-50 compile for long."""
    return [
        pytest.param(name, marks=pytest.mark.slow if "ResNet50" in case["encoder_class"] else ())
        for name, case in CASES.items()
        if case["freeze_backbone"] == frozen
    ]


@functools.lru_cache(maxsize=1)
def make_encoder(name):
    case, salt = CASES[name], CONFIG["salt"]
    card = encoder_spec.EncoderSpec(
        golden_data.ENCODER_OF_CLASS[case["encoder_class"]],
        case["width_multiplier"],
        case["resnet_v2"],
        image_size=CONFIG["image_size"],
    )
    params, state = encoder_spec.shapes(card)
    params = golden_data.formula_tree(params, salt)
    state = golden_data.formula_tree(state, salt, CONFIG["counter"])
    return encoders.make_encoder(None, card, params, state, {"path": "formula"})


def classifier(size):
    shapes = {"w": (size, K), "b": (K,)}
    value = golden_data.formula_value
    return {n: value(CONFIG["salt"], "classifier", n, shape, 0) for n, shape in shapes.items()}


def make_subject(encoder):
    data = ArrayDataset(G["images"][0], G["labels"][0], K)
    return protocol.EvalSetup(encoder, features.Source("", ""), data, 0, data, {})


class Work:
    """Trains on the reference's batches in place of a data set's, and keeps every state."""

    def __init__(self, steps):
        self.steps, self.states, self.outputs = steps, [], []

    def train(self, name, update, state, batches, *, total_steps, title):
        del name, batches, title
        self.total_steps = total_steps
        self.states.append(jax.device_get(state))
        state = pmap.replicate(self.states[0])
        for images, labels in zip(G["images"][: self.steps], G["labels"], strict=False):
            batch = {"view1": images, "labels": labels, "place": np.arange(B)}
            state, scalars, logits = update(state, pmap.shard(batch))
            self.states.append(jax.device_get(state))
            self.outputs.append(jax.device_get((scalars, logits)))
        return self.states[-1]


@pytest.fixture(autouse=True)
def no_flips(monkeypatch):
    monkeypatch.setattr(train_input, "_FLIP", train_input._FLIP._replace(flip_probability=0.0))
    monkeypatch.setattr(train_input, "make_batches", lambda *_, **__: None)


def assert_rates(name, work, peak):
    rates = peak * optimizers.cosine(np.arange(work.steps), work.total_steps)
    np.testing.assert_allclose(rates, G[f"{name}|log|learning_rate"], rtol=2e-6)
    assert work.total_steps == CASES[name]["max_steps"]


def assert_evaluated(prefix, logits, tolerance, *, is_control=True):
    """Two batches share some images, whose logits are to be the same in both."""
    for part, found in zip(("eval1", "eval2"), logits, strict=True):
        key = f"{prefix}|{part}"
        assert relerr(found, G[f"{key}|logits"]) < tolerance
        correct = accuracy.correct(found, G[f"{part}_labels"])
        for top in ("top1", "top5"):
            np.testing.assert_array_equal(correct[top], G[f"{key}|{top}_accuracy"])
        if is_control:
            assert relerr(found, G[f"{key}|control_training_mode_logits"]) > 0.05
    shared = [found[G[f"shared_in_eval{i + 1}"]] for i, found in enumerate(logits)]
    assert relerr(*shared) < tolerance


def logged(name, what):
    return G[f"{name}|log|{what}"]


@pytest.mark.parametrize("name", cases(frozen=True))
def test_linear_evaluation_takes_the_steps_of_the_reference(name):
    case, encoder = CASES[name], make_encoder(name)
    setup, head = make_subject(encoder), classifier(encoder.embedding_size)
    config = linear_eval.get_config()
    config.update({"batch_size": B, "total_epochs": float(case["max_steps"])})
    settings = run_linear_eval.resolve(config)
    found = features.Features(np.zeros((B, encoder.embedding_size)), G["labels"][0], np.arange(B))
    measured = run_linear_eval.Measured(setup, found, found, 0)
    state = run_linear_eval._init(settings, measured, B, [case["base_learning_rate"]], 0)
    state = state._replace(heads=linear_probe.Heads(head["w"][None], head["b"][None]))
    work = Work(case["steps"])
    run_linear_eval._augmented(settings, measured, work)(state, np.arange(B), 0, "sweep")

    first, last = work.states[0], work.states[-1]
    assert_rates(name, work, float(first.training.learning_rates[0]))
    assert encoders.fingerprint(last.params, last.bn_state) == encoders.fingerprint(
        encoder.params, encoder.state
    )
    is_large = "resnet50" in name
    for step, state in enumerate(work.states):
        for part, ours in (
            ("params", state.training.heads),
            ("momentum", state.training.momentum.trace),
        ):
            if f"{name}|step{step}|{part}|classifier|w" in G:
                expected = golden_data.tree(G, f"{name}|step{step}|{part}")["classifier"]
                assert relerr(ours.weights[0], expected["w"]) < (1e-5 if part == "params" else 1e-4)
                assert relerr(ours.biases[0], expected["b"]) < (1e-5 if part == "params" else 1e-4)
    for step in range(case["steps"]):
        embedding = encoder.encode(G["images"][step])
        logits = linear_probe.logits(work.states[step].training.heads, embedding, which=0)
        assert relerr(logits, logged(name, "logits")[step]) < (5e-5 if is_large else 1e-5)
    for step in (0, case["steps"]):
        embedded = [encoder.encode(G[f"eval{i}_images"]) for i in (1, 2)]
        heads = work.states[step].training.heads
        logits = [linear_probe.logits(heads, x, which=0) for x in embedded]
        assert_evaluated(f"{name}|step{step}", logits, 5e-5 if is_large else 1e-5)


def assert_trees(name, step, state, tolerances):
    """Tensors that are stored of parameters, momentum and batch-norm state."""
    trace = state.momentum.trace
    ours = {
        "params": state.network.encoder | state.network.head,
        "momentum": trace[0] | trace[1],
        "state": state.network.state,
    }
    checked = 0
    for part, tolerance in tolerances.items():
        for module, leaves in golden_data.tree(G, f"{name}|step{step}|{part}").items():
            for leaf, expected in leaves.items():
                assert relerr(ours[part][module][leaf], expected) < tolerance, (module, leaf)
                checked += 1
    if f"{name}|step{step}|state_summary|names" in G:
        golden_data.assert_summary(
            G, f"{name}|step{step}|state_summary", ours["state"], tolerance=tolerances["state"]
        )
    return checked


NO_BAD = eval_loader.BadLimit([], 0.0)


def fine_tuned(name, monkeypatch):
    case, encoder = CASES[name], make_encoder(name)
    head = {finetune.HEAD: classifier(encoder.embedding_size)}
    monkeypatch.setattr(finetune, "init_head", lambda *_, **__: head)
    config = semi_supervised.get_config()
    config.update({"batch_size": B, "bn_decay_rate": case["bn_decay_rate"]})
    settings = finetune_trials.resolve(config)
    work = Work(case["steps"])
    context = finetune_trials.make_context(
        settings, make_subject(encoder), G["labels"][0], NO_BAD, work
    )
    row = finetune_trials.FinetuneParams(
        case["base_learning_rate"], case["weight_decay"], float(case["max_steps"])
    )
    finetune_trials.train(settings, context, row, np.arange(B), 0, "trial")
    return case, context, work


@pytest.mark.parametrize("name", cases(frozen=False))
def test_fine_tuning_takes_the_steps_of_the_reference(name, monkeypatch):
    case, context, work = fine_tuned(name, monkeypatch)
    trial = work.states[0].trial
    assert_rates(name, work, float(trial.learning_rate))
    assert float(trial.weight_decay) == pytest.approx(case["l2_factor"], rel=1e-6)
    is_large = "resnet50" in name
    loose = {"params": 5e-3, "momentum": 1e-3, "state": 1e-2}
    tight = {"params": 5e-6, "momentum": 1e-4, "state": 1e-5}
    checked = [
        assert_trees(name, step, state, loose if is_large else tight)
        for step, state in enumerate(work.states)
    ]
    assert sum(checked) > 1
    losses = np.array([scalars["loss"] for scalars, _ in work.outputs])
    bounds = np.array([1e-3, 5e-3]) if is_large else 1e-5
    assert (np.abs(losses / logged(name, "loss") - 1) < bounds).all()
    for step, (_, logits) in enumerate(work.outputs):
        logits = np.asarray(logits).reshape(B, K)
        assert relerr(logits, logged(name, "logits")[step]) < (2e-2 if is_large else 1e-5)
        correct = accuracy.correct(logits, G["labels"][step])
        np.testing.assert_array_equal(correct["top1"], logged(name, "top1")[step])
    alone = G.get(f"{name}|control_two_devices_own_statistics|loss")
    assert alone is None or np.abs(losses - alone).max() > 1e-3  # ours are synchronized
    for step in (0, case["steps"]):
        on_devices = pmap.replicate(work.states[step].network)
        logits = [
            np.asarray(context.classify(on_devices, pmap.spread(G[f"eval{i}_images"])))
            for i in (1, 2)
        ]
        tolerance = (5e-3 if step else 5e-5) if is_large else 1e-5
        is_control = f"{name}|step{step}|eval1|control_training_mode_logits" in G
        assert_evaluated(f"{name}|step{step}", logits, tolerance, is_control=is_control)
