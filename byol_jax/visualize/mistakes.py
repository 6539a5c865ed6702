"""Pictures of the evaluated images that a classifier was surely wrong about."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from byol_jax.data import datasets
from byol_jax.distributed import multihost
from byol_jax.visualize import gallery, thumbnails
from byol_jax.workdir import console, files

SIZE = 96  # px, of the longer side


def write(workdir: pathlib.Path, data: datasets.Dataset, result: Mapping[str, Any]) -> None:
    """Writes ``gallery/mistakes.json``; drawing pictures never stops an evaluation.

    Args:
      workdir: of the evaluation.
      data: the evaluated images.
      result: what ``result.json`` says.
    """
    if not multihost.is_writer():
        return
    test = result.get("per_seed", [result])[0].get("test", {})
    try:
        rows = [
            row | {"image": thumbnails.jpeg(gallery.load(data, row["index"], SIZE))}
            for row in test.get("surely_wrong", ())
        ]
        folder = workdir / "gallery"
        files.make_folder(folder)
        files.write_text(folder / "mistakes.json", json.dumps({"size": SIZE, "images": rows}))
    except Exception as error:
        console.say(f"Warning: no pictures of mistakes were written: {error}")
