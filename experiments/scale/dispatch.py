"""What a step costs the host: pmap and one program on global arrays, with one and two processes.

    python -m experiments.scale.dispatch

The state has as many arrays as a network's, but small ones, so that nothing else takes time.
"""

import os
import socket
import subprocess
import sys
import time

LEAVES = {"ResNet-50": 1162, "ResNet-200 2x": 4312}
STEPS = 40


def main() -> None:
    """Prints a table of milliseconds from calling an update to its return, the median."""
    print("| arrays of the state | processes | pmap, ms | one program, ms |\n|---|---|---|---|")
    for name, leaves in LEAVES.items():
        for processes in (1, 2):
            with socket.socket() as listener:
                listener.bind(("localhost", 0))
                address = f"localhost:{listener.getsockname()[1]}"
            command = [sys.executable, "-m", "experiments.scale.dispatch", address, str(processes)]
            started = [
                subprocess.Popen([*command, str(i), str(leaves)], stdout=subprocess.PIPE, text=True)
                for i in range(processes)
            ]
            printed = [process.communicate(timeout=600)[0] for process in started]
            pmap_ms, global_ms = printed[0].split()[-2:]
            print(f"| {leaves:,} ({name}) | {processes} | {pmap_ms} | {global_ms} |", flush=True)


def measure(address: str, processes: int, index: int, leaves: int) -> list[float]:
    """Milliseconds of both ways in one process of the run."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    from byol_jax.distributed import cluster, global_mesh, pmap

    if processes > 1:
        cluster.initialize(address, processes, index)
    import jax
    import jax.numpy as jnp
    import numpy as np

    def update(state, batch):
        change = batch["x"].mean() * 1e-6
        state = jax.tree.map(lambda x: x + change, state)
        return state, {f"metric{i}": change for i in range(12)}, batch["x"]

    host_state = {f"leaf{i}": np.ones(4, np.float32) for i in range(leaves)}
    batch = pmap.shard({"x": np.ones((jax.local_device_count(), 4), np.float32)})
    mapped = jax.pmap(
        update, pmap.AXIS, in_axes=(None, 0), out_axes=(None, None, 0), donate_argnums=0
    )
    ways = (
        (mapped, pmap.replicate_locally),
        (
            global_mesh.GlobalUpdate(update, pmap.AXIS),
            lambda s: global_mesh.replicate(s, pmap.AXIS),
        ),
    )
    found = []
    for step, replicate in ways:
        state, taken = replicate(jax.tree.map(jnp.asarray, host_state)), []
        for _ in range(STEPS + 3):
            start = time.perf_counter()
            state, _, _ = step(state, batch)
            taken.append(1000 * (time.perf_counter() - start))
            jax.block_until_ready(state)
        found.append(float(np.median(taken[3:])))
    return found


if __name__ == "__main__":
    if sys.argv[1:]:
        place, count, own_index, number = sys.argv[1:]
        print(*(f"{ms:.1f}" for ms in measure(place, int(count), int(own_index), int(number))))
    else:
        main()
