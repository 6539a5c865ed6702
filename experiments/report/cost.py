"""What pictures and pages cost: PYTHONPATH=. python experiments/report/cost.py run|atlas [FLAGS].

``run`` trains as main_loop does, with its flags, and prints the fraction of its time that went into
the gallery and the report: time of the processor, by all threads, which is nearly the same on a
busy machine and on a quiet one, and time by the clock. Its workdir has to be new. ``atlas`` maps
5,000 features of size 512.
"""

import contextlib
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app

from byol_jax import main_loop
from byol_jax.report import cli
from byol_jax.visualize import embedding_map, recorder

PARTS = (
    (recorder.Curator, "see_batch"),
    (recorder.Curator, "see_probe"),
    (cli, "write_for"),
)


def now() -> np.ndarray:
    """Seconds of the processor, of all threads of this process, and of the clock."""
    return np.array([time.process_time(), time.perf_counter()])


def metered(work: Callable[..., Any], spent: np.ndarray) -> Callable[..., Any]:
    """The same function, which adds what it takes to ``spent``."""

    @functools.wraps(work)
    def run(*arguments: Any, **options: Any) -> Any:
        began = now()
        try:
            return work(*arguments, **options)
        finally:
            spent[:] += now() - began

    return run


def measure_run() -> None:
    """A whole run, and which fraction of it is due to its pictures and its page."""
    parts = {name: np.zeros(2) for _, name in PARTS}
    for owner, name in PARTS:
        setattr(owner, name, metered(getattr(owner, name), parts[name]))
    began = now()
    with contextlib.suppress(SystemExit):
        app.run(main_loop.main, argv=sys.argv, flags_parser=main_loop.parse_flags)
    whole = now() - began
    print(f"whole run: {whole[0]:.1f} s of the processor, {whole[1]:.1f} s by the clock")
    for name, spent in (parts | {"together": sum(parts.values())}).items():
        fractions = spent / whole
        print(
            f"{name}: {spent[0]:.2f} s of the processor ({fractions[0]:.2%}), "
            f"{spent[1]:.2f} s by the clock ({fractions[1]:.2%})"
        )


def measure_atlas() -> None:
    """Maps of 5,000 x 512 in twenty clusters, and without any structure: one by one, then both."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((5000, 512)).astype(np.float32)
    centers = rng.standard_normal((20, 512)).astype(np.float32)
    spaces = {"clusters": noise + centers[rng.integers(0, 20, 5000)], "noise": noise}
    works = {name: {name: features} for name, features in spaces.items()} | {"both": spaces}
    for name, work in works.items():
        began = now()
        embedding_map.project_all(work)
        spent = now() - began
        print(f"{name}: {spent[0]:.1f} s of the processor, {spent[1]:.1f} s by the clock")


if __name__ == "__main__":
    if sys.argv[1:2] == ["atlas"]:
        measure_atlas()
    else:
        del sys.argv[1]  # the rest is for main_loop
        measure_run()
