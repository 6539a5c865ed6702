"""CPU time of single convolutions: XLA's own beside the forms of `models/cpu_conv.py`, in turns.

    python -m experiments.speed.convolutions [--turns=9]

Prints a row for each convolution: the form that is chosen, and XLA's time divided by its, of the
forward pass and of both gradients; medians of the ratios of neighboring turns.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.models import cpu_conv


class Case(NamedTuple):
    """One convolution of float32 images [batch, side, side, inputs], padded as in PyTorch."""

    batch: int
    side: int
    inputs: int
    outputs: int
    kernel: int
    stride: int


CASES = (
    Case(8, 56, 64, 256, 1, 1),
    Case(8, 28, 512, 128, 1, 1),
    Case(8, 14, 1024, 256, 1, 1),
    Case(8, 7, 512, 2048, 1, 1),
    Case(8, 7, 512, 512, 3, 1),
    Case(16, 3, 512, 512, 3, 1),
    Case(64, 2, 256, 256, 3, 1),
    Case(64, 1, 512, 512, 3, 1),
    Case(64, 16, 128, 256, 3, 2),
    Case(64, 8, 256, 256, 3, 1),
    Case(16, 24, 64, 128, 3, 2),
    Case(8, 56, 128, 128, 3, 2),
    Case(64, 16, 128, 128, 3, 1),
    Case(64, 32, 64, 64, 3, 1),
)


def main() -> None:
    """Measures all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    print("| batch, side | channels | kernel, stride | forward | gradients |\n" + "|---" * 5 + "|")
    for case in CASES:
        forward, gradients = ratios(case, turns)
        b, side, inputs, outputs, kernel, stride = case
        print(
            f"| {b}, {side} | {inputs} to {outputs} | {kernel}, {stride} | {forward:.2f} | "
            f"{gradients:.2f} |",
            flush=True,
        )


def ratios(case: Case, turns: int) -> tuple[float, float]:
    """XLA's time by that of the chosen form: of the forward pass, and of both gradients."""
    b, side, inputs, outputs, kernel, stride = case
    rng = np.random.default_rng(0)
    x, w = (
        jnp.asarray(rng.standard_normal(shape, np.float32))
        for shape in ((b, side, side, inputs), (kernel, kernel, inputs, outputs))
    )
    pads = ((kernel // 2, kernel // 2),) * 2

    def plain(x: jax.Array, w: jax.Array) -> jax.Array:
        return cpu_conv.plain(x, w, stride, pads)

    dy = jnp.ones_like(plain(x, w))
    of_xla = (plain, lambda x, w: jax.vjp(plain, x, w)[1](dy))
    of_ours = (
        lambda x, w: cpu_conv.forward(x, w, stride, pads),
        lambda x, w: cpu_conv.backward(x, w, dy, stride, pads),
    )
    found = [
        ratio([jax.jit(one) for one in pair], (x, w), turns)
        for pair in zip(of_xla, of_ours, strict=True)
    ]
    return found[0], found[1]


def ratio(programs: list[Callable[..., Any]], arguments: tuple[Any, ...], turns: int) -> float:
    """Median of the first one's CPU time by the second one's."""
    times: list[list[float]] = [[], []]
    for turn in range(turns + 1):
        for program, kept in zip(programs, times, strict=True):
            start = time.process_time()
            jax.block_until_ready(program(*arguments))
            if turn:  # the first one compiles
                kept.append(time.process_time() - start)
    return float(np.median(np.array(times[0]) / np.array(times[1])))


if __name__ == "__main__":
    main()
