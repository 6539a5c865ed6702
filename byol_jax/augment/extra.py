"""Augmentations of users' own, which ``augment.view1.extra`` and ``augment.view2.extra`` name.

They come last: after crop, flip, color, blur and solarize, before images are normalized.

Shapes: b images, S their size.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from byol_jax import config as config_lib

UsageError = config_lib.UsageError

# (key, image [S, S, 3] in [0, 1]) -> an image of the same shape.
Function = Callable[[jax.Array, jax.Array], jax.Array]

AUGMENTATIONS: dict[str, Function] = {}


class Extra(NamedTuple):
    """An augmentation by its name."""

    name: str
    apply: Function


def find(names: Sequence[str], *, view: str) -> list[Extra]:
    """The augmentations of these names, in their order.

    Args:
      names: as ``augment.<view>.extra`` gives them.
      view: for the error.

    Raises:
      UsageError: one is not registered.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise UsageError(
                f"Unknown augment.{view}.extra: '{name}'."
                + (config_lib.suggest(name, AUGMENTATIONS) if AUGMENTATIONS else "")
                + f' It has to be registered, by @byol_jax.register_augmentation("{name}"), in a '
                "module that --config.plugins names."
            )
    return [Extra(name, AUGMENTATIONS[name]) for name in names]


def apply(extra: Extra, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Augments each of images [b, S, S, 3] with its own of keys [b], and clips to [0, 1].

    Raises:
      UsageError: what comes out is no image of the same shape.
    """
    made = jax.vmap(extra.apply)(keys, images)
    if getattr(made, "shape", None) != images.shape:
        raise UsageError(
            f"The augmentation '{extra.name}' makes {getattr(made, 'shape', type(made))} of images "
            f"{images.shape}: give an image of the same shape."
        )
    return jnp.clip(made.astype(images.dtype), 0, 1)
