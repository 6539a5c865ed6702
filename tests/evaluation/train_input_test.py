"""Views of labeled images: cut to at least a fraction of the area, mirrored every other time."""

import types

import jax
import ml_collections
import numpy as np
import pytest

from byol_jax.config import UsageError
from byol_jax.evaluation import train_input
from tests.support.samples import random_images

N, S = 400, 8


def views(batch, *, min_area=1.0):
    encoder = types.SimpleNamespace(image_size=S)
    batch |= {"labels": np.zeros(N, np.int32), "place": np.arange(N)}
    return np.asarray(train_input.make_view(encoder, min_area)(jax.random.key(1), batch))


def test_every_other_image_is_mirrored_and_nothing_else_happens_to_it():
    pixels = np.rint(255 * random_images(N, S, S)).astype(np.uint8)
    images = pixels.astype(np.float32) / 255
    found = views({"view1": pixels})
    is_same = np.abs(found - images).max(axis=(1, 2, 3)) < 1e-6
    is_mirrored = np.abs(found - images[:, :, ::-1]).max(axis=(1, 2, 3)) < 1e-6
    assert (is_same ^ is_mirrored).all()
    assert abs(is_mirrored.mean() - 0.5) < 5 * np.sqrt(0.25 / N)


def test_images_are_cut_to_at_least_the_given_share():
    """Of a ramp from left to right the shown part can be read off its ends."""
    ramp = np.broadcast_to(np.linspace(0, 255, 64), (N, 64, 64))[..., None].repeat(3, axis=3)
    wide, narrow = (
        np.ptp(views({"images": np.rint(ramp).astype(np.uint8)}, min_area=fraction), axis=(1, 2, 3))
        for fraction in (0.9, 0.08)
    )
    assert wide.min() > 0.7 and narrow.min() < 0.4
    assert 0.57 < narrow.mean() < 0.69  # areas are drawn evenly up to the whole


def test_whole_steps_are_taken():
    assert train_input.total_steps(1.5, 10, 4) == 3
    assert train_input.total_steps(0.01, 10, 4) == 1


def encoder_of(min_area=None):
    crop = {"augment": {"crop": {"min_area": min_area}}}
    config = ml_collections.ConfigDict(crop) if min_area else None
    return types.SimpleNamespace(image_size=S, config=config)


def area(value, encoder):
    return train_input.min_area(value, encoder)


def test_the_least_area_is_the_configs_or_the_runs_or_the_papers():
    assert area(0.5, encoder_of(0.3)) == 0.5 and area(1.0, encoder_of()) == 1.0
    assert area(None, encoder_of(0.3)) == 0.3 and area(None, encoder_of()) == 0.08
    for wrong in (0.0, 1.1):
        with pytest.raises(UsageError, match="crop.min_area must be above 0, at most 1"):
            area(wrong, encoder_of())
