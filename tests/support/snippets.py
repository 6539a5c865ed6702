"""Runs the Python of the guides as a reader would: alone, in a process of its own."""

import subprocess
import sys

import numpy as np

from tests.support import documents

_BLOCK = """\
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ImportError(f"{{name}} is kept away from this test")
sys.meta_path.insert(0, Block())
"""
_SAVE = """
import numpy
numpy.save("features.npy", numpy.asarray(features))
"""


def snippet(word):
    """The only block of Python in README and guides in which a word occurs."""
    (found,) = [block for block in documents.blocks("python") if word in block]
    return found


def features_of(code, folder, exports, *, without):
    """What a snippet has made of the images of an export.

    Args:
      code: of the snippet, which leaves ``features``.
      folder: to work in.
      exports: name in ``runs/`` -> folder of the export.
      without: packages that cannot be imported.
    """
    (folder / "runs").mkdir()
    for name, export in exports.items():
        (folder / "runs" / name).symlink_to(export)
    (folder / "snippet.py").write_text(_BLOCK.format(packages=without) + code + _SAVE)
    subprocess.run([sys.executable, "snippet.py"], cwd=folder, check=True, timeout=120)
    return np.load(folder / "features.npy")
