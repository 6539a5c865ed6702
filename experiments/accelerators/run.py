"""Compiles training steps for machines that are not here, and says what would bound them.

    pip install jax-cuda13-pjrt jax-cuda13-plugin libtpu     # of the versions jax[tpu] names
    python -m experiments.accelerators.run [--machines=h100-1,v5e-4] [--models=resnet50]
        [--dtypes=bfloat16] [--images=64] [--limit=600]

Each cell is compiled in a process of its own, which ends after --limit seconds. What is known is
in results.jsonl and not compiled again. --table prints it; --on_gpu runs the steps on a CUDA GPU.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from experiments.accelerators import machines

RESULTS = pathlib.Path(__file__).parent / "results.jsonl"
HEADER = (
    "machine | encoder | dtype | images a device | compiling, CPU s | temp, GB | peak, GB | of HBM "
    "| all-reduces | MB | GFLOP | GB | launches | bound by | images/s at most"
)


class Cell(NamedTuple):
    """A step to compile."""

    machine: str
    model: str
    dtype: str
    images: int


def main(arguments: Sequence[str]) -> None:
    """Compiles what is asked for and not known, then prints the table."""
    options = _parse(arguments)
    if options.on_gpu:
        from experiments.accelerators import on_gpu

        return on_gpu.main(options.models)
    known = dict(read())
    for cell in () if options.table else _cells(options):
        if cell not in known:
            known[cell] = compile_apart(cell, limit=options.limit)
            with RESULTS.open("a") as file:
                file.write(json.dumps({**cell._asdict(), **known[cell]}) + "\n")
            print(row(cell, known[cell]), flush=True)
    print("\n".join(table(known)))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser()
    parser.add_argument("--machines", type=names, default=list(machines.MACHINES))
    parser.add_argument("--models", type=names, default=["resnet18", "resnet50"])
    parser.add_argument("--dtypes", type=names, default=["bfloat16", "float32"])
    parser.add_argument("--images", type=names, default=["8", "64", "256"])
    parser.add_argument("--limit", type=float, default=600)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--on_gpu", action="store_true")
    return parser.parse_args(arguments)


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    axes = options.machines, options.models, options.dtypes, map(int, options.images)
    return itertools.starmap(Cell, itertools.product(*axes))


def read(path: pathlib.Path = RESULTS) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Cells that were compiled, or could not be, and what was found."""
    for line in path.read_text().splitlines() if path.exists() else ():
        found = json.loads(line)
        yield Cell(*(found.pop(key) for key in Cell._fields)), found


def compile_apart(cell: Cell, *, limit: float) -> dict[str, Any]:
    """What the program takes, or ``{"error": why there is none}``."""
    command = [sys.executable, "-m", "experiments.accelerators.compile_step", *map(str, cell)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"not compiled within {limit:.0f} s"}
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    return {"error": _reason(done.stderr)}


def _reason(stderr: str) -> str:
    """The line of an error that says what it is."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "RESOURCE_EXHAUSTED" in line]
    return ([*lines[-1:], *telling] or ["it ended without a word"])[-1][:300]


def bounds(cell: Cell, found: dict[str, Any]) -> dict[str, float]:
    """Images a second of the whole machine if nothing but one of the two counted."""
    kind, devices = machines.parts(cell.machine)
    device = machines.DEVICES[kind]
    images = cell.images * devices
    return {
        "memory": images * device.chip.bandwidth / found["bytes"],
        "operations": images * device.flops(cell.dtype) / found["formula_flops"],
    }


def row(cell: Cell, found: dict[str, Any]) -> str:
    """A line of the table."""
    start = f"| {cell.machine} | {cell.model} | {cell.dtype} | {cell.images} | "
    if "error" in found:
        return f"{start}{found['error']} |"
    device = machines.DEVICES[machines.parts(cell.machine)[0]]
    rates = bounds(cell, found)
    first = min(rates, key=rates.__getitem__)
    counted = f" ({found['flops'] / 1e9:,.0f})" if found["flops"] else ""
    flops = f"{found['formula_flops'] / 1e9:,.0f}{counted}"
    cells = (
        f"{found['compile_seconds']:.0f}",
        f"{found['temp_bytes'] / 1e9:.2f}",
        f"{found['peak_bytes'] / 1e9:.2f}",
        f"{found['peak_bytes'] / device.chip.memory:.0%}",
        str(found["all_reduces"]),
        f"{found['all_reduce_bytes'] / 1e6:,.1f}",
        flops,
        f"{found['bytes'] / 1e9:.3g}",
        f"{found['launches']:,}",
        first,
        f"{rates[first]:,.0f}",
    )
    return f"{start}{' | '.join(cells)} |"


def table(known: dict[Cell, dict[str, Any]]) -> list[str]:
    """Markdown, in the order of machines."""
    ordered = sorted(known, key=lambda c: (machines.MACHINES.index(c.machine), *c[1:]))
    rows = [row(cell, known[cell]) for cell in ordered]
    return [f"| {HEADER} |", "|---" * (HEADER.count("|") + 1) + "|", *rows]


if __name__ == "__main__":
    main(sys.argv[1:])
