"""Shows what the augmentations do to your images, before anything is trained.

    python -m byol_jax.main_loop --config=configs/preview.py:PRESET [--config.data.dir=...]

PRESET is one of configs/byol.py, whose keys can be overridden here too. Writes preview.html and
preview.png to the workdir: images with both views of each, and every augmentation alone at its
weakest, middle and strongest. About ten seconds on a CPU.
"""

import ml_collections

from configs import byol


def get_config(preset: str = "patterns") -> ml_collections.ConfigDict:
    """The config of a preset of configs/byol.py, to be looked at."""
    config = byol.get_config(preset)
    config.task = "preview"
    config.preview = ml_collections.ConfigDict()
    config.preview.num_images = 8  # that are shown with both views
    return config
