"""Runs the steps of the table on a CUDA GPU: images a second, and the share of the bound."""

import functools
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from byol_jax.distributed import global_mesh, pmap
from experiments.accelerators import machines, run, step

SIZES = (8, 64, 256)
SHORT = 2e-3  # seconds; a step that takes less is also run several times a dispatch
DISPATCHED = 8


def main(models: Sequence[str]) -> None:
    """Prints a table; without a GPU one line, and nothing is run."""
    if jax.default_backend() != "gpu":
        sys.exit("Not run on hardware: no accelerator. Without --on_gpu steps are only compiled.")
    print(f"{jax.devices()[0].device_kind}, one of {jax.device_count()}, bfloat16\n")
    print("| encoder | images | images/s | ms | ms, 8 a dispatch | share of the H100's bound |")
    print("|---|---|---|---|---|---|")
    compiled = dict(run.read())
    for model in models:
        for images in SIZES:
            cell = run.Cell("h100-1", model, "bfloat16", images)
            _print(cell, compiled.get(cell))


def _print(cell: run.Cell, found: dict[str, Any] | None) -> None:
    made = step.make(cell.model, cell.dtype, images=cell.images, devices=1)
    seconds = _seconds(made, dispatched=1)
    several = ""
    if seconds < SHORT:
        several = f"{1e3 * _seconds(made, dispatched=DISPATCHED):.2f}"
    rate, share, ms = cell.images / seconds, "", 1e3 * seconds
    if found and "error" not in found:
        share = f"{rate / min(run.bounds(cell, found).values()):.0%}"
    print(
        f"| {cell.model} | {cell.images} | {rate:,.0f} | {ms:.2f} | {several} | {share} |",
        flush=True,
    )


def _seconds(made: step.Step, *, dispatched: int) -> float:
    """Of one step: the least of three times 20 dispatches, each of so many steps."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), (pmap.AXIS,))
    program = global_mesh.make_program(several(made.update, dispatched), mesh)
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: rng.random(x.shape).astype(x.dtype) / 100, made.state)
    batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), made.batch)
    everywhere, split = machines.shardings(mesh)
    state, batch = jax.device_put(state, everywhere), jax.device_put(batch, split)
    state, _, _ = program(state, batch)  # compiles
    times = []
    for _ in range(3):
        jax.block_until_ready(state)
        start = time.perf_counter()
        for _ in range(20):
            state, _, _ = program(state, batch)
        jax.block_until_ready(state)
        times.append((time.perf_counter() - start) / (20 * dispatched))
    return min(times)


def several(update: Any, count: int) -> Any:
    """An update that takes so many steps with one batch; metrics and outputs are of the last."""
    if count == 1:
        return update

    @functools.wraps(update)
    def repeated(state: Any, batch: Any) -> Any:
        def body(_: Any, carried: Any) -> Any:
            return update(carried[0], batch)

        return jax.lax.fori_loop(1, count, body, update(state, batch))

    return repeated
