"""Frozen encoders of finished or interrupted runs, ready to be measured and used.

Shapes: b images of a batch, S the encoder's image size, F embedding size.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import ml_collections
import numpy as np

from byol_jax import build, checkpoint, parallel, pretrain, workdir
from byol_jax import config as config_lib

UsageError = config_lib.UsageError


class Encoder(NamedTuple):
    """A trained encoder in inference mode; nothing that is done with it changes it.

    Attributes:
      encode: uint8 images [b, H, W, 3] -> float32 [b, F]; other sizes than S are resized to it.
      image_size: S, in pixels.
      embedding_size: F.
      identity: path, step, encoder, number of parameters, and the sha256 of `fingerprint`.
      config: of the run that trained it.
      data_card: of the same run.
      params: of the encoder alone, without heads.
      state: its running batch-norm statistics.
    """

    encode: Callable[[np.ndarray], np.ndarray]
    image_size: int
    embedding_size: int
    identity: dict[str, Any]
    config: Any
    data_card: workdir.DataCard
    params: Any
    state: Any


def load_encoder(path: str) -> Encoder:
    """Loads the online encoder of a pretraining run.

    Args:
      path: a workdir (its newest checkpoint) or one of its ``checkpoints/<step>``, which need the
        workdir's ``config.json`` and ``data.json`` next to ``checkpoints``.

    Raises:
      UsageError: no such path, no checkpoint, one that is half-written or does not fit its config,
        or ``config.json`` or ``data.json`` are missing or unreadable.
    """
    folder = checkpoint.find(path)
    run = folder.absolute().parent.parent
    config, card = _read_config(run / "config.json"), _read_card(run)
    forward = _make_forward(run, config, card)
    params, state = _load(folder, forward, config.data.image_size)
    identity = {
        "path": str(folder),
        "step": int(folder.name),
        "encoder": config.model.encoder,
        "parameters": int(hk.data_structures.tree_size(params)),
        "sha256": fingerprint(params, state),
    }
    return make_encoder(config, card, params, state, identity)


def make_encoder(
    config: Any, card: workdir.DataCard, params: Any, state: Any, identity: dict[str, Any]
) -> Encoder:
    """An encoder of parameters and batch-norm statistics; works on all devices of the process."""
    size = config.data.image_size
    encode = pretrain.make_encode(build.make_forward(config, card, axis=None), image_size=size)
    shape = jax.eval_shape(encode, params, state, np.zeros((1, size, size, 3), np.uint8))
    on_devices = parallel.replicate((params, state))

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(encode(*on_devices, parallel.spread(images)), np.float32)

    return Encoder(run, size, shape.shape[-1], identity, config, card, params, state)


def make_forward(
    encoder: Encoder, *, axis: str | None, bn_decay_rate: float
) -> hk.TransformedWithState:
    """The network of an encoder, to be trained further.

    Args:
      encoder: whose network it is.
      axis: that batch statistics are averaged over; None: local ones.
      bn_decay_rate: of the running statistics.
    """
    config = ml_collections.ConfigDict(encoder.config)
    config.model.bn_decay_rate = bn_decay_rate
    return build.make_forward(config, encoder.data_card, axis=axis)


def fingerprint(params: Any, state: Any) -> str:
    """The sha256 over names, types, shapes and bytes of all arrays, in the order of their names."""
    digest = hashlib.sha256()
    for tree in (params, state):
        for path, leaf in sorted(_named_leaves(tree)):
            digest.update(f"{path} {leaf.dtype} {leaf.shape}\n".encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _named_leaves(tree: Any) -> list[tuple[str, np.ndarray]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]


def _read_card(run: pathlib.Path) -> workdir.DataCard:
    card = workdir.read_data_card(run)
    if card is None:
        raise UsageError(
            f"{run / 'data.json'} is missing, which says how the images of the checkpoint were "
            "normalised: copy it from the run's workdir, next to config.json."
        )
    return card


def _make_forward(
    run: pathlib.Path, config: Any, card: workdir.DataCard
) -> hk.TransformedWithState:
    try:
        return build.make_forward(config, card, axis=None)
    except (AttributeError, KeyError) as error:
        text = " ".join(str(error.args[0]).split())
        raise UsageError(f"{run / 'config.json'} lacks a key of this version: {text}") from None


def _read_config(path: pathlib.Path) -> Any:
    try:
        config = ml_collections.ConfigDict(json.loads(path.read_text()))
        task = config.get("task")
    except FileNotFoundError:
        raise UsageError(
            f"{path} is missing, which says what network the checkpoint is of: copy it from the "
            "run's workdir, next to its folder 'checkpoints'."
        ) from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"Cannot read {path}: {error}. Copy it from the run's workdir.") from None
    if task != "pretrain":
        raise UsageError(f"{path} is of the task '{task}': give the workdir of a pretraining run.")
    return config


def _load(
    folder: pathlib.Path, forward: hk.TransformedWithState, size: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and state of the encoder alone; the heads are compared and left."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)

    def shapes(part: str) -> tuple[Any, Any]:
        def init(key: jax.Array, images: jax.Array) -> tuple[Any, Any]:
            return forward.init(key, images, is_training=True, part=part)

        return jax.eval_shape(init, jax.random.key(0), images)

    online = checkpoint.load_online(folder, shapes("online")[0])
    encoder = shapes("encoder")
    params, state = (
        {module: whole[module] for module in kept}
        for whole, kept in zip(online, encoder, strict=True)
    )
    return params, state
