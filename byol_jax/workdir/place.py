"""Whether the folder of a run is still where the run began to write to it."""

import os
import pathlib
import sys

# What has become of a folder that is nowhere to be found; only Linux tells where one went.
LOST = "removed" if sys.platform == "linux" else "renamed or removed"


class LeftError(RuntimeError):
    """The folder of a run was renamed or removed; all processes end by it after the same step."""


class Place:
    """Tells whether a folder is still where it was when the run began.

    It is told by the system's number of the folder and, since some network file systems give a
    new one now and then, by the lock file in it.
    """

    def __init__(self, workdir: pathlib.Path):
        self._workdir, self._text = workdir, _read_lock(workdir)
        self._descriptor = os.open(workdir, os.O_RDONLY)
        self._identity = _identity(os.fstat(self._descriptor))

    def is_left(self) -> bool:
        """Whether the folder was renamed or removed; a moment's trouble of the system is not it."""
        try:
            if _identity(os.stat(self._workdir)) == self._identity:
                return False
            return _read_lock(self._workdir) != self._text
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False

    def now(self) -> pathlib.Path | None:
        """Where the folder is now; None if it was removed, or the system does not tell."""
        try:
            path = pathlib.Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))
            return path if _identity(os.stat(path)) == self._identity else None
        except OSError:
            return None

    def close(self) -> None:
        """Lets go of the folder."""
        os.close(self._descriptor)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _read_lock(workdir: pathlib.Path) -> str:
    return (workdir / "lock").read_text()
