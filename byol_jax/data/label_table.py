"""Labels of a folder's images from a CSV file with the columns ``file`` and ``label``."""

import csv
import hashlib
import os
import pathlib
import posixpath
from collections.abc import Collection, Iterator, Mapping

from byol_jax import config as config_lib
from byol_jax.workdir import files

UsageError = config_lib.UsageError

FOLDERS = "folders"  # subfolders are classes
NONE = "none"  # subfolders mean nothing
COLUMNS = ("file", "label")


def is_table(labels: str) -> bool:
    """Whether a value of ``data.labels`` names a file."""
    return labels not in (FOLDERS, NONE)


def read(path: str, images: Collection[str], folder: pathlib.Path) -> dict[str, str]:
    """The labels of images by their paths below the folder; an empty cell is no label.

    Args:
      path: of the CSV file, in UTF-8.
      images: all of the folder, as paths below it.
      folder: for messages.

    Raises:
      UsageError: the file cannot be read, a column is missing, a line names no image of the
        folder, or one that another line has named; names the line.
    """
    known = images if isinstance(images, set | frozenset) else set(images)
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, row in _rows(path):
        name = posixpath.normpath((row["file"] or "").strip())
        if name not in known:
            raise UsageError(
                f"{path}, line {number}: no image '{row['file']}' in {folder}. Paths are those "
                f"below the folder, such as '{min(known)}'."
            )
        if name in lines:
            raise UsageError(
                f"{path}, line {number}: '{name}' is in line {lines[name]}, too: keep one of them."
            )
        lines[name] = number
        if (row["label"] or "").strip():
            labels[name] = row["label"].strip()
    if not labels:
        raise UsageError(f"{path} has no label in its column 'label'.")
    return labels


def _rows(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines by their number in the file, as dictionaries with `COLUMNS`."""
    try:
        text = files.read_bytes(pathlib.Path(path).expanduser()).decode("utf-8-sig")
        rows = csv.DictReader(text.splitlines(keepends=True), strict=True)
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            found = ", ".join(rows.fieldnames or ()) or "nothing"
            raise UsageError(
                f"{path}, line 1: no column '{missing[0]}' (it has {found}). The first line has "
                f"to be {','.join(COLUMNS)}."
            )
        for row in rows:
            if None in row:
                raise UsageError(
                    f"{path}, line {rows.line_num}: more cells than columns; put names with a "
                    "comma in quotation marks."
                )
            yield rows.line_num, row
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8: {error}.") from None
    except csv.Error as error:
        raise UsageError(f"{path}, after line {rows.line_num}: {error}.") from None
    except OSError as error:
        raise UsageError(
            f"Cannot read {path}: {error.strerror}. --config.data.labels is {FOLDERS}, {NONE}, or "
            "a CSV file with the columns file and label."
        ) from None


def digest(labels: Mapping[str, str]) -> str:
    """Differs if labels do."""
    lines = "\n".join(f"{name}\0{labels[name]}" for name in sorted(labels))
    return hashlib.sha256(os.fsencode(lines)).hexdigest()[:16]
