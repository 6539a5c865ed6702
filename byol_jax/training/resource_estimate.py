"""What a run will take, said before it begins: memory, computation, images a second."""

import time
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets
from byol_jax.distributed import pmap
from byol_jax.host import machine
from byol_jax.models import flops, microbatch, resnet
from byol_jax.objectives import table
from byol_jax.training import build
from byol_jax.training import settings as settings_lib

USUAL_SHARE = 0.4  # of the speed of a plain matrix product that a training step reaches
# How often a step reads or writes a number that a convolution gives, in programs compiled for an
# H100: 35 times in a ResNet-50 at 224 px, 46 in a ResNet-18 at 32 px (experiments/accelerators).
TOUCHES = 36


class Speed(NamedTuple):
    """Of one device, as measured.

    Attributes:
      flops: a second, of a matrix product.
      bytes: a second, that it reads and writes; None where caches take what is counted.
    """

    flops: float
    bytes: float | None = None


class Forecast(NamedTuple):
    """Of one step; None where the device does not tell.

    Attributes:
      parameters: of the online network.
      state_bytes: of everything that training keeps, on every device.
      batch_bytes: of a device's images and labels.
      activation_bytes: what the compiled step needs besides state and batch, on every device.
      available_bytes: memory of a device.
      compiled_flops: of a device, as the compiler counts: a loop as one of its rounds.
      formula_flops: of a device, by `flops`.
      loop_rounds: micro-batches one after the other, of which the compiler counts one.
      images_per_device: of a step.
      matmul_flops_per_second: measured on one device.
      compiled_bytes: that a device reads and writes, as the compiler counts, a loop as one round.
      memory_bytes_per_second: measured on one device; None where caches take what is counted.
    """

    parameters: int
    state_bytes: int
    batch_bytes: int
    activation_bytes: int | None
    available_bytes: int | None
    compiled_flops: float | None
    formula_flops: float
    loop_rounds: int
    images_per_device: int
    matmul_flops_per_second: float
    compiled_bytes: float | None = None
    memory_bytes_per_second: float | None = None

    @property
    def is_bound_by_memory(self) -> bool:
        """Whether reading and writing takes longer than computing."""
        return self._memory_seconds > self._computing_seconds

    @property
    def images_per_second(self) -> float:
        """What all devices together will want from the input, about."""
        seconds = max(self._memory_seconds, self._computing_seconds)
        return self.images_per_device * jax.device_count() / seconds

    @property
    def _computing_seconds(self) -> float:
        return self.formula_flops / (USUAL_SHARE * self.matmul_flops_per_second)

    @property
    def _memory_seconds(self) -> float:
        if not self.compiled_bytes or not self.memory_bytes_per_second:
            return 0.0
        return self.compiled_bytes * self.loop_rounds / self.memory_bytes_per_second


def make_forecast(job: build.Job, update: Any, state: Any) -> Forecast:
    """Compiles a step, which then need not be compiled again, and reads what it takes.

    Args:
      job: the run.
      update: as `pmap.pmap_update` gives it.
      state: as `pmap.replicate` gives it.
    """
    settings = job.settings
    batch = _empty_batch(settings, job.images.train)
    try:
        compiled = update.lower(state, pmap.shard(batch)).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise config_lib.UsageError(
            f"The step does not fit into memory. {_advice(settings)}"
        ) from None
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
    images = settings.batch_size // jax.device_count()
    return Forecast(
        parameters=hk.data_structures.tree_size(state.online_params),
        state_bytes=hk.data_structures.tree_bytes(state),
        batch_bytes=hk.data_structures.tree_bytes(batch) // jax.local_device_count(),
        activation_bytes=memory.temp_size_in_bytes if memory else None,
        available_bytes=available_bytes(),
        compiled_flops=costs.get("flops"),
        formula_flops=float(images * flops_of_an_image(settings)),
        loop_rounds=settings.accumulate,
        images_per_device=images,
        matmul_flops_per_second=matmul_speed(settings.model.dtype),
        compiled_bytes=costs.get("bytes accessed"),
        memory_bytes_per_second=memory_speed(),
    )


def flops_of_an_image(settings: settings_lib.PretrainSettings) -> int:
    """Of a training step, by formula, as the settings say to compute it."""
    plan = microbatch.Plan(settings.model.remat, settings.parts_of_a_pass)
    if plan.parts > 1 and settings.model.norm != "batch":  # which needs no passes of its own
        plan = microbatch.Plan(remat=True)
    return _flops(settings, plan)


def bytes_of_an_image(settings: settings_lib.PretrainSettings) -> float:
    """That an accelerator reads and writes for an image of a step, by formula.

    Each number that a convolution gives is touched `TOUCHES` times; what is computed again counts
    as much as it costs in operations.
    """
    size = jnp.dtype(settings.model.dtype).itemsize
    again = flops_of_an_image(settings) / _flops(settings, microbatch.PLAIN)
    return TOUCHES * size * again * sum(unit.outputs for unit in _units(settings))


def _units(settings: settings_lib.PretrainSettings) -> list[flops.Unit]:
    model = settings.model
    return flops.encoder_units(
        model.encoder,
        image_size=settings.data.image_size,
        stem=model.stem,
        width_multiplier=model.width_multiplier,
        resnet_v2=model.resnet_v2,
        always_project=model.padding != "torch",
    )


