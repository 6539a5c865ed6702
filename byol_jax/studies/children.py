"""The processes of a study's runs: their commands, their environment, how they end."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from byol_jax.studies import grid

# Of these a process would start as many threads as the machine has processors.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
GPU_MEMORY = 0.9  # of a GPU, that the runs on it take together


def command(run: grid.Run, base: str, workdir: pathlib.Path) -> list[str]:
    """The words that start a run, as a person would type them."""
    flags = [f"--config.{key}={_typed(value)}" for key, value in run.values.items()]
    program = ["python", "-m", "byol_jax.main_loop"]
    return [*program, f"--config={base}", f"--workdir={workdir}", *flags]


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def gpus(inherited: Mapping[str, str], devices: pathlib.Path = pathlib.Path("/dev")) -> list[str]:
    """The GPUs that runs may use, found without starting JAX, which would take their memory.

    Args:
      inherited: environment of the study.
      devices: folder of the system's devices.
    """
    if inherited.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    named = inherited.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu and gpu != "-1"]
    numbers = (re.fullmatch(r"nvidia(\d+)", path.name) for path in devices.glob("nvidia*"))
    return sorted((found[1] for found in numbers if found), key=int)


def environment(
    inherited: Mapping[str, str],
    *,
    gpus: Sequence[str],
    slot: int,
    jobs: int,
    cores: int,
    cache: pathlib.Path,
) -> dict[str, str]:
    """The environment of one of several runs at a time.

    What the person has set stays. Runs share what they have compiled; those on one GPU share its
    memory, and of several each run has one, in turn.

    Args:
      inherited: of the study.
      gpus: that the runs may use.
      slot: which of the runs at a time this is, from 0.
      jobs: how many of them there are.
      cores: processors of the run; 0: all.
      cache: folder of what was compiled.
    """
    own = {
        "JAX_COMPILATION_CACHE_DIR": str(cache.absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONUNBUFFERED": "1",
    }
    if cores:
        own |= dict.fromkeys(THREADS, str(cores))
    if gpus and jobs > 1:
        per_gpu = -(-jobs // len(gpus))
        own["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{GPU_MEMORY / per_gpu:.3f}"
    found = own | dict(inherited)
    if jobs > 1 and len(gpus) > 1:
        found["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return found


def processors_of(slot: int, cores: int) -> set[int] | None:
    """The processors of a run; None for all, and where the system does not tell."""
    if not cores or not hasattr(os, "sched_getaffinity"):
        return None
    ours = sorted(os.sched_getaffinity(0))
    return {ours[(slot * cores + number) % len(ours)] for number in range(cores)}


class Child:
    """A run in a process of its own, which a signal of the terminal does not reach.

    Args:
      words: of its command.
      log: takes what it prints.
      env: its environment.
      processors: that it may use; None for all.
      descriptor: of its claim, if it has one, which it keeps open.
    """

    def __init__(
        self,
        words: Sequence[str],
        log: pathlib.Path,
        *,
        env: Mapping[str, str],
        processors: set[int] | None,
        descriptor: int | None = None,
    ):
        self._log = log
        self._began = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._start = file.tell()
            self._process = subprocess.Popen(
                [sys.executable, *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                pass_fds=() if descriptor is None else (descriptor,),
                env=dict(env),
            )
        if processors and hasattr(os, "sched_setaffinity"):  # before it has started a thread
            with contextlib.suppress(OSError):
                os.sched_setaffinity(self._process.pid, processors)

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def ask_to_end(self) -> None:
        """Has it save and end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()

    def why(self) -> str:
        """Why it ended, by what it printed last."""
        with self._log.open("rb") as file:
            file.seek(self._start)
            text = file.read().decode("utf-8", "replace")
        lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
        errors = [line for line in lines if line.startswith("Error: ")]
        said = errors[-1].removeprefix("Error: ") if errors else (lines or ["nothing said"])[-1]
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        return f"{said} ({how}; {self._log})"
