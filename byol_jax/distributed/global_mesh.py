"""An update on the devices of several processes, as one program on global arrays.

With several processes, pmap converts every array of a state in Python, at every step: a tenth of a
second for those of a ResNet-50 (experiments/scale/dispatch.md). What an update computes is the
same; `pmap.pmap_update` chooses.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class GlobalUpdate:
    """Runs ``update(state, batch) -> (state, metrics, outputs)`` on every device of all processes.

    It is called with a state of `replicate` (its buffers are donated) and a batch [D, b, ...] of
    the devices of this process, and gives outputs of these [D, ...]. State and metrics must come
    out equal on all devices.

    Args:
      update: reduces over the axis.
      axis: name of the axis over devices.
    """

    def __init__(self, update: Callable[..., Any], axis: str):
        spec = jax.sharding.PartitionSpec(axis)
        self._split = jax.sharding.NamedSharding(_mesh(axis), spec)
        local = jax.sharding.Mesh(np.array(jax.local_devices()), (axis,))
        self._own = jax.sharding.NamedSharding(local, spec)
        self._program = make_program(update, _mesh(axis))

    def __call__(self, state: Any, batch: Any) -> tuple[Any, Any, Any]:
        """Takes a step."""
        state, metrics, outputs = self._program(state, self._place(batch))
        return state, metrics, jax.tree.map(self._take_own, outputs)

    def lower(self, state: Any, batch: Any) -> jax.stages.Lowered:
        """The program of a step, to be compiled."""
        return self._program.lower(state, self._place(batch))

    def _place(self, batch: Any) -> Any:
        """Parts [D, b, ...] of all processes as arrays [all D, b, ...]; nothing is sent."""
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._split, x), batch)

    def _take_own(self, x: jax.Array) -> jax.Array:
        """What the devices of this process have of an output, which it can read."""
        shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        shape = (len(shards), *x.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, self._own, [s.data for s in shards])


def make_program(update: Callable[..., Any], mesh: jax.sharding.Mesh) -> Any:
    """An update as one program on global arrays: (state, batch) -> (state, metrics, outputs).

    Args:
      update: reduces over the only axis of the mesh.
      mesh: of all devices; they may be those of a topology, to compile for machines elsewhere.
    """
    (axis,), spec = mesh.axis_names, jax.sharding.PartitionSpec
    everywhere, split = (jax.sharding.NamedSharding(mesh, s) for s in (spec(), spec(axis)))

    def on_one(state: Any, batch: Any) -> Any:  # a device's part keeps an axis of one
        state, metrics, outputs = update(state, jax.tree.map(lambda x: x[0], batch))
        return state, metrics, jax.tree.map(lambda x: x[None], outputs)

    return jax.jit(
        jax.shard_map(
            on_one,
            mesh=mesh,
            in_specs=(spec(), spec(axis)),
            out_specs=(spec(), spec(), spec(axis)),
            check_vma=False,  # else gradients would be reduced in places of JAX's choice
        ),
        in_shardings=(everywhere, split),
        out_shardings=(everywhere, everywhere, split),
        donate_argnums=0,
    )


def replicate(state: Any, axis: str) -> Any:
    """A state that all processes hold alike as global arrays with a copy on every device."""
    everywhere = jax.sharding.NamedSharding(_mesh(axis), jax.sharding.PartitionSpec())
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(everywhere, np.asarray(x)), state
    )


def checksums(x: jax.Array, axis: str) -> jax.Array:
    """One number for each device, of the bits that it holds of an array that all should hold alike.

    Nothing but that leaves a device: copies of a large state would stall training for seconds.

    Args:
      x: with a copy on each of several devices, of all processes or of this one.
      axis: name of the axis over them.

    Returns:
      uint32 [D], of which each process can read the numbers of its own devices.
    """
    is_local = x.is_fully_addressable
    return _checksum(axis, len(x.sharding.device_set) if is_local else None)(x)


@functools.cache
def _checksum(axis: str, num_local: int | None) -> Callable[[jax.Array], jax.Array]:
    """A program for every shape, each of which compiles in no time; one for all takes minutes."""
    spec = jax.sharding.PartitionSpec
    mesh = _mesh(axis)
    if num_local is not None:
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:num_local]), (axis,))
    return jax.jit(
        jax.shard_map(
            _sum_of_bits, mesh=mesh, in_specs=spec(), out_specs=spec(axis), check_vma=False
        )
    )


def _sum_of_bits(x: jax.Array) -> jax.Array:
    """Every word times an odd number of its own, so that a swap changes the sum, too; [1]."""
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    words = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, words).reshape(-1).astype(jnp.uint32)
    odd = jax.lax.iota(jnp.uint32, bits.size) * jnp.uint32(2654435761) | jnp.uint32(1)
    return jnp.sum(bits * odd, dtype=jnp.uint32)[None]


def _mesh(axis: str) -> jax.sharding.Mesh:
    """All devices in the order that pmap gives them: those of a process side by side."""
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
    return jax.sharding.Mesh(np.array(devices), (axis,))
