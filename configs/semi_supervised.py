"""Trains a whole encoder with few labels, or with all of them.

    python -m byol_jax.main_loop --config=configs/semi_supervised.py:PRESET --config.checkpoint=RUN

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>. SGD with Nesterov
momentum 0.9, random crops and flips; learning rates are x batch size / 256 and end in a cosine.

| preset | labels | what is tried (paper) |
|---|---|---|
| 10percent (default), 1percent | as many of each class | five rates x 30 or 50 epochs |
| finetune | all | 20,000 steps, batch 256; seven rates x seven weight decays and none |

The best on a tenth of the training images, held out and not counted as labels (as in the paper), is
tested once; `finetune` trains it again on these, too. A batch is at most as large as what is
learned from. --config.labels.list=FILE takes a list of file names, one a line, instead.
--config.weights=random starts from scratch, for comparison.

Where the paper is silent (appendices C.1 and D.3): rates are x batch size / 256, also with few
labels; weight decay is divided by the rate of the first step and spares biases and batch norm;
steps are epochs x images / batch, rounded down; the steps of an epoch in batch norm's decay are
images / batch of what is learned from, also when the best is trained again on more of them; at
most 10,000 images are held out, where the paper has 10,009 of ImageNet.

The workdir is runs/semi_supervised-<preset>-<run>-step<step> unless --workdir is given; a result of
other settings that is there is kept in its folder earlier/.
"""

import ml_collections
import numpy as np
from ml_collections import config_dict

from byol_jax import config as config_lib


def get_config(preset: str = "10percent") -> ml_collections.ConfigDict:
    """The config of a preset."""
    config = ml_collections.ConfigDict()
    config.task = "semi_supervised"
    config.preset = preset
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.weights = "checkpoint"  # or random: the same network from scratch
    config.seed = 0  # of the chosen labels, the head, the order, the crops and the bootstrap
    config.seeds = 1  # so many seeds, from that one on: mean and std
    config.batch_size = 1024
    config.epochs = (30.0, 50.0)
    config.total_steps = config_dict.placeholder(int)  # as in configs/byol.py: counts if set
    config.base_learning_rates = (0.01, 0.02, 0.05, 0.1, 0.005)  # x batch_size / 256
    config.weight_decays = (0.0,)  # / learning rate
    config.bn_decay_rate = 0.9  # unset: max(1 - 10 / steps of an epoch, 0.9)
    config.refit = False  # train the best again on labels and validation images together
    config.extract_batch_size = 256
    config.bootstrap_resamples = 1000
    config.labels = ml_collections.ConfigDict()
    config.labels.share = 0.1
    config.labels.list = ""  # a text file of file names
    config.crop = ml_collections.ConfigDict()
    config.crop.min_area = config_dict.placeholder(float)  # unset: as in the run (paper: 0.08)
    config.data = ml_collections.ConfigDict()
    config.data.name = ""  # as in configs/byol.py; empty: what the run was trained on
    config.data.dir = ""
    config.data.labels = ""  # folders | none | a CSV file (file,label); empty: as in the run
    config.data.train_split = ""  # empty: as in the run
    config.data.validation_split = ""  # to choose on; empty: some of train_split
    config.data.validation_share = 0.1  # of train_split, at most 10,000 images
    config.data.eval_split = ""  # empty: as in the run
    config.data.decode = "full"  # full | reduced: large JPEGs at 1/2 to 1/8, as in training
    config.data.max_bad_share = 0.01  # of all images measured; left out, with more it is an error
    config_lib.lookup(PRESETS, preset, key="preset")(config)
    return config


def _one_percent(config: ml_collections.ConfigDict) -> None:
    config.labels.share = 0.01


def _finetune(config: ml_collections.ConfigDict) -> None:
    config.labels.share = 1.0
    config.batch_size = 256
    config.total_steps = 20_000
    config.base_learning_rates = tuple(np.logspace(-4, -1, 7).tolist())
    config.weight_decays = (0.0, *np.logspace(-6, -3, 7).tolist())
    config.bn_decay_rate = config_dict.placeholder(float)
    config.refit = True


PRESETS = {
    "10percent": lambda config: None,
    "1percent": _one_percent,
    "finetune": _finetune,
}
