"""Which augmentations a pair of views has: each can be left out, and costs nothing then."""

import functools

import jax
import numpy as np
import pytest

from byol_jax.augment import image_ops, two_views

OFF = {name: 0.0 for name in image_ops.View._fields if name.endswith("_probability")}
NONE = image_ops.View(**OFF)
IMAGES = np.random.RandomState(0).randint(0, 256, (4, 16, 16, 3)).astype(np.uint8)


def make(view=NONE, area_range=None, image_size=16):
    return two_views.make_views(
        view, view, image_size=image_size, area_range=area_range, method="cubic"
    )


def test_without_any_augmentation_both_views_are_the_image():
    views = make()(jax.random.key(0), {"images": IMAGES})
    for view in views:
        np.testing.assert_allclose(view, IMAGES / 255, atol=1e-7)


@functools.cache
def operations(view, area_range=None):
    """How many operations the views of a batch take, as written for the compiler."""
    views = jax.jit(lambda batch: make(view, area_range)(jax.random.key(0), batch))
    return views.lower({"images": IMAGES}).cost_analysis()["flops"]


CROP = (0.1, 1.0)
ALL = image_ops.View()._replace(**dict.fromkeys(OFF, 0.5))


@pytest.mark.parametrize("probability", OFF)
def test_an_augmentation_of_probability_0_costs_nothing(probability):
    assert operations(NONE) < operations(NONE._replace(**{probability: 0.5}))
    assert operations(ALL._replace(**{probability: 0.0}), CROP) < operations(ALL, CROP)


def test_a_crop_that_is_off_costs_nothing():
    assert operations(NONE) < operations(NONE, CROP)
    assert operations(ALL) < operations(ALL, CROP)
