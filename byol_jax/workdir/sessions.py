"""Notes when a run was started and how it ended, each time: ``sessions.jsonl`` in its folder."""

import datetime
import json
import pathlib
import platform
import resource
import shlex
import sys
import time

from byol_jax.distributed import pmap
from byol_jax.host import machine
from byol_jax.workdir import run_folder

UsageError = run_folder.UsageError

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of the memory that the system reports


def note_start(workdir: pathlib.Path) -> None:
    """Adds what is known when a run begins or goes on.

    Raises:
      UsageError: the folder cannot be written to.
    """
    try:
        _append(workdir, {"event": "start"} | _facts())
    except OSError as error:
        raise UsageError(f"Cannot write to the workdir {workdir}: {error}.") from None


def note_end(workdir: pathlib.Path, *, began: float, message: str = "") -> None:
    """Adds how a session ended; what it has done is worth no less if that cannot be noted.

    Args:
      workdir: of the run.
      began: when the session did, in seconds since 1970.
      message: why it failed; empty if it did not.
    """
    end = {
        "event": "end",
        "status": "failed" if message else "done",
        "message": message,
        "seconds": round(time.time() - began, 1),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT,
        "peak_device_memory_bytes": pmap.peak_memory(),
    }
    try:
        _append(workdir, end | _facts())
    except OSError as error:
        print(f"Warning: cannot write to {workdir}: {error.strerror}.", file=sys.stderr)


def note_probe(workdir: pathlib.Path, *, num_images: int) -> None:
    """Adds of how many images the accuracies of this session's probes are."""
    _append(workdir, {"event": "probe", "num_images": num_images})


def _facts() -> dict[str, object]:
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "byol_jax.main_loop", *sys.argv[1:]]),
        "devices": pmap.describe_devices(),
        "machine": f"{platform.machine()}, {machine.processors()} processors, {platform.system()}",
        "versions": run_folder.versions(),
    }


def _append(workdir: pathlib.Path, row: dict[str, object]) -> None:
    with (workdir / "sessions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
