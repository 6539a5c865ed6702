"""Finds the images of a folder that are most like one photo.

    python -m byol_jax.main_loop --config=configs/search.py --config.checkpoint=RUN \
        --config.data.name=folder --config.data.dir=IMAGES --config.query=photo.jpg

RUN is whatever configs/knn.py takes. Prints the ten nearest as a table, writes it as search.csv,
the features as index.npz (byol_jax.Index), and a page with the pictures. With --config.index=FILE
an index that is there is searched and no image is encoded but the query.

The workdir is runs/search-<run>-step<step> unless --workdir is given.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = ml_collections.ConfigDict()
    config.task = "search"
    config.preset = ""
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.query = ""  # a file
    config.k = 10  # images to find
    config.index = ""  # an index.npz of the same encoder and images; empty: it is made
    config.batch_size = 256
    config.data = ml_collections.ConfigDict()
    config.data.name = ""  # as in configs/byol.py; empty: what the run was trained on
    config.data.dir = ""
    config.data.labels = ""  # folders | none | a CSV file (file,label); empty: as in the run
    config.data.split = ""  # empty: all of a folder, of another set the run's eval_split
    config.data.max_bad_share = 0.05  # of the images; left out, with more it is an error
    config.data.decode = "full"  # full | reduced: large JPEGs at 1/2 to 1/8, as in training
    return config
