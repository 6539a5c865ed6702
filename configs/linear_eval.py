"""Linear evaluation: how well a linear classifier does on a frozen encoder (paper, appendix C.1).

    python -m byol_jax.main_loop --config=configs/linear_eval.py --config.checkpoint=RUN

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>. SGD with Nesterov
momentum 0.9, batch 1024, 80 epochs, no weight decay; random crops and flips for training, center
crops for testing. Five learning rates (x batch size / 256, then a cosine to 0) train at once on the
same features; the best on held-out training images is trained again on all of them and tested once.

| preset | what |
|---|---|
| paper (default) | as above |
| reference | the authors' code: one rate, 0.2, nothing is chosen |
| regularized | views of pretraining, logits clipped and penalized (table 7: 74.8 %, not 74.3) |

--config.features=cached computes features once, of center crops, instead of crops that are drawn
anew in every epoch: for the default encoder of configs/byol.py seconds instead of minutes.

Where the paper is silent, the authors' code decides: the factor batch size / 256, the cosine, and
whole steps (epochs x images / batch, rounded down). At most 10,000 images are held out, where the
paper has 10,009 of ImageNet.

The workdir is runs/linear_eval-<preset>-<run>-step<step> unless --workdir is given; a result of
other settings that is there is kept in its folder earlier/.
"""

import ml_collections
from ml_collections import config_dict

from byol_jax import config as config_lib


def get_config(preset: str = "paper") -> ml_collections.ConfigDict:
    """The config of a preset."""
    config = ml_collections.ConfigDict()
    config.task = "linear_eval"
    config.preset = preset
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.weights = "checkpoint"  # or what it has to beat: random (same network) | pixels
    config.features = "augmented"  # augmented | cached | pretraining: of the run's first view
    config.logit_clip = 0.0  # alpha: logits become alpha tanh(logits / alpha); 0: they stay
    config.logit_penalty = 0.0  # beta, of the mean square of logits
    config.seed = 0  # of the held-out images, the order, the crops and the bootstrap
    config.seeds = 1  # so many seeds, from that one on: mean and std
    config.batch_size = 1024
    config.total_epochs = 80.0
    config.base_learning_rates = (0.4, 0.3, 0.2, 0.1, 0.05)  # x batch_size / 256
    config.extract_batch_size = 256
    config.bootstrap_resamples = 1000
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


def _reference(config: ml_collections.ConfigDict) -> None:
    config.base_learning_rates = (0.2,)


def _regularized(config: ml_collections.ConfigDict) -> None:
    config.features = "pretraining"
    config.logit_clip = 20.0
    config.logit_penalty = 1e-2


PRESETS = {
    "paper": lambda config: None,
    "reference": _reference,
    "regularized": _regularized,
}
