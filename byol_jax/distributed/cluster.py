"""Brings the processes of one run together, and makes sure that they do the same."""

import contextlib
import hashlib
import json
import os
import pathlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets, image_decoding
from byol_jax.distributed import coordination, lifeline, liveness, pmap
from byol_jax.workdir import run_folder

UsageError = config_lib.UsageError

JOIN_SECONDS = 300  # that processes wait for others to be started
NOTE_SECONDS = 15  # after which they say so
EXIT_SECONDS = 120  # that JAX waits for others at the very end, where all have arrived already

# What each host may set for itself: where its copy of the data is, and how it reads it.
HOST_KEYS = ("data.dir", "data.threads", "data.workers")
# What each process would write into the same files.
LONE_TASKS = ("embed", "export", "gallery", "preview", "convert", "pack")
JAX_OPTIONS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_threefry_partitionable",
)


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    silent_seconds: float = liveness.SILENT_SECONDS,
) -> None:
    """Joins the processes of one run; to be called before anything else of JAX.

    Without arguments the processes of a TPU pod, of SLURM and of what else JAX knows find each
    other, and where there is only one nothing happens.

    Args:
      coordinator: host and port of process 0, such as ``10.0.0.1:1234``.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      silent_seconds: a process that is not heard of for so long counts as dead.

    Raises:
      UsageError: some arguments are given and not all, or they make no sense.
      coordination.OtherProcessError: the other processes did not come.
    """
    if silent_seconds < 5 * liveness.BEAT_SECONDS:
        raise UsageError(f"--silent_seconds={silent_seconds:g} must be at least 10.")
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given):
        _check_flags(*given)
    elif os.environ.get("SLURM_NTASKS") == "1":  # where JAX would take one GPU of many
        return
    # Its handler would swallow SIGTERM; which step is the last one, the votes of `Vote` decide.
    jax.config.update("jax_enable_preemption_service", False)
    if coordinator is not None:  # on pods and clusters it is not CPUs that talk
        _let_collectives_wait(silent_seconds)
    try:
        # JAX ends a process with a dump, so that our own limits have to come first.
        with _limit_of_joining(coordinator, num_processes):
            jax.distributed.initialize(
                *given,
                initialization_timeout=2 * JOIN_SECONDS,
                heartbeat_timeout_seconds=round(4 * silent_seconds),
                shutdown_timeout_seconds=EXIT_SECONDS,
            )
    except ValueError as error:
        if coordinator is None and "coordinator_address should be defined" in str(error):
            return  # no cluster: one process
        raise
    except RuntimeError as error:
        if "must be called before" in str(error):
            raise
        reason = (str(error).strip().splitlines() or ["unknown"])[0]
        raise coordination.OtherProcessError(
            f"The processes did not find each other within {JOIN_SECONDS} s: {reason}"
        ) from None
    if jax.process_count() > 1:
        coordination.start(silent_seconds)


