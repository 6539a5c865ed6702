"""Copies the small files of a run out of a bucket, so that its page can be made anywhere."""

import pathlib
import re
import tempfile
import time
from typing import Any

from byol_jax.report.run_data import ReportError

LEFT_OUT = re.compile(r"(checkpoints|unfinished|tensorboard)/|writer\.json|uploaded\.json|lock")
SECONDS = 15.0  # between two looks at a run that is followed


def is_address(path: str) -> bool:
    """Whether a run is named by an address such as ``gs://lab/runs/a``."""
    return "://" in path


class Copy:
    """A folder here with the files of a run in a bucket that its page is made of.

    Args:
      address: of the run.

    Raises:
      ReportError: there is no such run, or it cannot be read.
    """

    def __init__(self, address: str):
        self._address = address.rstrip("/")
        name = self._address.rpartition("/")[2]
        # Kept until the process ends, so that the page may be made again.
        self._place = tempfile.TemporaryDirectory(prefix="byol_jax_report_")
        self.folder = pathlib.Path(self._place.name) / name
        self._known: dict[str, Any] = {}
        self._looked = float("-inf")
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(self._address)
        except (ImportError, ValueError) as error:
            raise ReportError(
                f"Cannot read {address}: {error}. gs:// needs pip install gcsfs, s3:// s3fs; or "
                "mount the bucket, or copy the run."
            ) from None
        self.refresh()
        if not self._known:
            raise ReportError(f"There is no run at {address}.")

    def refresh(self) -> None:
        """Copies what is new, if it has not looked just now.

        Raises:
          ReportError: the bucket cannot be read.
        """
        if time.monotonic() < self._looked + SECONDS:
            return
        self._looked = time.monotonic()
        try:
            self._files.invalidate_cache()
            found = self._files.find(self._root, detail=True)
            for path, facts in found.items():
                self._copy(path, facts)
        except Exception as error:  # of whichever library the service needs
            first = (str(error).splitlines() or [""])[0]
            raise ReportError(
                f"Cannot read {self._address}: {first} ({type(error).__name__})."
            ) from None

    def _copy(self, path: str, facts: dict[str, Any]) -> None:
        name = path.removeprefix(self._root.rstrip("/") + "/")
        stamp = [facts.get(key) for key in ("size", "mtime", "LastModified", "updated", "created")]
        if LEFT_OUT.match(name) or ".." in name.split("/") or self._known.get(name) == stamp:
            return
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self._files.cat_file(path))
        self._known[name] = stamp
