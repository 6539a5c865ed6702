"""Rewrites a folder of images, or a TFDS set, as a smaller TFDS set that is read faster.

    python -m byol_jax.main_loop --config=configs/pack.py --config.data.dir=IMAGES
    python -m byol_jax.main_loop --config=configs/pack.py \
        --config.data.name=imagenet2012 --config.data.dir=SETS

Images whose shorter side is longer than `shorter_side` are shrunk to it and stored as JPEG; a JPEG
that is small enough keeps its bytes. Labels, splits and the order of images stay. Images that
cannot be used are left out and listed in bad_images.txt. An interrupted run goes on with the same
command. At the end it prints what to train with, what space was won, and what speed.

On 2 CPU cores: 210 images/s of about 600 x 750 px and 120 KB; 7 times smaller afterwards, and 3
times quicker to cut views out of.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = ml_collections.ConfigDict()
    config.task = "pack"
    config.preset = ""
    config.image_size = 224  # px, of the views that are to be cut out of the images
    config.shorter_side = config_dict.placeholder(int)  # px, at most; unset: image_size * 256 / 224
    config.quality = 85  # of JPEG
    config.shard_images = 4096  # images in a file
    config.output_dir = ""  # of prepared sets; empty: data.dir with "_packed" appended
    config.output_name = ""  # of a folder's set; empty: the folder's name
    config.data = ml_collections.ConfigDict()
    config.data.name = "folder"  # or a TFDS set, as in configs/byol.py
    config.data.dir = ""  # images, or prepared TFDS sets (empty: $TFDS_DATA_DIR or its default)
    config.data.max_bad_share = 0.01  # of a split's images; with more the run stops
    return config
