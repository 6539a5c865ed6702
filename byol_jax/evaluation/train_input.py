"""Batches and views of labeled images for evaluations that train: random crop and flip.

Shapes: b images of a batch, S image size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from byol_jax import config as config_lib
from byol_jax.augment import image_ops, two_views
from byol_jax.checkpoints import encoders
from byol_jax.data import datasets, train_loader

_FLIP = image_ops.View(
    flip_probability=0.5,
    jitter_probability=0.0,
    grayscale_probability=0.0,
    blur_probability=0.0,
    solarize_probability=0.0,
)


@dataclasses.dataclass(frozen=True)
class TrainCrop:
    """Crops to learn from."""

    min_area: float | None  # None: as in the encoder's run


def total_steps(epochs: float, count: int, batch_size: int) -> int:
    """Whole batches in so many epochs of so many images, rounded down as in pretraining."""
    return max(1, int(epochs * count // batch_size))


def min_area(area: float | None, encoder: encoders.Encoder) -> float:
    """Smallest area of a crop, as a fraction: ``crop.min_area`` if set, else as in the run."""
    if area is None:
        usual = train_loader.Crop(encoder.image_size).area_range[0]
        area = encoder.config.augment.crop.min_area if encoder.config else usual
    if not 0 < area <= 1:
        raise config_lib.UsageError(
            f"--config.crop.min_area must be above 0, at most 1, not {area}."
        )
    return area


def make_view(encoder: encoders.Encoder, min_area: float) -> Callable[[jax.Array, Any], jax.Array]:
    """Builds view(key, batch) -> float [b, S, S, 3] in [0, 1], cut and flipped at random.

    What happens to an image does not depend on how many devices share the batch.

    Args:
      encoder: whose image size is S.
      min_area: fraction of the image's area that a crop has at least.
    """

    def view(key: jax.Array, batch: Any) -> jax.Array:
        make = two_views.make_view(
            _FLIP,
            name="view1",
            image_size=encoder.image_size,
            area_range=(min_area, 1.0),
            method="cubic",
            batch_size=len(batch["labels"]) * jax.device_count(),
        )
        return make(key, batch)

    return view


def make_batches(
    data: datasets.Dataset,
    encoder: encoders.Encoder,
    *,
    batch_size: int,
    seed: int,
    min_area: float,
    max_bad: int,
) -> train_loader.TrainBatches:
    """Endless shuffled batches of this process for `make_view`.

    Args:
      data: usable labeled images.
      encoder: whose image size is that of crops of encoded images.
      batch_size: of all processes together.
      seed: of the order and of crops on the host.
      min_area: as in `make_view`.
      max_bad: so many of the images may be bad.
    """
    return train_loader.TrainBatches(
        data,
        batch_size=batch_size // jax.process_count(),
        seed=seed,
        crop=train_loader.Crop(encoder.image_size, (min_area, 1.0), views=1),
        max_bad=max_bad,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
