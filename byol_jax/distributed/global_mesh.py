"""An update on the devices of several processes, as one program on global arrays.

With several processes, pmap converts every array of a state in Python, at every step: a tenth of a
second for those of a ResNet-50 (experiments/scale/dispatch.md). What an update computes is the
same; `pmap.pmap_update` chooses.
"""

from collections.abc import Callable
from typing import Any

import jax
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
        mesh, spec = _mesh(axis), jax.sharding.PartitionSpec
        everywhere, split = (jax.sharding.NamedSharding(mesh, s) for s in (spec(), spec(axis)))
        self._split = split
        self._own = jax.sharding.NamedSharding(
            jax.sharding.Mesh(np.array(jax.local_devices()), (axis,)), spec(axis)
        )

        def on_one(state: Any, batch: Any) -> Any:  # a device's part keeps an axis of one
            state, metrics, outputs = update(state, jax.tree.map(lambda x: x[0], batch))
            return state, metrics, jax.tree.map(lambda x: x[None], outputs)

        self._program = jax.jit(
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


def replicate(state: Any, axis: str) -> Any:
    """A state that all processes hold alike as global arrays with a copy on every device."""
    everywhere = jax.sharding.NamedSharding(_mesh(axis), jax.sharding.PartitionSpec())
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(everywhere, np.asarray(x)), state
    )


def _mesh(axis: str) -> jax.sharding.Mesh:
    """All devices in the order that pmap gives them: those of a process side by side."""
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
    return jax.sharding.Mesh(np.array(devices), (axis,))
