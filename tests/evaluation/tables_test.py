"""Rates, lengths, decays and grids as the tasks work them out from a config; scores and votes.

Expected values are the paper's and the reference's; what is called control must not come out.
"""

import jax
import ml_collections
import numpy as np
import pytest

from byol_jax.data import eval_loader
from byol_jax.data.datasets import ArrayDataset
from byol_jax.distributed import pmap
from byol_jax.evaluation import (
    features,
    finetune,
    finetune_trials,
    logistic_regression,
    protocol,
    train_input,
)
from byol_jax.metrics import accuracy, knn
from byol_jax.tasks import linear_eval as run_linear_eval
from byol_jax.tasks import transfer as run_transfer
from byol_jax.training import optimizers
from configs import linear_eval, semi_supervised, transfer
from tests.support import golden_data
from tests.support.golden_data import relerr

G = golden_data.load("evaluation")
CONFIG = golden_data.config(G)


def subject_of(encoder=None):
    data = ArrayDataset(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, np.int32), 3)
    return protocol.EvalSetup(encoder, features.Source("", ""), data, 0, data, {})


def linear_state(base_rate, batch_size, epochs, count):
    config = linear_eval.get_config()
    config.update({"batch_size": batch_size, "total_epochs": float(epochs)})
    found = features.Features(np.zeros((1, 2)), None, None)
    measured = run_linear_eval.Measured(subject_of(), found, found, 0)
    return run_linear_eval._init(run_linear_eval.resolve(config), measured, count, [base_rate], 0)


class Stop(Exception):
    """Carries what a task wanted to train."""


class Work:
    def train(self, name, update, state, batches, **options):
        raise Stop(state, options["total_steps"], update)


@pytest.fixture
def trial(monkeypatch):
    """The trial, its number of steps and the batch-norm decay that fine-tuning sets up."""
    monkeypatch.setattr(train_input, "make_batches", lambda *_, **__: None)

    def make(setting, count, **overrides):
        config = semi_supervised.get_config()
        config.update(overrides)
        settings = finetune_trials.resolve(config)
        network = ml_collections.FrozenConfigDict({"embedding_size": 2})
        encoder = Encoder(network.embedding_size)
        setup = subject_of(encoder)
        context = finetune_trials.FinetuneContext(
            setup, None, lambda decay: decay, None, 0.1, NO_BAD, Work()
        )
        with pytest.raises(Stop) as found:
            chosen = np.zeros(count, np.int64)
            finetune_trials.train(
                settings, context, finetune_trials.FinetuneParams(*setting), chosen, 0, "t"
            )
        state, total_steps, decay = found.value.args
        return state.trial, total_steps, decay

    return make


NO_BAD = eval_loader.BadLimit([], 0.0)


class Encoder:
    params, state = {}, {}

    def __init__(self, embedding_size):
        self.embedding_size = embedding_size


@pytest.mark.parametrize("preset", CONFIG["schedule"])
def test_rates_of_both_protocols_are_base_times_batch_over_256_and_a_cosine(preset, trial):
    case = CONFIG["schedule"][preset]
    batch, base, total = case["batch_size"], case["base_learning_rate"], case["total_steps"]
    state = linear_state(base, batch, total, batch)
    tried, total_steps, _ = trial((base, 0.0, float(total)), batch, batch_size=batch)
    assert state.total_steps == total_steps == total
    steps, expected = G[f"schedule|{preset}|steps"], G[f"schedule|{preset}|learning_rate"]
    for rate in (state.learning_rates[0], tried.learning_rate):
        found = rate * optimizers.cosine(steps, total)
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7 * expected.max())


def test_lengths_are_rounded_down_in_every_task(trial):
    rows = G["steps|epochs_images_batch"].tolist()
    nearest = 0
    for (epochs, images, batch), floor, near in zip(
        rows, G["steps|floor"], G["steps|nearest"], strict=True
    ):
        assert train_input.total_steps(epochs, images, batch) == max(floor, 1)
        if pmap.batch_size(batch, images) != batch:
            continue  # does not divide by the devices
        state = linear_state(0.1, batch, epochs, images)
        _, total_steps, _ = trial((0.1, 0.0, float(epochs)), images, batch_size=batch)
        assert state.total_steps == total_steps == max(floor, 1)
        nearest += floor != near
    assert nearest  # they would differ


