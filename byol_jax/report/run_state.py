"""Whether a run is still going on, as far as that can be known from its folder."""

import math
import pathlib
import platform
import re
from collections.abc import Mapping
from typing import Any

from byol_jax.report import metric_curves

try:
    import fcntl
except ImportError:  # Windows, where a page can be made of files that were copied there
    fcntl = None

ALIVE, GONE, UNKNOWN = "alive", "gone", "unknown"
QUIET_SECONDS = 180  # without a line of metrics, at least, before it is worth a word


def state(folder: pathlib.Path) -> str:
    """ALIVE if a process holds the folder's lock, GONE if the one that held it on this machine has
    left it; UNKNOWN of another machine's, and without a lock."""
    if fcntl is None:
        return UNKNOWN
    path = folder / "lock"
    try:
        if not path.is_file():
            return UNKNOWN
        with path.open("rb") as file:
            holder = file.read(1000).decode("utf-8", "replace")
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return ALIVE
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:  # a file system without locks
        return UNKNOWN
    found = re.search(r"process \d+ on (\S+)", holder)
    return GONE if found and found[1] == platform.node() else UNKNOWN


def quiet_seconds(config: Mapping[str, Any], seconds_of_step: float | None) -> float:
    """For how long a run of this pace may be silent: three logs, and longer if probes take time."""
    every = metric_curves.number(config.get("log_every_steps")) or 0
    return max(QUIET_SECONDS, 3 * every * (seconds_of_step or 0))


def seconds_of_step(config: Mapping[str, Any], images_per_second: float | None) -> float | None:
    """From the speed that the run has logged last."""
    batch_size = metric_curves.number(config.get("batch_size"))
    if not batch_size or not images_per_second or images_per_second <= 0:
        return None
    seconds = batch_size / images_per_second
    return seconds if math.isfinite(seconds) else None
