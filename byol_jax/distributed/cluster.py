"""Brings the processes of one run together, and makes sure that they do the same."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

import jax

from byol_jax import config as config_lib
from byol_jax.distributed import coordination, lifeline, liveness

UsageError = config_lib.UsageError

JOIN_SECONDS = 300  # that processes wait for others to be started
NOTE_SECONDS = 15  # after which they say so
EXIT_SECONDS = 120  # that JAX waits for others at the very end, where all have arrived already


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    silent_seconds: float = lifeline.SILENT_SECONDS,
) -> None:
    """Joins the processes of one run; to be called before anything else of JAX.

    Without arguments the processes of a TPU pod, of SLURM and of what else JAX knows find each
    other, and where there is only one nothing happens. Under SLURM the tasks of a node divide its
    GPUs, whether each of them sees all or only its own.

    Args:
      coordinator: host and port of process 0, such as ``10.0.0.1:1234``.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      silent_seconds: a process that is not heard of for so long counts as dead.

    Raises:
      UsageError: some arguments are given and not all, or they make no sense; or the GPUs of a
        node do not divide by its tasks.
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
                local_device_ids=None if coordinator else _slurm_device_ids(),
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


def _slurm_device_ids() -> list[int] | None:
    """The GPUs of this task, numbered as it sees them; None leaves the choice to JAX.

    JAX gives task i of a node the GPU of ordinal i. That is one too few where a task has several,
    and does not exist where SLURM shows each task only its own (``--gpus-per-task``): CUDA numbers
    what a process sees from 0.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    task = os.environ.get("SLURM_LOCALID")
    if task is None or not visible or os.environ.get("JAX_LOCAL_DEVICE_IDS"):
        return None
    count = len(visible.split(","))
    on_node = int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    is_shared = count == on_node if on_node else count > 1
    if not is_shared:  # no other task sees these
        return list(range(count))
    tasks = _slurm_tasks_on_node()
    if count % tasks:
        raise UsageError(
            f"{count} GPUs of this node do not divide by its {tasks} tasks: set "
            f"--ntasks-per-node={count}, or a divisor of it."
        )
    share = count // tasks
    return list(range(int(task) * share, (int(task) + 1) * share))


def _slurm_tasks_on_node() -> int:
    """Tasks of this step on this node, of a list such as ``8(x3),4``: one number for each node."""
    listed = (
        os.environ.get("SLURM_STEP_TASKS_PER_NODE") or os.environ.get("SLURM_TASKS_PER_NODE") or "1"
    )
    counts: list[int] = []
    for part in listed.split(","):
        tasks, _, nodes = part.rstrip(")").partition("(x")
        counts += [int(tasks)] * int(nodes or 1)
    return counts[int(os.environ.get("SLURM_NODEID", "0"))]


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