@contextlib.contextmanager
def _limit_of_joining(coordinator: str | None, num_processes: int | None) -> Iterator[None]:
    """Says after a while that the others are waited for, and ends the process if they stay away."""
    at = f" at {coordinator}" if coordinator else ""
    who = f"the {num_processes} processes" if num_processes else "the processes"

    def give_up() -> None:
        reason = "not all of them were started"
        if coordinator and not lifeline.is_reachable(*coordinator.rsplit(":", 1)):
            reason = f"process 0 is not running, or {coordinator} cannot be reached from here"
        text = (
            f"{who.capitalize()} of this run did not meet{at} within {JOIN_SECONDS:,} s: {reason}."
        )
        print(f"Error: {text}", file=sys.stderr, flush=True)
        os._exit(1)

    note = f"Waiting for {who}{at}, for at most {JOIN_SECONDS:,} s..."
    timers = [
        threading.Timer(NOTE_SECONDS, lambda: print(note, file=sys.stderr, flush=True)),
        threading.Timer(JOIN_SECONDS, give_up),
    ]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def _check_flags(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    example = "--coordinator=10.0.0.1:1234 --num_processes=2 --process_id=0"
    if None in (coordinator, num_processes, process_id):
        raise UsageError(f"Give all three flags or none (on TPU pods and SLURM): {example}.")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--coordinator={coordinator} is not HOST:PORT, as in {example}.")
    if not 0 <= process_id < num_processes:
        raise UsageError(
            f"--process_id={process_id} must be from 0 to {num_processes - 1}, one less than "
            f"--num_processes={num_processes}."
        )


def _let_collectives_wait(silent_seconds: float) -> None:
    """Lets XLA on CPUs wait as long as we do: it would end the process after 40 s, with a dump."""
    flags = os.environ.get("XLA_FLAGS", "")
    seconds = round(4 * silent_seconds)
    for name in (
        "xla_cpu_collective_call_terminate_timeout_seconds",
        "xla_cpu_collective_timeout_seconds",
    ):
        if name not in flags:
            flags += f" --{name}={seconds}"
    os.environ["XLA_FLAGS"] = flags


def require_same_program(config: Any) -> None:
    """Compares configs, versions, code and devices of all processes.

    Raises:
      UsageError: on all of them, naming what differs; or it is a task for one process.
    """
    if jax.process_count() == 1:
        return
    if config.task in LONE_TASKS:
        raise UsageError(
            f"The task '{config.task}' runs in one process, and {jax.process_count()} were "
            "started: start one, without --coordinator and --num_processes."
        )
    values = config_lib.flatten(json.loads(config_lib.to_json(config)))
    facts = {f"--config.{key}": values[key] for key in values if key not in HOST_KEYS}
    facts |= {f"version of {name}": version for name, version in run_folder.versions().items()}
    facts |= {name: str(getattr(jax.config, name)) for name in JAX_OPTIONS}
    facts["code of byol_jax"] = _code_digest()
    device = jax.local_devices()[0]
    facts["local devices"] = f"{jax.local_device_count()} x {device.device_kind}"
    require_same(facts, what="comparing configs")


def _code_digest() -> str:
    """Of all modules of this package."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def require_same(facts: dict[str, Any], *, what: str) -> None:
    """Raises on all processes, naming what differs, unless the facts of all are the same.

    Args:
      facts: of this process, by what they are called in a message.
      what: is being compared.
    """
    if jax.process_count() == 1:
        return
    found = pmap.gather_json(facts, what=what)
    for index, other in enumerate(found):
        names = [name for name in found[0] | other if found[0].get(name) != other.get(name)]
        if names:
            listed = "; ".join(
                f"{name} is {other.get(name)} there and {found[0].get(name)} on process 0"
                for name in names[:8]
            )
            more = f"; and {len(names) - 8} more" if len(names) > 8 else ""
            raise UsageError(
                f"Process {index} differs from process 0: {listed}{more}. Start all processes with "
                "the same command, code and data."
            )


def require_same_data(what: str, data: datasets.Dataset) -> None:
    """Raises on all processes unless all of them have found the same images.

    Args:
      what: the images are called.
      data: as this process sees it.
    """
    if jax.process_count() == 1:
        return
    facts = {
        f"number of images of {what}": data.num_images,
        f"number of classes of {what}": data.num_classes,
        f"fingerprint of {what}": digest(data),
    }
    require_same(facts, what=f"comparing {what}")


def digest(data: datasets.Dataset, *, num_images: int = 16) -> str:
    """Differs if the images do: over what is cheap to know of all, and the bytes of some."""
    found = hashlib.sha256(f"{data.fingerprint} {data.num_images}".encode())
    if isinstance(data, datasets.Images):
        found.update(np.ascontiguousarray(data.labels))
    for index in np.linspace(0, data.num_images - 1, min(num_images, data.num_images)).astype(int):
        if isinstance(data, datasets.Images):
            found.update(np.ascontiguousarray(data.images[index]))
            continue
        try:
            encoded, label = data.records.read(int(index))
            found.update(encoded + str(label).encode())
        except image_decoding.BadImageError as error:
            found.update(str(error).encode())
    return found.hexdigest()[:16]