def test_the_decay_of_batch_norm_follows_the_images_that_are_learned_from(trial):
    checked = 0
    for (images, batch), decay in zip(
        G["bn_decay|images_batch"].tolist(), G["bn_decay|images_decay"], strict=True
    ):
        if pmap.batch_size(batch, images) == batch:
            options = {"batch_size": batch, "bn_decay_rate": None}
            assert trial((0.1, 0.0, 1.0), images, **options)[2] == pytest.approx(decay, abs=1e-12)
            checked += 1
    assert checked > 2
    assert trial((0.1, 0.0, 1.0), 64, bn_decay_rate=0.5)[2] == 0.5


def test_weight_decay_is_divided_by_the_rate_of_the_first_step(trial):
    for (batch, base, decay), peak, factor in zip(
        G["l2|batch_base_wd"], G["l2|peak"], G["l2|factor"], strict=True
    ):
        tried, _, _ = trial((base, decay, 1.0), int(batch), batch_size=int(batch))
        assert float(tried.learning_rate) == pytest.approx(peak, rel=1e-6)
        assert float(tried.weight_decay) == pytest.approx(factor, rel=1e-6)


def test_grids_are_the_papers(trial):
    config = semi_supervised.get_config("10percent")
    assert sorted(linear_eval.get_config().base_learning_rates) == sorted(
        G["grid|linear_learning_rates"]
    )
    assert sorted(config.base_learning_rates) == sorted(G["grid|semi_learning_rates"])
    assert sorted(config.epochs) == sorted(G["grid|semi_epochs"])
    lambdas = run_transfer.resolve(transfer.get_config()).strengths()
    np.testing.assert_allclose(sorted(lambdas), sorted(G["grid|lambdas"]), rtol=1e-12)
    assert lambdas[0] == max(lambdas)  # from strong to weak
    settings = finetune_trials.resolve(semi_supervised.get_config("finetune")).rows()
    rates, decays = G["grid|finetune_learning_rates"], G["grid|finetune_weight_decays"]
    expected = {(r, d): f for r, row in zip(rates, G["grid|finetune_l2_factor"], strict=True)
                for d, f in zip(decays, row, strict=True)}  # fmt: skip
    assert len(settings) == len(expected)
    for (rate, decay), factor in expected.items():
        setting = min(
            settings,
            key=lambda s: abs(s.base_learning_rate / rate - 1) + abs(s.weight_decay - decay) * 1e9,
        )
        options = {"batch_size": 256, "total_steps": 20_000}
        tried, total_steps, _ = trial(setting, 256, **options)
        assert total_steps == 20_000
        assert float(tried.weight_decay) == pytest.approx(factor, rel=1e-5)


def descended(factor):
    """Parameters and momenta after every step on given gradients."""
    settings = CONFIG["nesterov"]
    trial = finetune.Trial(settings["peak_learning_rate"], factor, settings["total_steps"], 0)
    trained = (golden_data.tree(G, "nesterov|params_0"),)
    grads = golden_data.tree(G, "nesterov|grads")
    momentum = finetune._TRACE.init(trained)
    for step in range(len(G["nesterov|learning_rate"])):
        now = ({m: {n: g[step] for n, g in leaves.items()} for m, leaves in grads.items()},)
        trained, momentum = finetune.descend(now, trained, momentum, trial, step)
        yield trained[0], momentum.trace[0]


