"""Transfer: logistic regression on a frozen encoder's features (paper, section 4 and appendix D.2).

    python -m byol_jax.main_loop --config=configs/transfer.py:pets --config.checkpoint=RUN

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>. Images are resized so
that the shorter side is the encoder's size (224 in the paper), and the square in the middle is
encoded. Logistic regression minimizes

    sum over images of the cross-entropy + lambda / 2 * sum of the squared weights

(scikit-learn's C is 1 / lambda) for 45 values of lambda, from strong to weak, each from where the
one before has ended, by Newton's method up to 4,096 weights, by L-BFGS above: the minimum is the
same. The best on validation images is trained again on these and the training images together,
from the weights that it has, and tested once.

| preset | set | what is measured |
|---|---|---|
| (default) | what the run was trained on, or any set or folder | top-1, or config.metric |
| food101, cifar10, cifar100, sun397, cars, dtd | TFDS's, splits as in the paper | top-1 |
| pets, caltech101, flowers | the same | mean of the classes' accuracies |
| voc2007 | the same; a regression for each class | mean of 11-point average precisions |
| birdsnap | a folder of your own, given by --config.data.dir | top-1 |
| aircraft (FGVC-Aircraft) | the same | mean of the classes' accuracies |

TFDS's have to be prepared (docs/your_images.md). The other two are not in TFDS: arrange them as
train/CLASS/... and test/CLASS/..., Aircraft's validation images as validation/CLASS/.... On 2 CPU
cores, the 7,000 images of configs/byol.py's default take 40 seconds (raw pixels: minutes).

The workdir is runs/transfer-<preset>-<run>-step<step> unless --workdir is given; a result of
other settings that is there is kept in its folder earlier/.
"""

import ml_collections

from byol_jax import config as config_lib
from byol_jax.data import transfer_datasets


def get_config(preset: str = "") -> ml_collections.ConfigDict:
    """The config of a preset."""
    config = ml_collections.ConfigDict()
    config.task = "transfer"
    config.preset = preset
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.weights = "checkpoint"  # or what it has to beat: random (same network) | pixels
    config.metric = ""  # top1 | mean_per_class | map11; empty: what the paper measures on the set
    config.seed = 0  # of the held-out images, the random weights and the bootstrap
    config.seeds = 1  # so many seeds, from that one on: mean and std
    config.extract_batch_size = 256
    config.bootstrap_resamples = 1000
    config.lambdas = ml_collections.ConfigDict()  # log-spaced
    config.lambdas.min = 1e-6
    config.lambdas.max = 1e5
    config.lambdas.count = 45  # 1: lambdas.max, and nothing is chosen
    config.max_iterations = 1000  # for each lambda
    config.tolerance = 1e-3  # largest slope at which a fit ends, as a fraction of the penalty's
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
    if preset:
        _take(config, config_lib.lookup(transfer_datasets.SETS, preset, key="preset"))
    return config


def _take(config: ml_collections.ConfigDict, chosen: transfer_datasets.TransferSet) -> None:
    config.metric = chosen.metric
    config.data.name = chosen.name
    config.data.train_split = "train"
    config.data.validation_split = chosen.validation_split
    config.data.validation_share = chosen.validation_share
    config.data.eval_split = chosen.eval_split