def _flops(settings: settings_lib.PretrainSettings, plan: microbatch.Plan) -> int:
    """Of an image, if a step is computed as planned."""
    model = settings.model
    output = model.projector_output_size
    embedding = resnet.embedding_size(model.encoder, width_multiplier=model.width_multiplier)
    projector = [model.projector_hidden_size] * model.projector_hidden_layers
    layers = model.predictor_hidden_layers if model.predictor == "mlp" else 0
    predictor = [model.predictor_hidden_size] * layers
    return flops.step(
        _units(settings),
        projector=flops.mlp(embedding, *projector, output),
        predictor=0 if model.predictor == "none" else flops.mlp(output, *predictor, output),
        plan=plan,
        has_target=table.keeps_target(settings.objective),
    )


def _empty_batch(
    settings: settings_lib.PretrainSettings, data: datasets.Dataset
) -> dict[str, np.ndarray]:
    """As the input makes it on this process, without the images."""
    count = settings.batch_size // jax.process_count()
    labels = {name: np.zeros(count, np.int32) for name in ("labels", "place")}
    if isinstance(data, datasets.ArrayDataset):
        return {"images": np.zeros((count, *data.images.shape[1:]), np.uint8)} | labels
    shape = (count, settings.data.image_size, settings.data.image_size, 3)
    return {name: np.zeros(shape, np.uint8) for name in ("view1", "view2")} | labels


def available_bytes() -> int | None:
    """Memory of one device; on a CPU, an equal fraction of what is free."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    free = machine.available_memory()
    return free and free // jax.local_device_count()


def matmul_speed(dtype: str) -> float:
    """Operations a second of a plain matrix product on one device, from three of them."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    x = jnp.ones((size, size), dtype)
    multiply = jax.jit(jnp.matmul)
    multiply(x, x).block_until_ready()
    start = time.perf_counter()
    for _ in range(3):
        multiply(x, x).block_until_ready()
    return 3 * 2 * size**3 / (time.perf_counter() - start)


def speed(dtype: str) -> Speed:
    """Both of one device here."""
    return Speed(matmul_speed(dtype), memory_speed())


def memory_speed() -> float | None:
    """Bytes a second that one device reads and writes, from three passes over 256 MB.

    None on a CPU, whose caches hold much of what the compiler counts.
    """
    if jax.default_backend() == "cpu":
        return None
    x = jnp.ones(1 << 26)
    add = jax.jit(lambda x: x + 1)
    add(x).block_until_ready()
    start = time.perf_counter()
    for _ in range(3):
        add(x).block_until_ready()
    return 3 * 2 * x.nbytes / (time.perf_counter() - start)


def describe(forecast: Forecast, settings: settings_lib.PretrainSettings) -> str:
    """What a person wants to know before waiting; the last line warns, if there is reason to."""
    f = forecast
    rounds = f" (one of {f.loop_rounds} micro-batches)" if f.loop_rounds > 1 else ""
    target = "target, " if table.keeps_target(settings.objective) else ""
    compiled = "unknown" if f.compiled_flops is None else f"{f.compiled_flops / 1e9:.3g} GFLOP"
    lines = [
        f"Each device keeps {_megabytes(f.state_bytes)} of state ({f.parameters / 1e6:.2f} M "
        f"parameters, {target}optimizer, statistics) and needs {_megabytes(f.activation_bytes)} "
        f"for activations and {_megabytes(f.batch_bytes)} for images, of "
        f"{_megabytes(f.available_bytes)}.",
        f"A step of {f.images_per_device} images a device takes {compiled} as compiled{rounds}, "
        f"{f.formula_flops / 1e9:.3g} GFLOP by formula; {_bound(f)}, the input has to bring "
        f"{f.images_per_second:,.0f} images/s.",
    ]
    if not fits(f):
        lines.append(f"WARNING: this batch will probably not fit into memory. {_advice(settings)}")
    return "\n".join(lines)


def _bound(f: Forecast) -> str:
    """What a step has to wait for, and at which speed."""
    if not f.is_bound_by_memory:
        return f"at {USUAL_SHARE:.0%} of the speed of a matrix product here"
    gigabytes = f.compiled_bytes * f.loop_rounds / 1e9
    return (
        f"it is bound by the memory of the device ({gigabytes:.3g} GB read and written at "
        f"{f.memory_bytes_per_second / 1e9:,.0f} GB/s), and at that speed"
    )


def fits(forecast: Forecast) -> bool:
    """Whether state, images and activations find room, as far as that is known."""
    if forecast.available_bytes is None or forecast.activation_bytes is None:
        return True
    needed = forecast.state_bytes + forecast.batch_bytes + forecast.activation_bytes
    return needed <= forecast.available_bytes


def _advice(settings: settings_lib.PretrainSettings) -> str:
    """What saves memory and is not in use yet, the cheapest first."""
    model, images = settings.model, settings.batch_size // jax.device_count()
    ways = []
    if model.dtype == "float32":
        ways.append("--config.model.dtype=bfloat16")
    if not model.remat:
        ways.append("--config.model.remat=true (a quarter more computation)")
    if images > settings.accumulate:
        ways.append(f"--config.accumulate={2 * settings.accumulate}")
    ways.append(f"--config.batch_size={settings.batch_size // 2}")
    return f"Try {', or '.join(ways)}."


def _megabytes(count: int | None) -> str:
    return "an unknown amount" if count is None else f"{count / 1e6:,.1f} MB"
