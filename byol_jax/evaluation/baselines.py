"""What an encoder has to beat: the same network untrained, and no network at all.

Shapes: b images of a batch, S image size.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, eval_loader
from byol_jax.models import encoder_spec, inference

T = TypeVar("T")

BATCHES = 10  # of training images, which give an untrained network running statistics


def choose(
    encoder: encoders.Encoder, weights: str, train: datasets.Dataset, *, seed: int
) -> encoders.Encoder:
    """The encoder itself, or one of `WEIGHTS` in its place.

    Args:
      encoder: as loaded.
      weights: a key of `WEIGHTS`.
      train: images that a baseline may look at, without labels.
      seed: of fresh weights.

    Raises:
      UsageError: no such key.
    """
    return config_lib.lookup(WEIGHTS, weights, key="weights")(encoder, train, seed)


def by_seed(weights: str, make: Callable[[int], T]) -> Callable[[int], T]:
    """``make(seed)``: anew for each seed if a seed draws the network, else once for all of them.

    Args:
      weights: a key of `WEIGHTS`.
      make: what depends on the network; the result of the seed before is not kept.
    """
    once = functools.lru_cache(maxsize=1)(make)
    return once if weights == "random" else lambda seed: once(0)


def networks(
    encoder: encoders.Encoder, weights: str, train: datasets.Dataset
) -> Callable[[int], encoders.Encoder]:
    """What `choose` gives for a seed, which may draw a network of its own."""
    return by_seed(weights, lambda seed: choose(encoder, weights, train, seed=seed))


def _itself(encoder: encoders.Encoder, train: datasets.Dataset, seed: int) -> encoders.Encoder:
    del train, seed
    return encoder


def _random(encoder: encoders.Encoder, train: datasets.Dataset, seed: int) -> encoders.Encoder:
    """The same network with fresh weights; running batch-norm statistics are those of images."""
    size = encoder.image_size
    forward = encoder_spec.make_forward(encoder.card)
    blank = np.zeros((2, size, size, 3), np.float32)
    params, state = jax.jit(lambda key: forward.init(key, blank, is_training=True, part="encoder"))(
        jax.random.key(seed)
    )
    calibrate = inference.make_calibrate(forward, image_size=size)
    batch_size = min(256, train.num_images)
    batches = eval_loader.eval_batches(
        train.take(BATCHES * batch_size), batch_size=batch_size, image_size=size
    )
    for batch in batches:
        state = calibrate(params, state, batch.images[batch.mask])
    params, state = jax.device_get((params, state))
    identity = encoder.identity | {
        "path": f"random weights of seed {seed}, the network of {encoder.identity['path']}",
        "step": 0,
        "trained_on": "nothing",
        "sha256": encoders.fingerprint(params, state),
    }
    return encoders.make_encoder(encoder.config, encoder.card, params, state, identity)


def _pixels(encoder: encoders.Encoder, train: datasets.Dataset, seed: int) -> encoders.Encoder:
    """Images as they are, at the encoder's size and normalized as for it."""
    del train, seed
    card, size = encoder.card, encoder.image_size

    def encode(images: np.ndarray) -> np.ndarray:
        pixels = np.asarray(resize(images))
        return ((pixels - card.mean) / card.std).reshape(len(images), -1).astype(np.float32)

    resize = jax.jit(lambda images: inference.resize(images, size))
    identity = {
        "path": f"raw pixels, as for {encoder.identity['path']}",
        "step": 0,
        "encoder": "pixels",
        "parameters": 0,
        "trained_on": "nothing",
        "sha256": encoders.fingerprint({}, {}),
    }
    return encoder._replace(
        encode=encode, embedding_size=size * size * 3, identity=identity, params={}, state={}
    )


NETWORKS: dict[str, Callable[[Any, Any, int], encoders.Encoder]] = {
    "checkpoint": _itself,
    "random": _random,
}
WEIGHTS = NETWORKS | {"pixels": _pixels}
