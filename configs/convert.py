"""Rewrites a TFDS set from TFRecord, TFDS's default, to ArrayRecord, which can be trained on.

    python -m byol_jax.main_loop --config=configs/convert.py \
        --config.data.name=NAME --config.data.dir=DIR

The records stay the same, byte for byte; TensorFlow is not needed. The new set takes as much space
as the old one, which is left alone. An interrupted run goes on with the same command.

Takes about five seconds a GiB on 2 CPU cores and a fast disk.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = ml_collections.ConfigDict()
    config.task = "convert"
    config.preset = ""
    config.output_dir = ""  # of prepared sets; empty: data.dir with "_array_record" appended
    config.data = ml_collections.ConfigDict()
    config.data.name = ""  # such as imagenet2012, or name/config
    config.data.dir = ""  # of prepared sets; empty: $TFDS_DATA_DIR or TFDS's default
    return config
