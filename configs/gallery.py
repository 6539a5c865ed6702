"""Makes the pictures of a run's report from its newest checkpoint, where they are missing.

    python -m byol_jax.main_loop --config=configs/gallery.py --config.checkpoint=RUN

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>. Pretraining makes them by
itself when it has finished; this is for a run that was stopped, or made without. Writes RUN/gallery
and RUN/report.html. About twenty seconds on 2 CPU cores for configs/byol.py's default.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = ml_collections.ConfigDict()
    config.task = "gallery"
    config.preset = ""
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.batch_size = 256
    config.max_images = 5000  # of the evaluation split, on the map
    config.data = ml_collections.ConfigDict()
    config.data.name = ""  # empty: the run's
    config.data.dir = ""  # where the run's data are now, if they have moved
    return config