@pytest.mark.parametrize("variant", ["wd0", "masked"])
def test_nesterov_momentum_and_what_decays(variant):
    factor = CONFIG["nesterov"]["variants"][variant]["l2_factor"]
    for step, (params, momentum) in enumerate(descended(factor)):
        for part, ours in (("params", params), ("momentum", momentum)):
            for module, leaves in golden_data.tree(G, f"nesterov|{variant}|{part}").items():
                for name, expected in leaves.items():
                    np.testing.assert_allclose(ours[module][name], expected[step], atol=2e-5)
    others = [key for key in G if key.startswith("nesterov|control_")]
    assert others
    for key in others:
        assert np.abs(params["classifier"]["w"] - G[key]).max() > 0.1
    everything = G["nesterov|everything|params|encoder/batchnorm_0|scale"][-1]
    assert np.abs(params["encoder/batchnorm_0"]["scale"] - everything).max() > 1e-3


SOLVER = logistic_regression.Solver(max_iterations=1000, tolerance=1e-4)
LAMBDAS = sorted(CONFIG["logistic"]["lambdas"], reverse=True)


def probabilities(fit):
    logits = fit.scores(G["logistic|test_features"])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.fixture(params=[logistic_regression.NEWTON_SIZE, 0], ids=["newton", "lbfgs"])
def method(request, monkeypatch):
    """How near the minimum a method comes."""
    monkeypatch.setattr(logistic_regression, "NEWTON_SIZE", request.param)
    return 1e-5 if request.param else 1e-3


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_every_lambda_of_a_sweep_has_its_own_minimum(reduction, method):
    features, labels = G["logistic|features"], G["logistic|labels"]
    factor = 1 if reduction == "sum" else len(labels)
    classes = CONFIG["logistic"]["num_classes"]
    strengths = [factor * value for value in LAMBDAS]
    fits = logistic_regression.fit_labels(features, labels, strengths, SOLVER, num_classes=classes)
    for fit, value in zip(fits, LAMBDAS, strict=True):
        key = f"logistic|{reduction}|{value:g}"
        assert relerr(fit.weights, G[f"{key}|weights"]) < method
        assert relerr(fit.biases - fit.biases.mean(), G[f"{key}|biases_centred"]) < method
        np.testing.assert_allclose(probabilities(fit), G[f"{key}|test_probabilities"], atol=method)
        if reduction == "sum" and value == LAMBDAS[0]:
            control = G[f"logistic|control_bias_penalised|{value:g}|test_probabilities"]
            assert np.abs(probabilities(fit) - control).max() > 1e-3


def test_two_classes_have_one_vector_and_absent_ones_no_probability(method):
    features, labels = G["logistic|features"], G["logistic|binary_labels"]
    fits = logistic_regression.fit_labels(features, labels, LAMBDAS, SOLVER, num_classes=2)
    for fit, value in zip(fits, LAMBDAS, strict=True):
        key = f"logistic|binary_one_vector|{value:g}"
        assert relerr(fit.weights[:, 1] - fit.weights[:, 0], G[f"{key}|weights"]) < method
        if value == LAMBDAS[0]:
            other = G[f"logistic|binary_two_vectors|{value:g}|weights"]
            assert relerr(fit.weights[:, 1] - fit.weights[:, 0], other) > 1e-3
        assert fit.biases[1] - fit.biases[0] == pytest.approx(float(G[f"{key}|bias"]), rel=method)
    rows = G["logistic|absent_rows"]
    (name,) = [key for key in G if key.startswith("logistic|absent|")]
    options = {"num_classes": CONFIG["logistic"]["num_classes"]}
    labels, strength = G["logistic|labels"][rows], float(name.split("|")[2])
    fit = next(
        logistic_regression.fit_labels(features[rows], labels, [strength], SOLVER, **options)
    )
    np.testing.assert_allclose(probabilities(fit), G[name], atol=method)


def test_each_tag_has_a_regression_of_its_own(method):
    fits = logistic_regression.fit_tags(G["logistic|features"], G["logistic|tags"], LAMBDAS, SOLVER)
    for fit, value in zip(fits, LAMBDAS, strict=True):
        assert relerr(fit.weights, G[f"logistic|tags|{value:g}|weights"]) < method
        assert relerr(fit.biases, G[f"logistic|tags|{value:g}|biases"]) < method


