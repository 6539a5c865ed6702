"""Augmentations of users' own: where they come, what they get, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.augment import extra, image_ops, two_views
from byol_jax.config import UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
STILL = image_ops.View(*[0.0] * len(image_ops.View._fields))._replace(extra=())  # changes nothing
DRAWN = STILL._replace(flip_probability=0.5, grayscale_probability=0.5)


@pytest.fixture(autouse=True)
def table(monkeypatch):
    table = {
        "noise": lambda key, image: image + 0.1 * jax.random.normal(key, image.shape),
        "invert": lambda key, image: 1 - image,
        "brighten": lambda key, image: image + 0.5,
        "crop": lambda key, image: image[1:],
        "pair": lambda key, image: (image, image),
    }
    monkeypatch.setattr(extra, "AUGMENTATIONS", table)


def make(view, batch=None, *, batch_size=None, key=0, **options):
    """The view of the images, which the host has cut."""
    view_of = two_views.make_view(
        view,
        name="view1",
        image_size=16,
        area_range=(1.0, 1.0),
        method="cubic",
        batch_size=batch_size,
    )
    batch = {"view1": IMAGES, "labels": np.zeros(8)} if batch is None else batch
    return np.asarray(jax.jit(view_of)(jax.random.key(key), batch))


def test_nothing_else_changes_where_there_is_none():
    np.testing.assert_allclose(make(STILL), (IMAGES / 255).astype(np.float32), atol=1e-6)


def test_they_come_last_in_their_order_and_are_clipped():
    image = (IMAGES / 255).astype(np.float32)
    found = make(STILL._replace(extra=("invert", "brighten")))
    np.testing.assert_allclose(found, np.clip(1.5 - image, 0, 1), atol=1e-6)
    found = make(STILL._replace(extra=("brighten", "invert")))
    np.testing.assert_allclose(found, 1 - np.clip(image + 0.5, 0, 1), atol=1e-6)
    solarized = STILL._replace(solarize_probability=1.0, solarize_threshold=0.5)
    found = make(solarized._replace(extra=("invert",)))
    np.testing.assert_allclose(found, 1 - make(solarized), atol=1e-6)


def test_each_image_and_each_augmentation_has_a_key_of_its_own():
    same = {"view1": np.repeat(IMAGES[:1], 8, axis=0)}
    found = make(STILL._replace(extra=("noise",)), same)
    assert all(np.abs(found[0] - found[i]).max() > 0.05 for i in range(1, 8))
    twice = make(STILL._replace(extra=("noise", "noise")), same)
    steps = twice - found, found - make(STILL, same)
    assert np.abs(np.corrcoef(*(step.ravel() for step in steps))[0, 1]) < 0.2
    np.testing.assert_array_equal(found, make(STILL._replace(extra=["noise"]), same))
    assert (found != make(STILL._replace(extra=("noise",)), same, key=1)).any()


def test_what_happens_to_an_image_does_not_depend_on_the_devices():
    view = DRAWN._replace(extra=("noise",))
    whole = make(view)
    parts = np.array([[1, 3, 5, 7], [0, 2, 4, 6]])
    for part in parts:
        found = make(view, {"view1": IMAGES[part], "place": part}, batch_size=8)
        np.testing.assert_allclose(found, whole[part], atol=1e-6)


def test_all_other_augmentations_draw_what_they_drew_before():
    plain, more = (make(DRAWN._replace(extra=e)) for e in ((), ("invert",)))
    np.testing.assert_allclose(more, 1 - plain, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nose", "Unknown augment.view1.extra: 'nose'. Did you mean 'noise'.*register_augment"),
        ("crop", r"'crop' makes \(8, 15, 16, 3\) of images \(8, 16, 16, 3\)"),
        ("pair", "'pair' makes .*tuple.*: give an image of the same shape"),
    ],
)
def test_mistakes_are_named(name, message):
    with pytest.raises(UsageError, match=message):
        make(STILL._replace(extra=(name,)))


def test_without_any_that_is_registered_the_message_says_how(monkeypatch):
    monkeypatch.setattr(extra, "AUGMENTATIONS", {})
    with pytest.raises(UsageError, match="'noise'. It has to be registered, by @byol_jax.reg"):
        extra.find(("noise",), view="view1")


def test_integers_become_floats():
    assert (
        extra.apply(
            extra.Extra("ones", lambda key, image: jnp.ones(image.shape, jnp.int32)),
            jax.random.split(jax.random.key(0), 8),
            jnp.zeros((8, 4, 4, 3)),
        ).dtype
        == jnp.float32
    )
