"""Limits of cgroups and of affinity, on a file system made for the test."""

import os

import pytest

from byol_jax.host import machine

MEMINFO = "MemTotal: 64000000 kB\nMemFree: 1000 kB\nMemAvailable: 32000000 kB\n"


@pytest.fixture
def make_root(tmp_path):
    """Writes files of /proc and /sys/fs/cgroup; returns the root above them."""

    def make(files):
        for name, text in {"proc/meminfo": MEMINFO, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


@pytest.fixture
def sixteen_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


V2 = {"proc/self/cgroup": "0::/slice/job\n"}
V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job\n1:name=systemd:/job\n"}
PROCESSORS = {
    "no cgroup": ({}, 16),
    "v2": (V2 | {"sys/fs/cgroup/slice/job/cpu.max": "250000 100000\n"}, 3),
    "v2, of a slice around": (V2 | {"sys/fs/cgroup/slice/cpu.max": "400000 100000"}, 4),
    "v2, no limit": (V2 | {"sys/fs/cgroup/slice/job/cpu.max": "max 100000"}, 16),
    "v2, a hidden path": (V2 | {"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
    "v1": (
        V1
        | {
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
        },
        2,
    ),
    "v1, no limit": (
        V1
        | {
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000",
        },
        16,
    ),
    "more than the mask": (V2 | {"sys/fs/cgroup/slice/job/cpu.max": "6400000 100000"}, 16),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_processors_are_those_of_the_mask_and_of_the_cgroup(case, make_root, sixteen_processors):
    files, expected = PROCESSORS[case]
    assert machine.processors(make_root(files)) == expected


MEMORY = {
    "no cgroup": ({}, 32_000_000 * 1024),
    "v2": (
        V2
        | {
            "sys/fs/cgroup/slice/job/memory.max": "4000000000",
            "sys/fs/cgroup/slice/job/memory.current": "1000000000",
            "sys/fs/cgroup/slice/job/memory.stat": "anon 5\ninactive_file 200000000\n",
        },
        3_200_000_000,
    ),
    "v2, no limit": (
        V2
        | {
            "sys/fs/cgroup/slice/job/memory.max": "max",
            "sys/fs/cgroup/slice/job/memory.current": "1",
        },
        32_000_000 * 1024,
    ),
    "v1": (
        V1
        | {
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2000000000",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "1500000000",
        },
        500_000_000,
    ),
    "v1, no limit": (
        V1
        | {
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(2**63 - 4096),
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "1",
        },
        32_000_000 * 1024,
    ),
}


@pytest.mark.parametrize("case", MEMORY)
def test_memory_is_what_the_machine_and_the_cgroup_have_left(case, make_root):
    files, expected = MEMORY[case]
    assert machine.available_memory(make_root(files)) == expected


def test_a_system_that_tells_nothing_has_an_unknown_amount_of_memory(tmp_path):
    assert machine.available_memory(tmp_path) is None


def test_nobody_else_asks_for_the_machines_processors_or_memory():
    for path in (machine.pathlib.Path(machine.__file__).parent).glob("*.py"):
        text = path.read_text()
        for name in ("cpu_count", "sched_getaffinity", "SC_AVPHYS", "SC_NPROC", "psutil"):
            assert path.stem == "machine" or name not in text, f"{path.stem}: {name}"
