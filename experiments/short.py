"""The run that the studies of this folder begin with: a short one on the embedded images.

    python -m byol_jax.main_loop --config=experiments/short.py

The default job with 300 steps in place of 1,600, and probes of 2,000 images before and after
training alone: 45 seconds of one CPU core.
"""

import ml_collections

from byol_jax.cli import config_files


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = config_files.load("configs/byol.py:patterns")
    config.total_steps = 300
    config.optimizer.warmup_steps = 30
    config.log_every_steps = 100
    config.probe.every_steps = 10_000
    config.probe.max_images = 2000
    config.gallery.max_images = 0
    return config
