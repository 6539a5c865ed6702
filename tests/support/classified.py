"""A classifier of red and blue pictures, on an encoder of random weights."""

import functools

import jax
import numpy as np

import byol_jax
from byol_jax.checkpoints import classifiers, encoders
from byol_jax.models import encoder_spec
from tests.support.samples import encode

CLASSES = ("=red", "blue")  # the first one is a formula for a spreadsheet


def picture(number, side=32):
    """Of the class number % 2: noise with more red, or with more blue."""
    noise = np.random.default_rng(number).integers(0, 120, (side, side, 3))
    noise[:, :, 2 * (number % 2)] += 100
    return noise.astype(np.uint8)


def data(count, first=0):
    """So many pictures with labels."""
    images = np.stack([picture(first + number) for number in range(count)])
    return byol_jax.ArrayDataset(images, np.arange(count) % 2, class_names=CLASSES)


def write_photos(folder, count=4, side=32):
    """Pictures as files, in a folder for each day."""
    for number in range(count):
        path = folder / f"day{number // 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(1000 + number, side)))
    return folder


def make_encoder(**spec):
    """Of random weights."""
    card = encoder_spec.EncoderSpec("micro_resnet", stem="cifar", image_size=32, **spec)
    forward = encoder_spec.make_forward(card)
    images = np.zeros((1, 32, 32, 3), np.float32)
    init = jax.jit(functools.partial(forward.init, is_training=False, part="encoder"))
    params, state = jax.device_get(init(jax.random.key(0), images))
    identity = {"path": "nowhere", "step": 0, "encoder": card.encoder, "parameters": 1}
    identity |= {"trained_on": None, "sha256": encoders.fingerprint(params, state)}
    return encoders.make_encoder(None, card, params, state, identity)


def evaluate(workdir, encoder):
    """Keeps a classifier in the workdir, and gives the result."""
    short = {"total_epochs": 10, "batch_size": 16, "bootstrap_resamples": 10}
    overrides = short | {"base_learning_rates": (0.2, 0.1), "data.validation_share": 0.3}
    train, test = data(60), data(20, first=60)
    return byol_jax.evaluate.linear(encoder, train, test, overrides=overrides, workdir=workdir)


def write_classifier(folder, encoder_folder, classes=("cat", "=dog", "café"), temperature=2.0):
    """A classifier of drawn weights on an encoder that lies in an export, as evaluations keep it.

    Args:
      folder: that appears, as that of a result.
      encoder_folder: of the export, which moves there.
      classes: their names.
      temperature: of the calibration.
    """
    encoder = encoders.load_encoder(str(encoder_folder))
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((encoder.embedding_size, len(classes))) / 10
    card = {
        "format": classifiers.FORMAT,
        "classes": list(classes),
        "encoder": encoder.identity,
        "calibration": {"temperature": temperature},
        "crop_fraction": 1.0,
        "is_reduced": False,
    }
    folder.mkdir()
    encoder_folder.rename(folder / classifiers.FOLDER)
    biases = rng.standard_normal(len(classes))
    classifiers.save_linear(folder / classifiers.FOLDER, weights, biases, card)
    return folder
