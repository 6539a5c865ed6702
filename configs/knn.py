"""Scores a frozen encoder by its nearest neighbors, and without any labels.

    python -m byol_jax.main_loop --config=configs/knn.py --config.checkpoint=RUN

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>. Images are classified by
a vote of the k nearest training images in cosine similarity, each weighing
exp(similarity / temperature). Of several k and temperatures the pair is chosen on images held out
of the training split, never on those that are evaluated; the table shows all of them. Writes
result.json. Takes little more than encoding the images: for the 7,000 of configs/byol.py's default
15 seconds on 2 CPU cores.

The workdir is runs/knn-<run>-step<step> unless --workdir is given; a result of other settings
that is there is kept in its folder earlier/.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = ml_collections.ConfigDict()
    config.task = "knn"
    config.preset = ""
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.weights = "checkpoint"  # or what it has to beat: random (same network) | pixels
    config.seed = 0  # of the validation split, the bootstrap, and the augmented views
    config.seeds = 1  # so many seeds, from that one on: mean and std
    config.batch_size = 256
    config.bootstrap_resamples = 1000
    config.data = ml_collections.ConfigDict()
    config.data.name = ""  # as in configs/byol.py; empty: what the run was trained on
    config.data.dir = ""
    config.data.labels = ""  # folders | none | a CSV file (file,label); empty: as in the run
    config.data.train_split = ""  # whose images vote; empty: as in the run
    config.data.eval_split = ""  # that is measured; leave_one_out: train, each image by all others
    config.data.decode = "full"  # full | reduced: large JPEGs at 1/2 to 1/8, as in training
    config.data.max_bad_share = 0.01  # of all images measured; left out, with more it is an error
    config.knn = ml_collections.ConfigDict()
    config.knn.k = (10, 20, 200)
    config.knn.temperature = (0.07, 0.1)
    config.knn.validation_share = 0.1  # of the training images, to choose k and temperature on
    config.knn.leave_one_out = False  # measure it on the train split too, with what was chosen
    return config
