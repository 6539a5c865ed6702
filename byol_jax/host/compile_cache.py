"""Keeps compiled programs between commands, in a folder of the user's.

JAX does the keeping. What it leaves to its users is here: which folder, that it may be impossible
to write, what a command that was killed has left half-written there, and how large it may get.
"""

import hashlib
import os
import pathlib
import platform
import tempfile
import zlib
from collections.abc import Mapping

import jax

from byol_jax.host import machine

# All that JAX writes below the folder ends like this.
_ENTRIES = "*-cache"
_CHECKED = ".checked"  # its time says which entries are known to be whole
_LIMIT_BYTES = 2 * 2**30
_MIN_SECONDS = 0.3  # of compiling; below it, reading a file takes as long
_ZSTD = b"\x28\xb5\x2f\xfd"  # how entries begin where JAX has that library; they are not checked


def use(environment: Mapping[str, str] = os.environ) -> str | None:
    """Has JAX keep what it compiles, unless the environment says where, or that it should not.

    Args:
      environment: JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE are JAX's own.

    Returns:
      What to tell a person; None if the environment has decided, or if it was said before: when
      the folder was made.
    """
    if "JAX_COMPILATION_CACHE_DIR" in environment or not jax.config.jax_enable_compilation_cache:
        return None
    folder, is_known = None, False
    try:
        folder = _place(environment)
        is_known = folder.exists()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _tidy(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        reason = getattr(error, "strerror", None) or error
        where = folder or "the cache folder"
        return f"Compiled programs are not kept: {where} cannot be written ({reason})."
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in environment:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
    if is_known:
        return None
    return (
        f"Compiled programs are kept in {folder.parent} "
        "(JAX_ENABLE_COMPILATION_CACHE=false: they are not)."
    )


def _place(environment: Mapping[str, str]) -> pathlib.Path:
    """The folder of this machine; machines that share a home may have other processors."""
    given = pathlib.Path(environment.get("XDG_CACHE_HOME", ""))
    caches = given if given.is_absolute() else pathlib.Path("~/.cache").expanduser()
    return caches / "byol_jax" / "compiled" / _machine()


def _machine() -> str:
    """Digest of what a program depends on: instructions, and processors it is split for."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = ("model name", "flags", "Features")
    known = sorted({line for line in lines if line.startswith(names)})
    count = machine.visible_processors()
    text = "\n".join([*(known or [platform.processor()]), platform.machine(), str(count)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _tidy(folder: pathlib.Path) -> None:
    """Removes entries that are damaged, and the oldest if there are too many.

    JAX writes an entry in place and never again: what a command that is killed, or a full disk,
    leaves half-written would be read in vain by each that follows.

    Raises:
      OSError: the folder cannot be written.
    """
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"\0" * 4096)
        probe.flush()
        now = os.fstat(probe.fileno()).st_mtime  # by the clock of the file system
    stamp = folder / _CHECKED
    checked = _when(stamp)
    entries = sorted((_when(path), path) for path in folder.glob(_ENTRIES))
    for written, path in entries:
        if written >= checked and not _is_whole(path):
            path.unlink(missing_ok=True)
    _prune([path for _, path in reversed(entries)])
    stamp.touch()
    os.utime(stamp, (now, now))


def _when(path: pathlib.Path) -> float:
    """When a file was written; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process may tidy, too
        return 0.0


def _is_whole(path: pathlib.Path) -> bool:
    try:
        content = path.read_bytes()
        return content.startswith(_ZSTD) or bool(zlib.decompress(content))
    except (FileNotFoundError, zlib.error):
        return False


def _prune(newest_first: list[pathlib.Path]) -> None:
    """Removes the oldest files beyond the limit."""
    total = 0
    for path in newest_first:
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
        if total > _LIMIT_BYTES:
            path.unlink(missing_ok=True)
