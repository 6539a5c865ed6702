"""Where an export goes: a folder that appears as a whole, in place of an older export at most."""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

from byol_jax import config as config_lib
from byol_jax.checkpoints import export_contents
from byol_jax.workdir import console, files

UsageError = config_lib.UsageError

_CACHE = "__pycache__"  # which Python makes of the module in an export


@contextlib.contextmanager
def replaced(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new, empty folder to write into, which gets its name once everything in it is whole.

    Raises:
      UsageError: there is anything else at the workdir than an export as it was written, or it
        cannot be written to.
    """
    if workdir.name in ("", ".."):
        raise UsageError(f"{workdir} cannot be replaced as a whole: name a folder by --workdir.")
    workdir = workdir.resolve()  # a link stays what it is
    part = workdir.with_name(f".{workdir.name}.{secrets.token_hex(4)}.part")
    try:
        _require_replaceable(workdir)
        files.make_folder(workdir.parent)
        part.mkdir()
        yield part
        for path in (*part.iterdir(), part):
            files.sync(path)
        _swap(part, workdir)
    except OSError as error:
        raise UsageError(
            f"Cannot write to {workdir}: {error.strerror or error}. Nothing was written: make "
            "room, or give another --workdir."
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def list_files(folder: pathlib.Path) -> dict[str, Any]:
    """Sizes and digests of all files of an export but ``model.json``, in which they are noted."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != export_contents.MODEL]
    return {path.name: _describe(path) for path in paths}


def _describe(path: pathlib.Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _swap(part: pathlib.Path, workdir: pathlib.Path) -> None:
    """Gives a folder its name; of the export that had it, what was written is removed."""
    ours = _require_replaceable(workdir)
    if not ours:
        os.rename(part, workdir)
        return
    source = json.loads((workdir / export_contents.MODEL).read_text())["source"]
    old = workdir.with_name(f".{workdir.name}.{secrets.token_hex(4)}.old")
    os.rename(workdir, old)
    try:
        os.rename(part, workdir)
    except BaseException:
        os.rename(old, workdir)
        raise
    for path in ours:
        shutil.rmtree(old / path.name) if path.name == _CACHE else (old / path.name).unlink()
    with contextlib.suppress(OSError):  # somebody has added a file just now
        old.rmdir()
    console.say(f"Replaced the export of {source['path']} in {workdir}.")


def _require_replaceable(workdir: pathlib.Path) -> list[pathlib.Path]:
    """What an export left in a folder; nothing of a folder that is empty or missing.

    Raises:
      UsageError: it holds something else, or what was changed since.
    """
    advice = "give another --workdir, or move it away"
    if not workdir.exists():
        return []
    if not workdir.is_dir() or workdir.is_mount():
        raise UsageError(f"{workdir} cannot be replaced as a whole: {advice}.")
    paths = sorted(workdir.iterdir())
    if not paths:
        return []
    known = _read_files(workdir / export_contents.MODEL)
    if known is None:
        raise UsageError(
            f"{workdir} holds something that is no export, such as {paths[0].name}: {advice}."
        )
    other = next((path for path in paths if not _is_as_written(path, known)), None)
    if other:
        raise UsageError(
            f"{other} is not as an export wrote it, so {workdir} is not replaced: {advice}."
        )
    return paths


def _read_files(path: pathlib.Path) -> dict[str, Any] | None:
    """What an export says about its files; None if it is none of ours."""
    try:
        model = json.loads(files.read_bytes(path))
        is_ours = model["format"] == export_contents.FORMAT and "path" in model["source"]
        return dict(model["files"]) if is_ours else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _is_as_written(path: pathlib.Path, known: dict[str, Any]) -> bool:
    if path.is_symlink():
        return False
    if path.name == _CACHE and path.is_dir():
        return all(entry.suffix == ".pyc" for entry in path.iterdir())
    if path.name == export_contents.MODEL:
        return path.is_file()
    return path.is_file() and known.get(path.name) == _describe(path)
