"""Writes the files of a report whole, and over nothing but what an earlier report wrote."""

import os
import pathlib
import secrets
from collections.abc import Callable, Mapping

from byol_jax.report.run_data import ReportError

# What only files of ours begin with, or hold somewhere.
PAGE = (b"""content="default-src 'none'; img-src data:; style-src 'unsafe-inline';""",)
TABLE = (b"run,series,metric,step,value\n", b"name,label,start_x,", b"name,label,now_x,")
NAME = "byol_jax"
FIGURES: Mapping[str, bytes] = {
    "png": b"Software\0byol_jax",
    "svg": b"<dc:title>byol_jax</dc:title>",
    "pdf": b"/Creator (byol_jax)",
}


def is_ours(path: pathlib.Path) -> bool:
    """Whether a file is a page, a table or a figure of ours."""
    with path.open("rb") as file:
        head = file.read(4096)
        if path.suffix[1:] in FIGURES:
            return FIGURES[path.suffix[1:]] in head + file.read()
    return head.startswith(TABLE) or any(mark in head for mark in PAGE)


def require_ours(*paths: pathlib.Path) -> None:
    """Checks that nothing is lost if these files are replaced.

    Raises:
      ReportError: one is there that is none of ours, or no file; names it.
    """
    for path in paths:
        try:
            if not os.path.lexists(path):
                continue
            if path.is_dir() or not (path.is_file() and is_ours(path)):
                raise ReportError(
                    f"{path} was not written by this program and is left as it is: move it away, "
                    "or choose another folder."
                )
        except OSError as error:
            raise _cannot_write(path, error) from None


def write(path: pathlib.Path, save: Callable[[pathlib.Path], object]) -> pathlib.Path:
    """Lets ``save`` write a new file beside ``path``, which it replaces once it is on the disk.

    Raises:
      ReportError: ``path`` is none of ours, or it cannot be written.
    """
    require_ours(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(part)
        _sync(part)
        os.replace(part, path)
        _sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        if part.exists():
            part.unlink()
    return path


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: pathlib.Path, error: OSError) -> ReportError:
    return ReportError(f"Cannot write {path}: {error.strerror or error}. Give another --out.")
