"""The two views of a step: cut on the device, or on the host before, then flipped and recolored.

Shapes: b images of a device, B of the global batch, S image size.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from byol_jax.augment import extra, image_ops, random_resized_crop

Batch = dict[str, jax.Array]
Views = tuple[jax.Array, jax.Array]


def make_views(
    view1: image_ops.View,
    view2: image_ops.View,
    *,
    image_size: int,
    area_range: tuple[float, float],
    method: str,
    batch_size: int | None = None,
) -> Callable[[jax.Array, Batch], Views]:
    """Cuts, flips and recolors two views of uint8 images; `make_view` makes each of them."""
    options = {"image_size": image_size, "area_range": area_range, "method": method}
    make_first = make_view(view1, name="view1", batch_size=batch_size, **options)
    make_second = make_view(view2, name="view2", batch_size=batch_size, **options)

    def views(key: jax.Array, batch: Batch) -> Views:
        keys = jax.random.split(key)
        return make_first(keys[0], batch), make_second(keys[1], batch)

    return views


def make_view(
    view: image_ops.View,
    *,
    name: str,
    image_size: int,
    area_range: tuple[float, float],
    method: str,
    batch_size: int | None = None,
) -> Callable[[jax.Array, Batch], jax.Array]:
    """Builds view(key, batch) -> float [b, S, S, 3] in [0, 1], cut, flipped and recolored.

    It is cut out of ``batch['images']`` [b, H, W, 3], unless the batch has it [b, S, S, 3] under
    its name, since the host has cut it. Of a batch of B images in parts, ``place`` [b] says which
    of them are here: random values are drawn for all of them and those in place are taken, so that
    what happens to an image does not depend on the devices.

    Args:
      view: strengths, and names of augmentations that come after all others.
      name: of the view in the batch.
      image_size: S.
      area_range: fraction of an image that is cut out, least and most.
      method: of resizing.
      batch_size: B; None if every batch is whole.

    Raises:
      UsageError: an augmentation of the view is not registered.
    """

    def in_place(drawn: Any, batch: Batch) -> Any:
        return jax.tree.map(lambda x: x[batch["place"]], drawn) if batch_size else drawn

    def cut(key: jax.Array, batch: Batch) -> jax.Array:
        if name in batch:
            return batch[name].astype(jnp.float32) / 255
        images = batch["images"]
        count, size = batch_size or images.shape[0], images.shape[1:3]
        windows = random_resized_crop.draw_windows(key, count, size, area_range=area_range)
        return random_resized_crop.resize_windows(
            images, in_place(windows, batch), image_size, method=method
        )

    extras = extra.find(view.extra, view=name)

    def make(key: jax.Array, batch: Batch) -> jax.Array:
        crop_key, augment_key = jax.random.split(key)
        images = cut(crop_key, batch)
        count = batch_size or images.shape[0]
        draws = image_ops.draw(augment_key, count, view)
        images = image_ops.apply(images, in_place(draws, batch), view)
        for number, one in enumerate(extras):
            # A key for each image of the whole batch, as for all that is drawn.
            keys = jax.random.split(jax.random.fold_in(key, number), count)
            images = extra.apply(one, in_place(keys, batch), images)
        return images

    return make
