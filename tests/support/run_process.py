"""Runs the program in processes that can be killed, on a network that is compiled in seconds.

Every life of a run is a fork of a server that has imported everything and started nothing: only
so do dozens of them fit into a test.
"""

import atexit
import json
import multiprocessing
import os
import pathlib
import re
import signal
import socket
import sys
import time

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["byol_jax.main_loop", "byol_jax.tasks.pretrain", "tests.support.run_process"]
)
OPTIONS = {
    "batch_size": 8,
    "total_steps": 60,
    "log_every_steps": 1,
    "checkpoint_every_steps": 3,
    "data.image_size": 16,
    "probe.every_steps": 1000,
    "probe.max_images": 40,
    "model.encoder": "pico",
    "model.projector_hidden_size": 8,
    "model.projector_output_size": 8,
    "model.predictor_hidden_size": 8,
    "optimizer.name": "sgd",
}


def options_with(overrides):
    """`OPTIONS` and others; None takes one of them away."""
    return {key: value for key, value in (OPTIONS | overrides).items() if value is not None}


def small_config(**overrides):
    """The config of `OPTIONS`, for a look at what a run has left."""
    from configs import byol

    _add_pico()
    config = byol.get_config()
    config.update_from_flattened_dict(options_with(overrides))
    return config


def _add_pico():
    from byol_jax.models import resnet

    spec = resnet.ResNetSpec("pico", (1,), (8,), (1,), stem_channels=8)
    resnet.ENCODERS.setdefault("pico", spec)


def run_program(arguments, devices, log, before):
    """The program itself, once in a process; ``before`` is done first."""
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    )
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in a background ignore it
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    from absl import app

    from byol_jax import main_loop
    from byol_jax.data import patterns

    _add_pico()
    for name, split in patterns.SPLITS.items():  # of this process, and of no other test
        patterns.SPLITS[name] = split._replace(num_images=40)
    if before:
        before()
    sys.argv = ["main_loop", *arguments]  # which the flags of configs read themselves
    try:
        app.run(main_loop.main, flags_parser=main_loop.parse_flags)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


class RunProcess:
    """The processes of one start of a run.

    Args:
      workdir: of the run.
      topology: how many processes, and devices of each.
      before: done in every process before anything else; a function of a module.
      own: further arguments of a process, by its number.
      overrides: keys of the config.
    """

    def __init__(self, workdir, topology=(1, 1), *, before=None, own=None, **overrides):
        options = options_with({k.replace("__", "."): value for k, value in overrides.items()})
        arguments = ["--config=configs/byol.py", f"--workdir={workdir}"]
        arguments += [f"--config.{key}={value}" for key, value in options.items()]
        count, devices = topology
        self.workdir = pathlib.Path(workdir)
        self._logs = [self.workdir.with_name(f"{self.workdir.name}-{i}.log") for i in range(count)]
        for log in self._logs:
            log.unlink(missing_ok=True)
        flags = [f"--coordinator=localhost:{_free_port()}", f"--num_processes={count}"]
        self.processes = [
            CONTEXT.Process(
                target=run_program,
                args=(
                    arguments
                    + ([*flags, f"--process_id={i}"] if count > 1 else [])
                    + (own or {}).get(i, []),
                    devices,
                    log,
                    before,
                ),
            )
            for i, log in enumerate(self._logs)
        ]
        for process in self.processes:
            process.start()

    def wait_for_step(self, step):
        """Returns as soon as this life has shown the step, or a later one that it began with."""
        for _ in self._poll(f"step {step}"):
            shown = re.findall(r"^step (\d+)/", self.text(), re.MULTILINE)
            if shown and int(shown[-1]) >= step:
                return

    def wait_for_text(self, text):
        """Returns as soon as the first process has printed it."""
        for _ in self._poll(text):
            if text in self.text():
                return

    def _poll(self, what, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            yield
            if not any(process.is_alive() for process in self.processes):
                raise AssertionError(f"the run ended before {what}:\n{self.text()}")
            time.sleep(0.002)
        self.kill()
        raise TimeoutError(f"{what} did not come:\n{self.text()}")

    def text(self, process=0):
        """What a process has printed so far."""
        path = self._logs[process]
        return path.read_text(errors="replace") if path.exists() else ""

    def signal(self, number, *processes):
        """Sends a signal to some processes, or to all."""
        for index in processes or range(len(self.processes)):
            os.kill(self.processes[index].pid, number)

    def kill(self):
        """Kills all that are left; the system gives them no time to do anything."""
        for process in self.processes:
            process.kill()
            process.join()

    def finish(self, seconds=150):
        """Exit status of every process, once all have come to their end."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.1))
        left = [process for process in self.processes if process.is_alive()]
        if left:
            self.kill()
            raise TimeoutError(f"processes hang:\n{self.text()}")
        return [process.exitcode for process in self.processes]


def _free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def finish(workdir, topology=(1, 1), **options):
    """Lives to the end; gives the text of the first process."""
    life = RunProcess(workdir, topology, **options)
    assert life.finish() == [0] * topology[0], life.text()
    return life.text()


def metrics(workdir):
    """All that was logged but for speed."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in rows]


def steps(workdir):
    """Of the checkpoints that are there."""
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


KILLED = -signal.SIGKILL
