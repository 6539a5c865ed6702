"""Writes files whole: under a name there is the old content or the new one, never half of it.

Also opens files of a folder that is somebody else's, too, where a name may be that of a pipe.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

from byol_jax import config as config_lib

_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")  # of the file with the name inside
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of file systems that cannot sync a folder


class WriteError(OSError, config_lib.UsageError):
    """A file could not be written; the text names it and says why.

    Args:
      path: of the file, perhaps of what `whole` gives.
      error: what the system said.
    """

    def __init__(self, path: pathlib.Path, error: OSError):
        part = _PART.fullmatch(path.name)
        name = path.with_name(part[1]) if part else path
        super().__init__(error.errno, error.strerror or str(error), str(name))

    def __str__(self) -> str:
        return (
            f"Cannot write to {self.filename}: {self.strerror}. Make room, or choose another "
            "folder by --workdir or --config.output_dir, and rerun the same command."
        )


def open_regular(path: str | pathlib.Path) -> BinaryIO:
    """Opens a file for reading; never waits for a pipe or a device.

    Raises:
      OSError: there is no such file, it cannot be read, or it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    reason = os.strerror(code) if stat.S_ISDIR(mode) else "not a regular file"
    raise OSError(code, reason, str(path))


def read_bytes(path: str | pathlib.Path) -> bytes:
    """The content of a file, as `open_regular` opens it."""
    with open_regular(path) as file:
        return file.read()


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file as `whole` does.

    Raises:
      WriteError: no space, or the folder cannot be written to.
    """
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file as `whole` does.

    Raises:
      WriteError: no space, or the folder cannot be written to.
    """
    with whole(path) as part, writing(path):
        part.write_bytes(data)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new, empty file to write, which replaces ``path`` once its content is on the disk.

    Whatever ends the block early, the new file is removed and ``path`` stays as it was. If the
    process is killed, the next one that writes the same file removes what was left.

    Raises:
      WriteError: it names ``path``. What the block raises passes unchanged; see `writing`.
    """
    with contextlib.ExitStack() as stack:
        with writing(path):
            _require_replaceable(path)
            make_folder(path.parent)
            _remove_leftovers(path)
            part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
            stack.callback(_remove, part)
            stack.enter_context(_locked(part, os.O_CREAT | os.O_EXCL))
        yield part
        with writing(path):
            sync(part)
            os.replace(part, path)
            sync(path.parent)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns an error of the system into one that names the file that was to be written.

    Raises:
      WriteError: in place of any other `OSError`.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(path, error) from None


def is_part(path: pathlib.Path) -> bool:
    """Whether a file was left by a writer that was killed, or is being written."""
    return _PART.fullmatch(path.name) is not None


def make_folder(path: pathlib.Path) -> None:
    """Makes a folder and those above it, unless they are there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # what the system says of a file in its place
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None


def sync(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NO_SYNC):
            raise
    finally:
        os.close(descriptor)


def _require_replaceable(path: pathlib.Path) -> None:
    """A device or a pipe, such as /dev/null, would be replaced by a file."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file")


@contextlib.contextmanager
def _locked(path: pathlib.Path, flags: int = 0) -> Iterator[None]:
    """Holds the lock of a file, which tells that its writer is alive."""
    descriptor = os.open(path, os.O_RDWR | flags, 0o666)
    try:
        with contextlib.suppress(OSError) if flags else contextlib.nullcontext():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # some file systems have none
        yield
    finally:
        os.close(descriptor)


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # of a disk that has gone; what led here is what is told
        path.unlink()


def _remove_leftovers(path: pathlib.Path) -> None:
    """Removes what writers of this file have left that were killed."""
    for left in list(path.parent.iterdir()):
        part = _PART.fullmatch(left.name)
        if not part or part[1] != path.name:
            continue
        with contextlib.suppress(OSError), _locked(left):
            left.unlink()
