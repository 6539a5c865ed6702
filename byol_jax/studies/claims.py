"""Which machine does a run: files in a shared folder, which one process alone can make.

A claim is a file with the name of its holder. It is made with its content and its lock in one step
(a link, which fails if the name is taken). The run inherits the lock, which the system frees once
the study and the run have both ended, however they did. Between machines that do not share locks
the holder's sign of life counts: the time of the file, which it renews.
"""

import contextlib
import fcntl
import os
import pathlib
import platform
import secrets
import time

from byol_jax.workdir import files

BEAT_SECONDS = 30.0  # between two signs of life
SILENT_SECONDS = 600.0  # without one, after which a machine may be dead


class Claim:
    """A run that this process has to do.

    Attributes:
      descriptor: of the file, whose lock the run inherits.
    """

    def __init__(self, path: pathlib.Path, descriptor: int):
        self._path, self.descriptor = path, descriptor
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Gives a sign of life if it is time for one."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self._beaten = time.monotonic()
            with contextlib.suppress(OSError):  # of a disk that may come back
                os.utime(self.descriptor)

    def release(self) -> None:
        """Gives the run back, done or not."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self.descriptor)


class Taken(Exception):
    """Somebody else does the run; the text says who.

    Attributes:
      is_silent: without a sign of life for so long that the machine may be dead.
    """

    def __init__(self, text: str, *, is_silent: bool = False):
        super().__init__(text)
        self.is_silent = is_silent


def take(path: pathlib.Path) -> Claim:
    """Claims a run for this process; one that has ended on this machine is taken over.

    Args:
      path: of the claim.

    Raises:
      Taken: by whom.
      OSError: the folder cannot be written to.
    """
    files.make_folder(path.parent)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        _lock(descriptor)
        os.link(part, path)
    except FileExistsError:
        now = os.fstat(descriptor).st_mtime  # by the clock that the file system goes by
        os.close(descriptor)
        return _take_over(path, now)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        part.unlink()
    return Claim(path, descriptor)


def _take_over(path: pathlib.Path, now: float) -> Claim:
    """The claim of a holder on this machine who has ended."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:  # given back just now
        return take(path)
    try:
        holder = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
        try:
            has_locks = _lock(descriptor)
        except BlockingIOError:
            raise Taken(f"being run by {holder}") from None
        if not has_locks or not holder.endswith(f" on {platform.node()}"):
            raise _elsewhere(path, holder, now - os.fstat(descriptor).st_mtime)
        if not _is_at(path, descriptor):  # given back, and perhaps claimed anew
            raise Taken(f"being run by {holder}")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return Claim(path, descriptor)


def _lock(descriptor: int) -> bool:
    """Locks a file; says whether the file system has locks.

    Raises:
      BlockingIOError: somebody else has.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _is_at(path: pathlib.Path, descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False


def _elsewhere(path: pathlib.Path, holder: str, silent: float) -> Taken:
    if silent < SILENT_SECONDS:
        return Taken(f"being run by {holder}")
    return Taken(
        f"claimed by {holder}, without a sign of life for {silent / 60:.0f} minutes: if that "
        f"machine is dead, remove {path} and rerun this command",
        is_silent=True,
    )
