"""Trains an encoder to say how far every pixel is: NYU Depth V2, or a folder of depth maps.

    python -m byol_jax.main_loop --config=configs/depth.py --config.checkpoint=RUN \
        --config.data.dir=FOLDER

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>. FOLDER holds
nyu_depth_v2_labeled.mat and splits.mat (docs/dense.md), which take h5py. For images of your own:
--config.data.name=folder --config.data.images=IMAGES --config.data.depths=DEPTHS, where
DEPTHS/a/b.png holds the depth of IMAGES/a/b.jpg in millimeters, 16 bits, 0 where it is unknown.

As in the paper (appendix D.6): four fast up-projections of 512, 256, 128 and 64 channels on the
last map, reverse Huber loss; images at half size (640 x 480), of which the middle 304 x 228 px are
cut, flipped, made gray (0.3), and changed in brightness, saturation and hue; 7,500 steps of SGD,
batch 256, rate 0.16, weight decay 5e-4. Measured are the fractions of pixels within 1.25, 1.25^2
and 1.25^3 of the truth, rms, rel, and their logarithms.

| preset | |
|---|---|
| (default) | the whole network is trained |
| frozen | the head alone |

Images of other sizes are scaled so that the cut is 95 % of them, as it is of NYU's.

The workdir is runs/depth-<preset>-<run>-step<step> unless --workdir is given; a result of other
settings that is there is kept in its folder earlier/.
"""

import ml_collections

from byol_jax import config as config_lib


def get_config(preset: str = "") -> ml_collections.ConfigDict:
    """The config of a preset."""
    config = ml_collections.ConfigDict()
    config.task = "depth"
    config.preset = preset
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.weights = "checkpoint"  # or random: the same network from scratch
    config.frozen = False  # train the head alone
    config.seed = 0  # of held-out images, the head, the order, the views and the bootstrap
    config.seeds = 1  # so many seeds, from that one on: mean and std
    config.batch_size = 256
    config.total_steps = 7500
    config.learning_rates = (0.16,)  # of the first step; of several the best is chosen
    config.weight_decay = 5e-4
    config.bn_decay_rate = 0.9
    config.refit = True  # train the best again on the held-out images, too
    config.input_height = 228  # px
    config.input_width = 304
    config.up_channels = (512, 256, 128, 64)  # each doubles the map
    config.inference = "crop"  # what training cuts | whole: the whole image at that size
    config.region = "all"  # which of these pixels count | eigen: those in Eigen's crop
    config.test_batch_size = 32
    config.bootstrap_resamples = 1000
    config.data = ml_collections.ConfigDict()
    # nyu | nyu_h5: the files of TFDS and the Hub | tfds:nyu_depth_v2: prepared by TFDS | folder
    config.data.name = "nyu"
    config.data.dir = ""  # of all but folder
    config.data.images = ""  # of folder
    config.data.depths = ""  # of folder: 16-bit gray PNGs, in millimeters
    config.data.train_split = ""  # empty: train
    config.data.eval_split = ""  # empty: test, of nyu_h5 val, of TFDS validation
    config.data.validation_share = 0.1  # of train_split, to choose a rate on
    config.data.max_bad_share = 0.01  # of the images; left out, with more it is an error
    config_lib.lookup(PRESETS, preset, key="preset")(config)
    return config


def _frozen(config: ml_collections.ConfigDict) -> None:
    config.frozen = True


PRESETS = {
    "": lambda config: None,
    "frozen": _frozen,
}
