"""How long a checkpoint stalls training: comparing devices, copying, and what the loop waits for.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m experiments.scale.saving

The state is a ResNet-50's, or another encoder's by --encoder=NAME:WIDTH.
"""

import hashlib
import pathlib
import sys
import tempfile
import time

import haiku as hk
import jax
import numpy as np

from byol_jax.checkpoints import manager
from byol_jax.distributed import multihost, pmap
from byol_jax.models import byol_network
from byol_jax.training import optimizers, train_step


def main(encoder: str, width: int) -> None:
    """Prints seconds, the least of three."""
    forward = byol_network.make_forward(
        encoder, width_multiplier=width, num_classes=1000, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    optimizer = optimizers.lars(
        lambda step: 0.1, weight_decay=1e-6, momentum=0.9, trust_coefficient=1e-3
    )
    images = np.zeros((1, 64, 64, 3), np.float32)
    params, statistics = jax.eval_shape(
        lambda key: forward.init(key, images, is_training=True), jax.random.key(0)
    )
    step = jax.ShapeDtypeStruct((), np.int32)
    momentum = jax.eval_shape(optimizer.init, params)
    state = train_step.TrainState(step, params, params, statistics, statistics, momentum)
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: rng.random(x.shape, np.float32).astype(x.dtype), state)
    size = hk.data_structures.tree_bytes(state)
    state = pmap.replicate(state)
    print(f"{encoder} x{width}: {size / 1e6:,.0f} MB on each of {jax.device_count()} devices")
    host = jax.device_get(state)
    _time("copying to the host", lambda: jax.tree.map(np.array, jax.device_get(state)))
    _time("before: comparing numbers", lambda: _compare_numbers(state))
    _time("before: sha256, in the main thread", lambda: _digest(host))
    _time("now: comparing checksums", lambda: multihost.assert_replicated(state))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints, steps = manager.Checkpoints(pathlib.Path(folder), keep=1), iter(range(9))

        def save() -> None:
            checkpoints.save(next(steps), state, {})

        _time("now: save returns", save, after=checkpoints.finish)
        _time("now: until it is on disk", lambda: (save(), checkpoints.finish()))
        checkpoints.close()


def _time(what, call, *, after=lambda: None) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
        after()
    print(f"{what:<36}{min(seconds):8.2f} s", flush=True)


def _compare_numbers(state) -> None:
    for leaf in jax.tree.leaves(state):
        first, *others = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert all(np.array_equal(first, other, equal_nan=True) for other in others)


def _digest(host) -> None:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(host):
        digest.update(np.ascontiguousarray(leaf).tobytes())


if __name__ == "__main__":
    named = sys.argv[1].removeprefix("--encoder=") if sys.argv[1:] else "resnet50:1"
    name, _, multiplier = named.partition(":")
    main(name, int(multiplier or 1))
