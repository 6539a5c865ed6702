"""Runs an update on all devices: pmap, replication, parts of batches.

The state has no device axis anywhere: it enters pmap with ``in_axes=None`` and leaves it with
``out_axes=None``. Batches carry a leading axis D of local devices.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.distributed import global_mesh

T = TypeVar("T")
UsageError = config_lib.UsageError

AXIS = "devices"  # name of the axis that `jax.lax.pmean` and batch norm reduce over


# Within a process.


def reduction_axis() -> str | None:
    """`AXIS`, or None on a single device, where a reduction would only cost time.

    XLA keeps reductions over one device in the program and cannot fuse across them: a third of
    the step of a small network on a CPU.
    """
    return AXIS if jax.device_count() > 1 else None


def groups(size: int | None) -> list[list[int]] | None:
    """Positions on `AXIS` in groups of this size; None for all in one."""
    count = jax.device_count()
    if size is None or size == count:
        return None
    return np.arange(count).reshape(-1, size).tolist()


def pmap_update(update: Callable[..., Any], *, num_devices: int | None = None) -> Callable:
    """Runs ``update(state, batch) -> (state, metrics, outputs)`` on every device of all processes.

    One process does so by pmap, several by one program on global arrays (`global_mesh`).

    Args:
        update: state and metrics must come out equal on all devices (means over `AXIS`).
        num_devices: use only the first so many devices of a single process; None uses all.

    Returns:
        A function of the state (without device axis; its buffers are donated) and a batch
        [D, b, ...]; ``outputs`` keep the device axis.
    """
    if jax.process_count() > 1:
        return global_mesh.GlobalUpdate(update, AXIS)
    return jax.pmap(
        update,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None, 0),
        donate_argnums=0,
        devices=jax.local_devices()[:num_devices] if num_devices else None,
    )


def replicate(state: Any, *, num_devices: int | None = None) -> Any:
    """Copies a state to every device in the form that `pmap_update` gives back.

    Without it the second step would be compiled once more, for its new kind of input.
    """
    if jax.process_count() > 1:
        return global_mesh.replicate(state, AXIS)
    return replicate_locally(state, num_devices=num_devices)


def replicate_locally(tree: Any, *, num_devices: int | None = None) -> Any:
    """Copies arrays to every device of this process, for functions that only it calls."""
    devices = np.array(jax.local_devices()[:num_devices])
    mesh = jax.sharding.Mesh(devices, (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def step_key(seed: int, step: jax.Array) -> jax.Array:
    """The random key of one step, the same on all devices: a function of seed and step only."""
    return jax.random.fold_in(jax.random.key(seed), step)


def shard(batch: Any, *, num_devices: int | None = None) -> Any:
    """Splits the first axis of every array over local devices: [B, ...] to [D, b, ...]."""
    devices = num_devices or jax.local_device_count()
    return jax.tree.map(lambda x: np.reshape(x, (devices, -1, *x.shape[1:])), batch)


def spread(batch: np.ndarray) -> Any:
    """Places a batch on all local devices, an equal part of its first axis on each.

    A function of `replicate_locally`'s parameters and of this runs on all of them. A batch that
    does not divide by their number is copied to each instead.
    """
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    divides = len(batch) % jax.local_device_count() == 0
    spec = jax.sharding.PartitionSpec(AXIS if divides else None)
    return jax.device_put(batch, jax.sharding.NamedSharding(mesh, spec))


def round_up(batch_size: int) -> int:
    """The next batch size that divides by the number of local devices."""
    devices = jax.local_device_count()
    return -(-batch_size // devices) * devices


def batch_size(wanted: int, num_images: int) -> int:
    """The global batch size, at most the number of images, that divides by all devices."""
    devices = jax.device_count()
    return max(min(wanted, num_images) // devices, 1) * devices


# Between processes; with one process all of it is free.


def peak_memory() -> int | None:
    """The most bytes that were in use on one local device; None where it does not tell."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    return max(peaks, default=None)


def describe_devices() -> str:
    """Such as ``4 cpu devices in 1 process``."""
    processes = jax.process_count()
    name = jax.devices()[0].device_kind
    plural = "s" if jax.device_count() > 1 else ""
    in_processes = f" in {processes} processes" if processes > 1 else ""
    return f"{jax.device_count()} {name} device{plural}{in_processes}"
