"""Twenty recorded steps on several topologies: losses, time, and what is all-reduced.

    python -m tests.support.topologies

Every topology is started as processes of its own, joined by `cluster.initialize`.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time

import numpy as np

TOPOLOGIES = {"1x1": (1, 1), "1x4": (1, 4), "2x2": (2, 2), "4x1": (4, 1)}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}


def run(topology: tuple[int, int], dtype: str = "float64") -> dict:
    """What `_train` gives, from the first of the processes."""
    processes, devices = topology
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": str(int(dtype == "float64")),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.topologies"]
            + [dtype, f"localhost:{port}", str(processes), str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    outputs = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"a process failed: {[process.returncode for process in started]}")
    return json.loads(outputs[0].strip().splitlines()[-1])


def _train(dtype: str, coordinator: str, processes: int, index: int) -> dict:
    """Twenty steps of the recorded run in one process: its images, taken in turns as in training.

    Returns:
      ``losses`` of every step, ``milliseconds`` of a step (median), ``all_reduces`` and ``bytes``
      that a device all-reduces in a step.
    """
    from byol_jax.distributed import cluster, multihost, pmap

    if processes > 1:
        cluster.initialize(coordinator, processes, index)
    import jax

    from tests.training import train_step_test

    update, state = train_step_test.golden_run(None, dtype=np.dtype(dtype).type)
    state = pmap.replicate(state)
    losses, seconds = [], []
    for step in range(train_step_test.RUN_CONFIG["num_steps"]):
        whole = train_step_test.golden_batch(step, 1, np.dtype(dtype).type)
        own = jax.tree.map(lambda x: x[0, index::processes], whole)
        batch = pmap.shard(own)
        if step == 0:
            text = update.lower(state, batch).compile().as_text()
        start = time.perf_counter()
        state, scalars, _ = update(state, batch)
        losses.append(float(scalars["loss"]))
        seconds.append(time.perf_counter() - start)
    multihost.assert_replicated(state)
    count, size = all_reduced(text)
    return {
        "losses": losses,
        "milliseconds": 1000 * float(np.median(seconds[1:])),
        "all_reduces": count,
        "bytes": size,
    }


def _end(processes: int) -> None:
    """As commands end: when all are done, and without Python's end, in which threads may abort."""
    import jax

    from byol_jax.distributed import coordination

    if processes > 1:
        coordination.finish()
        jax.distributed.shutdown()  # waits for all
    os._exit(0)


def all_reduced(program: str) -> tuple[int, int]:
    """Number of all-reduces of a compiled program, and the bytes of their results."""
    found = re.findall(r"= (.*?) all-reduce(?:-start)?\(", program)
    shapes = [shape for results in found for shape in re.findall(r"(\w+)\[([\d,]*)\]", results)]
    sizes = [BYTES[kind] * np.prod([int(n) for n in d.split(",") if n]) for kind, d in shapes]
    return len(found), int(sum(sizes))


def main() -> None:
    """Prints a table."""
    print("| topology | float64 | float32 | ms a step | all-reduces | bytes all-reduced |")
    print("|---|---|---|---|---|---|")
    expected = {}
    for name, topology in TOPOLOGIES.items():
        found = {dtype: run(topology, dtype) for dtype in ("float64", "float32")}
        expected = expected or found
        far = [
            np.abs(np.subtract(found[dtype]["losses"], expected[dtype]["losses"])).max()
            for dtype in found
        ]
        row = found["float32"]
        print(
            f"| {name} | {far[0]:.1e} | {far[1]:.1e} | {row['milliseconds']:.1f} | "
            f"{row['all_reduces']} | {row['bytes']:,} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:]:
        precision, address, count, own_index = sys.argv[1:]
        print(json.dumps(_train(precision, address, int(count), int(own_index))), flush=True)
        _end(int(count))
    else:
        main()
