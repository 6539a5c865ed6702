"""Compiled programs that are kept between commands."""

import os
import pathlib
import subprocess
import sys
import types
import zlib

import jax
import pytest

from byol_jax.host import compile_cache


@pytest.fixture(autouse=True)
def settings_of_jax(monkeypatch):
    """Notes what is set, and sets nothing of this process."""
    found = {}
    monkeypatch.setattr(jax.config, "update", found.__setitem__)
    return found


def use(home, **variables):
    return compile_cache.use({"XDG_CACHE_HOME": str(home), **variables})


def test_the_folder_is_the_users_and_of_this_kind_of_processor(tmp_path, settings_of_jax):
    said = use(tmp_path)
    folder = pathlib.Path(settings_of_jax["jax_compilation_cache_dir"])
    assert folder.is_dir() and folder.parent == tmp_path / "byol_jax" / "compiled"
    assert str(folder.parent) in said and "JAX_ENABLE_COMPILATION_CACHE=false" in said
    assert folder.stat().st_mode & 0o077 == 0  # whoever can write there can have us run anything


def test_programs_that_are_split_for_other_numbers_of_processors_are_not_shared(monkeypatch):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("the system does not tell")
    found = set()
    for count in (1, 2):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=count: set(range(n)))
        found.add(compile_cache._machine())
    assert len(found) == 2


def test_without_the_variable_it_is_below_the_home(tmp_path, monkeypatch, settings_of_jax):
    monkeypatch.setenv("HOME", str(tmp_path))
    compile_cache.use({"XDG_CACHE_HOME": "relative"})  # which is to be ignored
    assert settings_of_jax["jax_compilation_cache_dir"].startswith(f"{tmp_path}/.cache/byol_jax/")


@pytest.mark.parametrize("folder", ["", "/elsewhere"])
def test_what_the_environment_says_stays(tmp_path, settings_of_jax, folder):
    assert use(tmp_path, JAX_COMPILATION_CACHE_DIR=folder) is None
    assert not settings_of_jax and not list(tmp_path.iterdir())


def test_it_is_turned_off_as_jax_says(tmp_path, monkeypatch, settings_of_jax):
    config = types.SimpleNamespace(jax_enable_compilation_cache=False)
    monkeypatch.setattr(compile_cache, "jax", types.SimpleNamespace(config=config))
    assert use(tmp_path) is None
    assert not settings_of_jax and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said_and_stops_nothing(tmp_path, settings_of_jax):
    (tmp_path / "byol_jax").write_text("in the way")
    said = use(tmp_path)
    assert said.startswith("Compiled programs are not kept: ") and "Not a directory" in said
    assert not settings_of_jax


def entries(tmp_path, contents):
    """Writes files as JAX does, and gives their folder."""
    folder = compile_cache._place({"XDG_CACHE_HOME": str(tmp_path)})
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / f"{name}-cache").write_bytes(content)
    return folder


def test_what_a_killed_command_left_half_written_is_removed(tmp_path):
    whole = zlib.compress(os.urandom(1000))
    folder = entries(tmp_path, {"whole": whole, "half": whole[:500], "empty": b""})
    use(tmp_path)
    assert [path.name for path in folder.glob("*-cache")] == ["whole-cache"]


def test_an_entry_is_checked_once(tmp_path, monkeypatch):
    folder = entries(tmp_path, {"old": zlib.compress(b"program")})
    os.utime(folder / "old-cache", (1, 1))
    use(tmp_path)
    monkeypatch.setattr(compile_cache, "_is_whole", lambda path: pytest.fail(str(path)))
    use(tmp_path)


def test_the_oldest_are_removed_if_there_are_too_many(tmp_path, monkeypatch):
    program = zlib.compress(os.urandom(1000))
    folder = entries(tmp_path, dict.fromkeys("abc", program))
    for age, name in enumerate("abc"):
        os.utime(folder / f"{name}-cache", (age + 1, age + 1))
    monkeypatch.setattr(compile_cache, "_LIMIT_BYTES", 2 * len(program))
    use(tmp_path)
    assert sorted(path.name[0] for path in folder.glob("*-cache")) == ["b", "c"]


PROGRAM = """
import jax, jax.numpy as jnp
from byol_jax.host import compile_cache
compile_cache.use()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.monitoring.register_event_listener(lambda name, **_: print(name))
print(jax.jit(lambda x: jnp.cos(x) @ x)(jnp.ones((3, 3))).sum())
"""


@pytest.mark.slow
def test_a_second_process_reads_what_the_first_has_compiled_and_computes_the_same(tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    env |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    first, second = (
        subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    hits = "/jax/compilation_cache/cache_hits"
    assert hits not in first and hits in second
    assert first.splitlines()[-1] == second.splitlines()[-1]
