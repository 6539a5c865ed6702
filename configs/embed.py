"""Writes the features of a folder of images, or of a set, for use elsewhere.

    python -m byol_jax.main_loop --config=configs/embed.py --config.checkpoint=RUN \
        --config.data.name=folder --config.data.dir=IMAGES

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>. Writes embeddings.npz (or
.parquet, .csv) to the workdir: features, labels (-1 without) and names, those of files relative to
the folder. Images are encoded chunk by chunk, so that a set may be larger than the memory.

The workdir is runs/embed-<run>-step<step> unless --workdir is given; a result of other settings
that is there is kept in its folder earlier/.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = ml_collections.ConfigDict()
    config.task = "embed"
    config.preset = ""
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.layer = ""  # or group_0 ... group_3: the mean over the cells of an inner map
    config.format = "npz"  # npz | parquet | csv
    config.batch_size = 256
    config.data = ml_collections.ConfigDict()
    config.data.name = ""  # as in configs/byol.py; empty: what the run was trained on
    config.data.dir = ""
    config.data.max_bad_share = 0.01  # of the images; left out, with more it is an error
    config.data.split = ""  # empty: all of a folder that is not the run's, else its eval_split
    config.data.decode = "full"  # full | reduced: large JPEGs at 1/2 to 1/8, as in training
    return config
