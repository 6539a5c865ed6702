"""Weights of the Hugging Face Hub, by address: fetched once, kept in its cache, one revision.

``hf://OWNER/REPO`` and ``hf://OWNER/REPO@REVISION`` are repositories, ``timm://NAME`` is
``hf://timm/NAME``. In a repository that configs/export.py has written, the folder `OURS` holds the
export; of any other, ``model.safetensors`` is read, and what ``config.json`` says about images.
"""

import json
import pathlib
import re
from typing import Any, NamedTuple

from byol_jax import config as config_lib
from byol_jax.checkpoints import export_contents
from byol_jax.workdir import files

UsageError = config_lib.UsageError

OURS = "byol_jax"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
_ADDRESS = re.compile(r"(hf|timm)://([^@]+)(?:@(.+))?")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class Fetched(NamedTuple):
    """What was fetched.

    Attributes:
      path: of the export, or of the file of weights.
      address: with the revision.
      facts: ``pretrained_cfg`` of ``config.json``, or nothing.
    """

    path: pathlib.Path
    address: str
    facts: dict[str, Any]


def is_address(path: str) -> bool:
    """Whether a path names a repository of the Hub."""
    return path.startswith(("hf://", "timm://"))


def require_name(name: str, *, flag: str) -> None:
    """Raises unless a name is OWNER/REPO."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{flag}={name} is no repository: give OWNER/REPO, such as me/encoder.")


def fetch(address: str) -> Fetched:
    """Fetches weights, unless the cache has them.

    Raises:
      UsageError: no such repository or revision, no network, no rights, or nothing to read in it.
    """
    scheme, name, revision = _ADDRESS.fullmatch(address).groups()
    name = f"timm/{name}" if scheme == "timm" else name
    require_name(name, flag="--config.checkpoint")
    folder = _download(address, name, revision)
    pinned = f"hf://{name}@{folder.name}"
    if (folder / OURS / export_contents.MODEL).is_file():
        return Fetched(folder / OURS, pinned, {})
    if not (folder / WEIGHTS).is_file():
        raise UsageError(f"{address} has no {WEIGHTS}: give a repository of a ResNet with one.")
    return Fetched(folder / WEIGHTS, pinned, _read_facts(folder / CONFIG))


def _download(address: str, name: str, revision: str | None) -> pathlib.Path:
    """The folder of a snapshot, which is named after its revision."""
    try:
        import huggingface_hub
    except ImportError:
        raise UsageError(f"{address} needs huggingface_hub: pip install '.[hub]'.") from None
    wanted = [WEIGHTS, CONFIG, f"{OURS}/{export_contents.MODEL}", f"{OURS}/{WEIGHTS}"]
    try:
        path = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted)
    except Exception as error:  # of a library with dozens of kinds, and of those below it
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"Cannot fetch {address} ({type(error).__name__}: {reason}). Check the name and the "
            "network, log in by 'hf auth login' if it is private, or give a file that you have."
        ) from None
    return pathlib.Path(path)


def _read_facts(path: pathlib.Path) -> dict[str, Any]:
    """What timm's config says about images; nothing if there is none that can be read."""
    try:
        facts = json.loads(files.read_bytes(path)).get("pretrained_cfg")
    except (OSError, ValueError, AttributeError):
        return {}
    return facts if isinstance(facts, dict) else {}


def image_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Fields of a card that timm's config knows: image size, mean and std."""
    found: dict[str, Any] = {}
    size = facts.get("input_size")
    if isinstance(size, list) and len(size) == 3 and all(type(side) is int for side in size):
        found["image_size"] = size[1]
    for name in ("mean", "std"):
        values = facts.get(name)
        are_numbers = isinstance(values, list) and all(isinstance(x, int | float) for x in values)
        if are_numbers and len(values) == 3:
            found[name] = tuple(map(float, values))
    return found
