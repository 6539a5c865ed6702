"""Folders in buckets (``gs://lab/runs/a``), as whole objects: read, written, listed and removed.

fsspec is the door to them, which Orbax uses, too; each service needs one more package.
"""

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from byol_jax import config as config_lib

T = TypeVar("T")

# What a service needs besides fsspec; "file" and "memory" are for tests.
PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "file": "", "memory": ""}


class BucketError(RuntimeError):
    """A bucket cannot be read or written to at the moment."""


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a folder in a bucket of a service that is known."""
    scheme, mark, _ = os.fspath(path).partition("://")
    return bool(mark) and scheme in PACKAGES


class Bucket:
    """What is below an address; names are relative to it, with slashes.

    Args:
      address: such as ``gs://lab/runs/a``.

    Raises:
      UsageError: it names no folder of a bucket, or a package for it is not installed.
    """

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        scheme, _, place = self.address.partition("://")
        if not re.fullmatch(r"/?[^/]+(/[^/]+)+", place) and scheme not in ("file", "memory"):
            raise config_lib.UsageError(
                f"{address} is a whole bucket: name a folder in it, such as {scheme}://BUCKET/run."
            )
        import fsspec

        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except ImportError:
            package = PACKAGES[scheme]
            raise config_lib.UsageError(
                f"{scheme}:// needs a package that is not installed: pip install {package}."
            ) from None
        except Exception as error:
            raise config_lib.UsageError(f"Cannot use {address}: {reason(error)}") from None

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if there is none of this name.

        Raises:
          BucketError: it cannot be told.
        """
        return self._try("read", name, lambda: self._files.cat_file(self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Writes an object, which appears as a whole, in place of any other of its name."""

        def write() -> None:
            self._make_folder(name)
            if "file" not in self._files.protocol:
                self._files.pipe_file(self._path(name), data)
                return
            part = self._path(f"{name}.part")  # files, unlike objects, can be half written
            self._files.pipe_file(part, data)
            os.replace(part, self._path(name))

        self._try("write", name, write)

    def upload(self, source: str | os.PathLike[str], name: str) -> None:
        """Writes an object of a file that may be larger than memory and does not change."""

        def put() -> None:
            self._make_folder(name)
            self._files.put_file(os.fspath(source), self._path(name))

        self._try("write", name, put)

    def download(self, name: str, target: str | os.PathLike[str]) -> None:
        """Copies an object into a new file.

        Raises:
          BucketError: it cannot be read, or is not there.
        """
        path = self._path(name)

        def get() -> bool:
            self._files.get_file(path, os.fspath(target))
            return True

        if not self._try("read", name, get):
            raise BucketError(f"Cannot read {self.address}/{name}: it is not there.")

    def remove(self, name: str) -> None:
        """Removes an object, which may be gone already."""
        self._try("remove", name, lambda: self._files.rm_file(self._path(name)))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_folder(self, name: str) -> None:
        """Only file systems have folders that have to be made."""
        if "file" in self._files.protocol or "memory" in self._files.protocol:
            self._files.makedirs(os.path.dirname(self._path(name)), exist_ok=True)

    def _try(self, what: str, name: str, call: Callable[[], T]) -> T | None:
        """Calls, and turns whatever a service's library raises into one kind of error.

        None if an object that is to be read or removed is not there.
        """
        try:
            self._files.invalidate_cache()
            return call()
        except Exception as error:
            if what != "write" and isinstance(error, FileNotFoundError):
                return None
            raise BucketError(f"Cannot {what} {self.address}/{name}: {reason(error)}") from None


def reason(error: Any) -> str:
    """The first line of an error, with its kind."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{lines[0][:300]} ({type(error).__name__})."
