"""Processors and memory of this process: those of its affinity and cgroup, not the machine's.

Containers and batch systems give a job a fraction of a machine; one that starts a thread for every
processor there is, or fills the memory there is, is slowed down or killed.
"""

import math
import os
import pathlib
from collections.abc import Iterator

_ROOT = pathlib.Path("/")
_UNLIMITED = 1 << 60  # bytes; cgroups of version 1 write about 2**63 for "no limit"


def processors(root: pathlib.Path = _ROOT) -> int:
    """How many processors this process may keep busy, at least 1.

    Args:
      root: of the file system.
    """
    shares = (math.ceil(fraction) for fraction in _cpu_shares(root))
    return max(1, min([visible_processors(), *shares]))


def visible_processors() -> int:
    """How many processors this process may run on, whatever its share of their time."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory(root: pathlib.Path = _ROOT) -> int | None:
    """Bytes that this process may still take; None where the system does not tell.

    Args:
      root: of the file system.
    """
    return min([*_free_memory(root), *_memory_left(root)], default=None)


def _cpu_shares(root: pathlib.Path) -> Iterator[float]:
    """Processors' worth of time that each cgroup around this process is granted."""
    for folder in _cgroups(root, "cpu"):
        limit = _words(folder / "cpu.max")  # version 2: "quota period"; "max": none
        if not limit:
            limit = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(limit) == 2 and limit[0].isdigit() and int(limit[1]) > 0:  # version 1: -1 for none
            yield int(limit[0]) / int(limit[1])


def _memory_left(root: pathlib.Path) -> Iterator[int]:
    """Bytes that each cgroup around this process may still take."""
    for folder in _cgroups(root, "memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _words(folder / limit_name), _words(folder / used_name)
            if limit and used and limit[0].isdigit() and int(limit[0]) < _UNLIMITED:
                yield max(int(limit[0]) - int(used[0]) + _reclaimable(folder), 0)


def _reclaimable(folder: pathlib.Path) -> int:
    """Bytes of files kept in memory, which the system gives up first."""
    words = _words(folder / "memory.stat")
    stats = dict(zip(words[::2], words[1::2], strict=False))
    return int(stats.get("total_inactive_file", stats.get("inactive_file", 0)))


def _free_memory(root: pathlib.Path) -> Iterator[int]:
    """Free bytes of the machine."""
    words = _words(root / "proc/meminfo")
    if "MemAvailable:" in words:
        yield int(words[words.index("MemAvailable:") + 1]) * 1024


def _cgroups(root: pathlib.Path, controller: str) -> Iterator[pathlib.Path]:
    """Folders of this process's cgroup and of all around it, of both versions.

    In a container its path may be one of the host that cannot be seen: then only its top is there.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mounted / controller if controllers else mounted
        here = pathlib.PurePosixPath(path.lstrip("/"))
        yield from (top / folder for folder in (here, *here.parents))


def _words(path: pathlib.Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