def bank_of(name):
    data = {key: G[f"knn|{name}|{key}"] for key in ("bank_features", "bank_labels")}
    return knn.Bank(*data.values(), CONFIG["knn"]["num_classes"][name])


def fractions(votes):
    return votes / votes.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", CONFIG["knn"]["num_classes"])
def test_votes_of_neighbors(name):
    bank, queries = bank_of(name), G[f"knn|{name}|queries"]
    for k, temperature in CONFIG["knn"]["settings"]:
        key, setting = f"knn|{name}|k{k}|T{temperature:g}", knn.KnnParams(k, temperature)
        decided = ~G[f"{key}|boundary_tie"]
        votes = np.concatenate([v[0] for v in knn._votes(bank, queries, [setting])])
        expected = G[f"{key}|vote_shares"]
        np.testing.assert_allclose(fractions(votes)[decided], expected[decided], atol=2e-5)
        sure = decided & ~G[f"{key}|vote_tie"]
        found = knn.predict(bank, queries, setting)
        np.testing.assert_array_equal(found[sure], G[f"{key}|prediction"][sure])


def test_votes_of_all_other_images():
    (key,) = [name for name in G if name.startswith("knn|leave_one_out|")]
    k, temperature = (part[1:] for part in key.split("|")[2:4])
    bank, setting = bank_of("random"), knn.KnnParams(int(k), float(temperature))
    own = np.arange(len(G[key]))
    votes = knn._votes(bank, bank.features[own], [setting], own)
    np.testing.assert_allclose(fractions(np.concatenate([v[0] for v in votes])), G[key], atol=2e-5)


@pytest.mark.parametrize("name", ["plain", "tied"])
def test_mean_average_precision(name):
    value = accuracy.map11(G[f"map11|{name}|scores"], G[f"map11|{name}|tags"])
    assert value == pytest.approx(float(G[f"map11|{name}|value"]), abs=1e-12)
    for key in G:
        if key.startswith(f"map11|{name}|control_"):
            assert abs(value - G[key]) > 1e-4


@pytest.mark.parametrize("name", sorted({k.split("|")[1] for k in G if k.startswith("topk|")}))
def test_top_k_of_few_classes(name):
    logits, labels = G[f"topk|{name}|logits"], G[f"topk|{name}|labels"]
    correct = accuracy.correct(logits, labels)
    on_device = jax.jit(accuracy.correct)(logits, labels)
    for top in ("top1", "top5"):
        np.testing.assert_array_equal(correct[top], G[f"topk|{name}|{top}"])
        np.testing.assert_array_equal(on_device[top], correct[top])


def test_mean_per_class_leaves_absent_classes_out():
    correct, labels = G["mean_per_class|hits"], G["mean_per_class|labels"]
    value = accuracy.mean_per_class(correct, labels)
    assert value == pytest.approx(float(G["mean_per_class|value"]), abs=1e-12)
    for control in ("absent_as_zero", "top1"):
        assert abs(value - G[f"mean_per_class|control_{control}"]) > 1e-3


def test_bootstrap_intervals():
    options = {"seed": 0, "resamples": 20_000}
    ones, count = G["bootstrap|large|ones_of"]
    large = np.arange(count) < ones
    found = accuracy.bootstrap_interval(large, **options)
    np.testing.assert_allclose(found, G["bootstrap|large|exact_interval"], atol=1.5 / count)
    correct, labels = G["mean_per_class|hits"], G["mean_per_class|labels"]
    found = accuracy.bootstrap_interval(correct, **options)
    np.testing.assert_allclose(found, G["bootstrap|top1|exact_interval"], atol=1.5 / len(correct))
    found = accuracy.bootstrap_mean_per_class(correct, labels, **options)
    np.testing.assert_allclose(found, G["bootstrap|mean_per_class|interval"], atol=4e-3)
    scores, multi_labels = G["map11|plain|scores"], G["map11|plain|tags"]
    found = accuracy.bootstrap_map11(scores, multi_labels, seed=0, resamples=500)
    np.testing.assert_allclose(found, G["bootstrap|map11|interval"], atol=0.02)
