"""Looks through a folder of images: near-duplicates, outliers, clusters, suspected label errors.

    python -m byol_jax.main_loop --config=configs/curate.py --config.checkpoint=RUN \
        --config.data.name=folder --config.data.dir=IMAGES --config.subset=500

RUN is whatever configs/knn.py takes. Writes curation.csv (a row for each image), keep.txt (images
to keep: one of each group of near-duplicates; of these, the subset, if one is asked for) and a page
with the pictures. No image is changed or removed.

The workdir is runs/curate-<run>-step<step> unless --workdir is given; a result of other settings
that is there is kept in its folder earlier/. Exact search: time grows with the square of the number
of images; 100,000 take minutes.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = ml_collections.ConfigDict()
    config.task = "curate"
    config.preset = ""
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.seed = 0
    config.batch_size = 256
    config.similarity = 0.0  # of near-duplicates, at most 1; 0: chosen, and shown on the page
    config.subset = 0  # so many images that stand for all others; 0: none are chosen
    config.clusters = 0  # of k-means; 0: the square root of half the images, at most 50
    config.data = ml_collections.ConfigDict()
    config.data.name = ""  # as in configs/byol.py; empty: what the run was trained on
    config.data.dir = ""
    config.data.labels = ""  # folders | none | a CSV file (file,label); empty: as in the run
    config.data.split = ""  # empty: all of a folder, of another set the run's eval_split
    config.data.max_bad_share = 0.05  # of the images; listed, with more it is an error
    config.data.decode = "full"  # full | reduced: large JPEGs at 1/2 to 1/8, as in training
    return config
