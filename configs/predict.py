"""Classifies the photos of a folder with a classifier that an evaluation has kept.

    python -m byol_jax.main_loop --config=configs/predict.py --config.checkpoint=RESULT \
        --config.data.dir=PHOTOS --workdir=runs/new-photos

RESULT is the folder of a result of configs/linear_eval.py, transfer.py or semi_supervised.py, which
has the classifier in classifier/, or an export of it. Writes predictions.csv (or .parquet) to the
workdir: a row for each photo of the folder and of all folders below it, with its most probable
classes and their probabilities. A file that cannot be used has a row, too, which says why.

Probabilities are calibrated by one temperature on the images that the classifier was chosen on.
Cells of a CSV file that spreadsheets would take for a formula begin with an apostrophe.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = ml_collections.ConfigDict()
    config.task = "predict"
    config.preset = ""
    config.checkpoint = ""  # the folder of a result that has kept a classifier
    config.format = "csv"  # csv | parquet, for which pip install pyarrow
    config.top = 5  # so many classes for each photo, the most probable first
    config.batch_size = 256
    config.data = ml_collections.ConfigDict()
    config.data.dir = ""
    config.data.labels = "none"  # or a CSV file (file,label) or folders, to count what is right
    return config
