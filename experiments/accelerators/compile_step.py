"""Compiles one step for one machine and prints what the program takes, as JSON.

    python -m experiments.accelerators.compile_step h100-8 resnet50 bfloat16 64

`experiments.accelerators.run` starts one such process for each cell of its table.
"""

import json
import os
import pathlib
import sys
import time
from typing import Any

BACKENDS = {"h100": "gpu", "v5e": "tpu"}


def prepare(machine: str) -> None:
    """What has to be said before JAX starts; its devices stand for those of the machine."""
    kind, _, count = machine.partition("-")
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # there is no metadata server
    flags = [f"--xla_force_host_platform_device_count={count}"]
    if kind == "h100":
        flags.append("--xla_gpu_autotune_level=0")  # which needs the card
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])


def measure(machine: str, model: str, dtype: str, images: int) -> dict[str, Any]:
    """Compiles; numbers are of one device and one step."""
    import haiku as hk
    import jax

    from byol_jax.distributed import global_mesh
    from byol_jax.training import resource_estimate
    from experiments.accelerators import machines, program, step

    kind, devices = machines.parts(machine)
    jax.default_backend = lambda: BACKENDS[kind]  # layers choose by it what they are made of
    made = step.make(model, dtype, images=images, devices=devices)
    mesh = machines.mesh(machine)
    start = time.process_time()
    step_program = global_mesh.make_program(made.update, mesh)
    compiled = step_program.lower(made.state, made.batch).compile()
    seconds = time.process_time() - start
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if folder := os.environ.get("PROGRAMS"):  # to look at
        (pathlib.Path(folder) / f"{machine}_{model}_{dtype}_{images}.txt").write_text(text)
    costs = compiled.cost_analysis() or _costs(compiled)
    return {
        "compile_seconds": round(seconds, 1),
        "state_bytes": hk.data_structures.tree_bytes(made.state),
        "temp_bytes": memory.temp_size_in_bytes,
        "peak_bytes": getattr(memory, "peak_memory_in_bytes", 0),
        "argument_bytes": memory.argument_size_in_bytes,
        # In a program for a GPU convolutions are calls, of which XLA counts no operation.
        "flops": None if kind == "h100" else costs.get("flops"),
        "formula_flops": images * resource_estimate.flops_of_an_image(made.settings),
        "bytes": costs.get("bytes accessed"),
        **program.count(text)._asdict(),
    }


def _costs(compiled: Any) -> dict[str, float]:
    """What XLA counts in a program whose backend, without a card, does not count by itself."""
    import jax
    from jax._src.lib import xla_client

    (module,) = compiled.runtime_executable().hlo_modules()
    return xla_client._xla.hlo_module_cost_analysis(jax.local_devices()[0].client, module)


def main(machine: str, model: str, dtype: str, images: str) -> None:
    """Prints one line of JSON."""
    prepare(machine)
    print(json.dumps(measure(machine, model, dtype, int(images))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
