"""The run and the export that an earlier version wrote; tests/golden/README.md says more."""

import pathlib
import tarfile

ARCHIVE = pathlib.Path(__file__).parents[1] / "golden" / "earlier_version.tar.xz"


def unpack(folder):
    """Writes ``run``, ``export`` and ``expected.json`` into a folder, and gives it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder
