"""Makes sure that the processes of one run do the same: configs, versions, code, data."""

import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.data import datasets, image_decoding
from byol_jax.distributed import multihost
from byol_jax.workdir import run_folder

UsageError = config_lib.UsageError


# What each host may set for itself: where its copy of the data is, and how it reads it.
HOST_KEYS = ("data.dir", "data.threads", "data.workers")


# What each process would write into the same files.
LONE_TASKS = (
    "embed",
    "estimate",
    "export",
    "gallery",
    "predict",
    "preview",
    "convert",
    "pack",
    "study",
)


JAX_OPTIONS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_threefry_partitionable",
)


def require_same_program(config: Any) -> None:
    """Compares configs, versions, code and devices of all processes.

    Raises:
      UsageError: on all of them, naming what differs; or it is a task for one process.
    """
    if jax.process_count() == 1:
        return
    if config.task in LONE_TASKS:
        raise UsageError(
            f"The task '{config.task}' runs in one process, and {jax.process_count()} were "
            "started: start one, without --coordinator and --num_processes."
        )
    values = config_lib.flatten(json.loads(config_lib.to_json(config.to_dict())))
    facts = {f"--config.{key}": values[key] for key in values if key not in HOST_KEYS}
    facts |= {f"version of {name}": version for name, version in run_folder.versions().items()}
    facts |= {name: str(getattr(jax.config, name)) for name in JAX_OPTIONS}
    facts["code of byol_jax"] = _code_digest()
    device = jax.local_devices()[0]
    facts["local devices"] = f"{jax.local_device_count()} x {device.device_kind}"
    require_same(facts, what="comparing configs")


def _code_digest() -> str:
    """Of all modules of this package."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def require_same(facts: dict[str, Any], *, what: str) -> None:
    """Raises on all processes, naming what differs, unless the facts of all are the same.

    Args:
      facts: of this process, by what they are called in a message.
      what: is being compared.
    """
    if jax.process_count() == 1:
        return
    found = multihost.gather_json(facts, what=what)
    for index, other in enumerate(found):
        names = [name for name in found[0] | other if found[0].get(name) != other.get(name)]
        if names:
            listed = "; ".join(
                f"{name} is {other.get(name)} there and {found[0].get(name)} on process 0"
                for name in names[:8]
            )
            more = f"; and {len(names) - 8} more" if len(names) > 8 else ""
            raise UsageError(
                f"Process {index} differs from process 0: {listed}{more}. Start all processes with "
                "the same command, code and data."
            )


def require_same_data(what: str, data: datasets.Dataset) -> None:
    """Raises on all processes unless all of them have found the same images.

    Args:
      what: the images are called.
      data: as this process sees it.
    """
    if jax.process_count() == 1:
        return
    facts = {
        f"number of images of {what}": data.num_images,
        f"number of classes of {what}": data.num_classes,
        f"fingerprint of {what}": digest(data),
    }
    require_same(facts, what=f"comparing {what}")


def digest(data: datasets.Dataset, *, num_images: int = 16) -> str:
    """Differs if the images do: over what is cheap to know of all, and the bytes of some."""
    found = hashlib.sha256(f"{data.fingerprint} {data.num_images}".encode())
    if isinstance(data, datasets.ArrayDataset):
        found.update(str(data.images.shape).encode() + np.ascontiguousarray(data.labels).tobytes())
    for index in np.linspace(0, data.num_images - 1, min(num_images, data.num_images)).astype(int):
        if isinstance(data, datasets.ArrayDataset):
            found.update(np.ascontiguousarray(data.images[index]))
            continue
        try:
            encoded, label = data.records.read(int(index))
            found.update(encoded + str(label).encode())
        except image_decoding.BadImageError as error:
            found.update(str(error).encode())
    return found.hexdigest()[:16]
