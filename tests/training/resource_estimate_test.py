"""FLOPs by formula against counts made otherwise, and what a person is told about memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.data import datasets
from byol_jax.models import flops, microbatch, resnet
from byol_jax.training import build, resource_estimate, time_estimate
from tests.conftest import make_settings


@pytest.mark.parametrize("encoder, billions", [("resnet18", 1.82), ("resnet50", 4.1)])
def test_multiply_adds_of_resnets_are_those_that_are_published(encoder, billions):
    """He et al. 2015 give 1.8 and 3.8; with the stride in the 3x3, as here, ResNet-50 has 4.1."""
    units = flops.encoder_units(encoder, image_size=224, stem="imagenet", always_project=False)
    macs = sum(unit.once for unit in units) / 2 / 1e9
    assert macs == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize("encoder", ["micro_resnet", "resnet18", "resnet50"])
@pytest.mark.parametrize("size, margin", [(32, 0), (45, 0), (32, 1)])
def test_the_formula_counts_every_weight_as_often_as_it_is_used(encoder, size, margin):
    """Convolutions of 1 pixel: weights times pixels of each one's output, from its shapes."""
    stem = "cifar_margin" if margin else "cifar"
    units = flops.encoder_units(encoder, image_size=size, stem=stem, width_multiplier=2)
    spec = resnet.ENCODERS[encoder]
    assert len(units) == 1 + sum(spec.blocks)
    assert units[0].convs == (2 * (size + 2 * margin) ** 2 * 9 * 3 * spec.stem_channels * 2,)
    assert [unit.shortcut > 0 for unit in units].count(True) == len(spec.blocks)


def test_a_step_is_eight_passes_and_remat_ten():
    units = [flops.Unit((0,)), flops.Unit((100, 100))]
    assert flops.step(units, projector=0, predictor=0) == 2 * (3 + 1) * 200
    remat = microbatch.Plan(remat=True)
    assert flops.step(units, projector=0, predictor=0, plan=remat) == 2 * (4 + 1) * 200
    assert flops.step(units, projector=1, predictor=1) == 2 * (3 + 1) * 200 + 2 * (3 * 2 + 1)


def test_passes_of_a_block_in_parts():
    """Up to each norm, then all: 1, 1 + 2, and both again with the shortcut's 4 twice."""
    assert flops.Unit((1, 2), shortcut=4).in_parts() == (1 + 4) + (1 + 2) + (1 + 2 + 4)
    assert flops.Unit((1, 2), shortcut=4, norm_is_first=True).in_parts() == 0 + 1 + 1 + 2 + 4


def test_a_matrix_product_takes_what_the_compiler_says():
    shape = jax.ShapeDtypeStruct((7, 5), jnp.float32), jax.ShapeDtypeStruct((5, 3), jnp.float32)
    counted = jax.jit(jnp.matmul).lower(*shape).compile().cost_analysis()["flops"]
    assert 7 * flops.mlp(5, 3) == counted


def make_forecast(**changes):
    whole = resource_estimate.Forecast(
        parameters=2_000_000,
        state_bytes=24_000_000,
        batch_bytes=1_000_000,
        activation_bytes=75_000_000,
        available_bytes=100_000_000,
        compiled_flops=8e9,
        formula_flops=7e9,
        loop_rounds=1,
        images_per_device=10,
        matmul_flops_per_second=7e9,
    )
    return whole._replace(**changes)


def test_what_does_not_fit_is_warned_of_with_a_way_out():
    settings = make_settings(batch_size=40)
    assert resource_estimate.fits(make_forecast())
    assert "WARNING" not in resource_estimate.describe(make_forecast(), settings)
    text = resource_estimate.describe(make_forecast(batch_bytes=1_000_001), settings)
    assert "will probably not fit" in text and "--config.model.remat=true" in text
    assert "a quarter more computation" in text  # ten passes instead of eight
    assert "--config.accumulate=2" in text and "--config.batch_size=20" in text
    assert resource_estimate.fits(make_forecast(available_bytes=None))


