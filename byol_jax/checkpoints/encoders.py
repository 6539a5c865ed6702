"""Frozen encoders, of runs and of other people's files, ready to be measured and used.

Shapes: b images of a batch, S the encoder's image size, F embedding size.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import numpy as np

from byol_jax.checkpoints import checksums, sources
from byol_jax.data import agreement, image_arrays
from byol_jax.distributed import pmap
from byol_jax.models import encoder_spec, inference
from byol_jax.workdir import console


class Encoder(NamedTuple):
    """A trained encoder in inference mode; nothing that is done with it changes it.

    Attributes:
      encode: images [b, H, W, 3], uint8 or float in [0, 1] -> float32 [b, F]; other sizes than
        S are resized to it.
      image_size: S, in pixels.
      embedding_size: F.
      identity: path, step (None if unknown), encoder, number of parameters, what it was trained
        on (None if unknown), and the sha256 of `fingerprint`.
      config: of the run that trained it; None if it comes from a file without one.
      card: how the network is built and what it is fed.
      params: of the encoder alone, without heads.
      state: its running batch-norm statistics.
      network: "online" or "target", of the run.
      licence: of the weights, as far as it is known.
      notes: what was assumed of a file that does not say it.
      maps: images [b, H, W, 3] as for ``encode``, of any size, which they keep -> float32
        [b, h, w, c] of each block group.
    """

    encode: Callable[[np.ndarray], np.ndarray]
    image_size: int
    embedding_size: int
    identity: dict[str, Any]
    config: Any
    card: encoder_spec.EncoderSpec
    params: Any
    state: Any
    network: str = "online"
    licence: str = ""
    notes: tuple[str, ...] = ()
    maps: Callable[[np.ndarray], tuple[np.ndarray, ...]] | None = None

    def feature_maps(self, images: Any, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """The maps of every block group, as segmentation and detection use them.

        Args:
          images: as for `embed`, but of any size, which they keep.
          batch_size: images at a time.

        Returns:
          float32 [N, h, w, c] of each group, from the finest to the coarsest. The mean over the
          cells of the last one is the embedding, if images are of the encoder's size.

        Raises:
          ValueError: other images; says how to convert them.

        >>> import numpy as np
        >>> maps = encoder.feature_maps(np.zeros((3, 32, 32, 3), np.uint8))
        >>> maps[-1].shape[-1] == encoder.embedding_size
        True
        """
        images = image_arrays.require_images(images)
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}.")
        size, count = pmap.round_up(min(batch_size, len(images))), len(images)
        found = []
        for start in range(0, count, size):
            part = _prepare(images[start : start + size])
            padding = [(0, size - len(part)), (0, 0), (0, 0), (0, 0)]
            found.append([x[: len(part)] for x in self.maps(np.pad(part, padding))])
        return tuple(np.concatenate(groups) for groups in zip(*found, strict=True))

    def embed(self, images: Any, batch_size: int = 256, progress: bool = False) -> np.ndarray:
        """Embeds images, the same numbers as configs/embed.py gives for them.

        Args:
          images: [N, H, W, 3] RGB, uint8, or float in [0, 1] (which is uint8 / 255): of NumPy, a
            memmap, or of JAX. If H x W is not S x S they are resized to it, bicubic, without
            keeping their proportions, as evaluations do.
          batch_size: images at a time.
          progress: whether to show a bar on standard error.

        Returns:
          float32 [N, F], before any projector; not normalized.

        Raises:
          ValueError: other images; says how to convert them.

        >>> import numpy as np
        >>> images = np.zeros((3, 32, 32, 3), np.uint8)
        >>> encoder.embed(images).shape == (3, encoder.embedding_size)
        True
        """
        images = image_arrays.require_images(images)
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {batch_size}.")
        size, count = pmap.round_up(min(batch_size, len(images))), len(images)
        found = np.empty((count, self.embedding_size), np.float32)
        with console.progress_bar(total=count, unit="img", title="embed", is_shown=progress) as bar:
            for start in range(0, count, size):
                part = _prepare(images[start : start + size])
                padding = [(0, size - len(part)), (0, 0), (0, 0), (0, 0)]
                found[start : start + size] = self.encode(np.pad(part, padding))[: len(part)]
                bar.update(len(part))
        return found


def _prepare(images: np.ndarray) -> np.ndarray:
    """A batch as `Encoder.encode` takes it."""
    if images.dtype == np.uint8:
        return images
    image_arrays.require_unit_range(images)
    return images.astype(np.float32)


def load_encoder(path: str, *, network: str = "online") -> Encoder:
    """Loads an encoder from whatever `sources.open_weights` understands.

    Args:
      path: a run's workdir (its newest checkpoint) or one of its ``checkpoints/<step>``, which has
        copies of the workdir's ``config.json`` and ``data.json`` if these are lost; or a file.
      network: "online" or "target".

    Raises:
      UsageError: no such path, nothing at it that holds an encoder, or something half-written.
    """
    found, loaded = sources.open_and_load(path, network)
    params, state = map(encoder_spec.encoder_modules, loaded)
    identity = {
        "path": found.path,
        "step": found.step,
        "encoder": found.card.encoder,
        "parameters": int(hk.data_structures.tree_size(params)),
        "trained_on": _trained_on(found.config),
        "sha256": fingerprint(params, state),
    }
    agreement.require_same(
        {f"sha256 of the encoder of {path}": identity["sha256"]}, what="comparing encoders"
    )
    encoder = make_encoder(found.config, found.card, params, state, identity)
    return encoder._replace(network=network, licence=found.licence, notes=found.notes)


def _trained_on(config: Any) -> str | None:
    if config is None:
        return None
    data = config.data
    return f"{data.train_split} of {data.name}" + (f" in {data.dir}" if data.dir else "")


def make_encoder(
    config: Any, card: encoder_spec.EncoderSpec, params: Any, state: Any, identity: dict[str, Any]
) -> Encoder:
    """An encoder of parameters and batch-norm statistics; works on all devices of the process."""
    size = card.image_size
    forward = encoder_spec.make_forward(card)
    encode, maps = inference.make_encode(forward, image_size=size), inference.make_maps(forward)
    shape = jax.eval_shape(encode, params, state, np.zeros((1, size, size, 3), np.uint8))
    on_devices = pmap.replicate_locally((params, state))

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(encode(*on_devices, pmap.spread(images)), np.float32)

    def run_maps(images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(x, np.float32) for x in maps(*on_devices, pmap.spread(images)))

    embedding_size = shape.shape[-1]
    return Encoder(run, size, embedding_size, identity, config, card, params, state, maps=run_maps)


def pooled(encoder: Encoder, group: int) -> Encoder:
    """An encoder whose embedding is the mean of the map of a block group, in place of the last."""
    size = encoder.image_size
    resize = jax.jit(functools.partial(inference.resize, size=size))

    def encode(images: np.ndarray) -> np.ndarray:
        return encoder.maps(np.asarray(resize(images)))[group].mean(axis=(1, 2))

    channels = encoder.maps(np.zeros((1, size, size, 3), np.uint8))[group].shape[-1]
    return encoder._replace(encode=encode, embedding_size=channels)


def make_forward(
    encoder: Encoder, *, axis: str | None, bn_decay_rate: float, output_stride: int | None = None
) -> hk.TransformedWithState:
    """The network of an encoder, to be trained further.

    Args:
      encoder: whose network it is.
      axis: that batch statistics are averaged over; None: local ones.
      bn_decay_rate: of the running statistics.
      output_stride: of the last map; None: as the encoder is.
    """
    card = encoder.card._replace(bn_decay_rate=bn_decay_rate)
    return encoder_spec.make_forward(card, axis=axis, output_stride=output_stride)


def fingerprint(params: Any, state: Any) -> str:
    """What tells one encoder from another: `checksums.digest_arrays` of all it is made of."""
    return checksums.digest_arrays(params, state)
