"""Reads files that may be images, and tells a bad file from a system that fails."""

import errno
import os
import pathlib
import stat

from byol_jax import config as config_lib
from byol_jax.data import image_formats

MAX_FILE_BYTES = 1 << 30

# These are about one file; other errors (too many open files, no memory, a broken disk or network)
# would call every image bad that is read at the moment.
_OF_THE_FILE = frozenset(
    (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
    + (errno.ENAMETOOLONG, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)
)


class ReadError(config_lib.UsageError):
    """The system cannot read or hold an image at the moment; says nothing about the image."""


def read(path: str | pathlib.Path) -> bytes:
    """The bytes of a regular file; never waits for a pipe or a device.

    Raises:
      image_formats.BadImageError: there is no such file, it may not be read, or it is none.
      ReadError: the system fails.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise image_formats.BadImageError("not a file, but a folder, pipe or device")
            if status.st_size > MAX_FILE_BYTES:
                raise image_formats.BadImageError(f"too large: {status.st_size / 1e9:.1f} GB")
            return file.read()
    except (OSError, MemoryError) as error:
        require_system(error, str(path))
        raise image_formats.BadImageError(f"cannot be read: {error.strerror}") from None


def require_system(error: BaseException, what: str) -> None:
    """Raises `ReadError` if an error is the system's and not about one file."""
    if isinstance(error, MemoryError):
        reason = "out of memory"
    elif isinstance(error, OSError) and error.errno and error.errno not in _OF_THE_FILE:
        reason = error.strerror
    else:
        return
    raise ReadError(
        f"Cannot read {what}: {reason}. That is no fault of the image: mend it, and rerun the "
        "same command to resume."
    ) from None
