"""Machines that XLA compiles for without having them, and what their makers say of one device."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies

from byol_jax.distributed import pmap
from byol_jax.training import accelerators


class Device(NamedTuple):
    """One device.

    Attributes:
      chip: by the data sheet of its maker.
      float32_part: of its peak, that it has for what JAX makes of float32 by default: TF32 on a
        GPU, products of bfloat16 on a TPU.
    """

    chip: accelerators.Accelerator
    float32_part: float

    def flops(self, dtype: str) -> float:
        """Operations a second."""
        return self.chip.flops * (self.float32_part if dtype == "float32" else 1.0)


DEVICES = {
    "h100": Device(accelerators.ACCELERATORS["NVIDIA H100"], 0.5),
    "v5e": Device(accelerators.ACCELERATORS["TPU v5e"], 1.0),
}
SLICES = {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
MACHINES = ("h100-1", "h100-8", *(f"v5e-{count}" for count in SLICES))

# What XLA asks a card about itself, as its target configs are written.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def parts(machine: str) -> tuple[str, int]:
    """Kind and number of its devices."""
    kind, _, count = machine.partition("-")
    return kind, int(count)


@functools.cache
def topology(machine: str) -> Any:
    """The devices of a machine, for a compiler.

    Raises:
      Exception: the compiler is not installed, or does not know the machine.
    """
    kind, count = parts(machine)
    if kind == "h100":
        name = f"1x1x{count}"
        return topologies.get_topology_desc("", "cuda", topology=name, target_config=H100)
    return topologies.get_topology_desc(f"v5e:{SLICES[count]}", "tpu")


def mesh(machine: str) -> jax.sharding.Mesh:
    """Its devices along the axis that updates reduce over."""
    return jax.sharding.Mesh(np.array(topology(machine).devices), (pmap.AXIS,))


def shardings(mesh: jax.sharding.Mesh) -> tuple[Any, Any]:
    """Of arrays with a copy on every device, and of those split by their first axis."""
    spec = jax.sharding.PartitionSpec
    return tuple(jax.sharding.NamedSharding(mesh, s) for s in (spec(), spec(pmap.AXIS)))