def test_everything_is_said():
    text = resource_estimate.describe(make_forecast(loop_rounds=4), make_settings())
    for part in ("24.0 MB of state", "2.00 M", "75.0 MB for activations", "of 100.0 MB"):
        assert part in text
    assert "8 GFLOP as compiled (one of 4 micro-batches), 7 GFLOP by formula" in text
    # 0.4 x 7 GFLOP/s x 4 devices, at 0.7 GFLOP an image
    assert "16 images/s" in text


def test_a_step_is_as_slow_as_the_slower_of_computing_and_memory():
    """0.4 x 7 GFLOP/s for 7 GFLOP: 2.5 s; 6 GB at 1 or 4 GB/s: 6 s or 1.5 s."""
    fast, slow = (
        make_forecast(compiled_bytes=6e9, memory_bytes_per_second=speed) for speed in (4e9, 1e9)
    )
    assert not fast.is_bound_by_memory and slow.is_bound_by_memory
    devices = jax.device_count()
    assert fast.images_per_second == pytest.approx(10 * devices / 2.5)
    assert slow.images_per_second == pytest.approx(10 * devices / 6)
    found = make_settings()
    assert "of the speed of a matrix product" in resource_estimate.describe(fast, found)
    text = resource_estimate.describe(slow, found)
    assert "bound by the memory of the device (6 GB read and written at 1 GB/s)" in text
    assert "matrix product" not in text


def test_a_round_of_micro_batches_is_counted_as_often_as_it_runs():
    forecast = make_forecast(compiled_bytes=2e9, memory_bytes_per_second=1e9, loop_rounds=3)
    assert forecast.images_per_second == pytest.approx(10 * jax.device_count() / 6)


def test_where_memory_bounds_a_step_the_time_left_is_said_again():
    found = make_settings(batch_size=40)
    slow = make_forecast(compiled_bytes=6e9, memory_bytes_per_second=1e9)
    left = time_estimate.duration(1000 * 40 / slow.images_per_second)
    assert left in time_estimate.describe_bound(found, 1000, slow)
    assert time_estimate.describe_bound(found, 1000, make_forecast()) == ""


def test_a_compiled_step_tells_its_bytes_and_a_cpu_no_speed_of_memory():
    compiled = jax.jit(lambda x: x + 1).lower(jnp.ones(1000)).compile()
    assert compiled.cost_analysis()["bytes accessed"] == 8000
    assert resource_estimate.memory_speed() is None


@pytest.mark.parametrize("name", ["RESOURCE_EXHAUSTED: out of memory", "INTERNAL: something"])
def test_only_a_lack_of_memory_becomes_advice(name, monkeypatch):
    class Update:
        def lower(self, *_):
            raise jax.errors.JaxRuntimeError(name)

    train = datasets.ArrayDataset(np.zeros((8, 4, 4, 3), np.uint8), np.zeros(8, int), 2)
    job = build.Job(make_settings(), build.Images(train, train, None), None, None, None)
    expected = UsageError if "RESOURCE" in name else jax.errors.JaxRuntimeError
    with pytest.raises(expected):
        resource_estimate.make_forecast(job, Update(), None)


HEADS = {  # what is set, and by how many numbers of weights the heads differ
    "no predictor": ({"model.predictor": "none"}, -3 * 2 * 8 * 16),
    "linear predictor": ({"model.predictor": "linear"}, -3 * (2 * 8 * 16 - 8 * 8)),
    "deeper predictor": ({"model.predictor_hidden_layers": 2}, 3 * 16 * 16),
    "deeper projector": ({"model.projector_hidden_layers": 2}, 4 * 16 * 16),
    "linear projector": ({"model.projector_hidden_layers": 0}, -4 * (16 * 96 + 16 * 8 - 96 * 8)),
    "norms count nothing": ({"model.norm": "group", "model.head_norm": "layer"}, 0),
}


@pytest.mark.parametrize("case", HEADS)
def test_the_formula_counts_the_heads_that_there_are(case):
    """Online with gradients three times, the target once, for two views."""
    keys, weights = HEADS[case]

    def operations(**overrides):
        return resource_estimate.flops_of_an_image(make_settings(**overrides))

    assert operations(**keys) - operations() == 2 * 2 * weights
