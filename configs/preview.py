"""Shows what the augmentations do to your images, before anything is trained.

    python -m byol_jax.main_loop --config=configs/preview.py:PRESET [--config.data.dir=...]

PRESET is one of configs/byol.py, whose keys can be overridden here too. Writes preview.html and
preview.png to the workdir: images with both views of each, and every augmentation alone at its
weakest, middle and strongest. About ten seconds on a CPU.
"""

import pathlib

import ml_collections

from byol_jax import config as config_lib

BYOL = pathlib.Path(__file__).with_name("byol.py")  # beside it, wherever that is


def get_config(preset: str = "patterns") -> ml_collections.ConfigDict:
    """The config of a preset of configs/byol.py, to be looked at."""
    config = config_lib.load_file(BYOL).get_config(preset)
    config.task = "preview"
    config.preview = ml_collections.ConfigDict()
    config.preview.num_images = 8  # that are shown with both views
    return config
