"""Trains an encoder to label every pixel: VOC2012 segmentation, or a folder of masks.

    python -m byol_jax.main_loop --config=configs/segmentation.py --config.checkpoint=RUN \
        --config.data.dir=FOLDER

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>. FOLDER holds VOCdevkit
and, for the paper's 10,582 training images, SBD's benchmark_RELEASE (docs/dense.md). For images of
your own: --config.data.name=folder --config.data.images=IMAGES --config.data.masks=MASKS
--config.data.classes=3, where MASKS/a/b.png holds the class numbers of IMAGES/a/b.jpg, and 255
where none counts.

As in the paper (appendix D.4): the last group dilated instead of strided (output stride 16), two
3x3 convolutions of 256 channels with dilation 6, batch norm and ReLU, and 1x1; images scaled by 0.5
to 2, cut to 513 px, flipped; 30,000 steps of SGD, batch 16, rate x 0.1 at 70 % and 90 %. The rate
is the best of five on a fifth of the training images, then all of them are learned from.

| preset | |
|---|---|
| (default) | the whole network is trained |
| frozen | the head alone |

The paper's number is a mean over --config.seeds=5. Images smaller than the encoder was made for
need a finer grid: --config.output_stride=8 --config.crop_size=129, for example.

The workdir is runs/segmentation-<preset>-<run>-step<step> unless --workdir is given; a result of
other settings that is there is kept in its folder earlier/.
"""

import ml_collections
import numpy as np

from byol_jax import config as config_lib


def get_config(preset: str = "") -> ml_collections.ConfigDict:
    """The config of a preset."""
    config = ml_collections.ConfigDict()
    config.task = "segmentation"
    config.preset = preset
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.weights = "checkpoint"  # or random: the same network from scratch
    config.frozen = False  # train the head alone
    config.seed = 0  # of held-out images, the head, the order, the cuts and the bootstrap
    config.seeds = 1  # so many seeds, from that one on: mean and std
    config.batch_size = 16
    config.total_steps = 30_000
    config.learning_rates = tuple(np.logspace(-3, -1, 5).tolist())  # of the first step
    config.weight_decay = 1e-4
    config.bn_decay_rate = 0.9
    config.refit = True  # train the best again on the held-out images, too
    config.output_stride = 16  # px between cells of the last map, by dilation
    config.crop_size = 513  # px; a multiple of output_stride and 1 more
    config.min_scale = 0.5  # of a training image's sides
    config.max_scale = 2.0
    config.inference = "crop"  # the central crop (paper) | slide: windows over the whole image
    config.test_batch_size = 8
    config.bootstrap_resamples = 1000
    config.head = ml_collections.ConfigDict()
    config.head.channels = 256
    config.head.dilation = 6
    config.data = ml_collections.ConfigDict()
    config.data.name = "voc2012"  # voc2012 | voc2007 | folder | tfds:NAME, labels in an image
    config.data.dir = ""  # holds VOCdevkit, and benchmark_RELEASE for train_aug; or TFDS's sets
    config.data.images = ""  # of folder
    config.data.masks = ""  # of folder: PNGs of class numbers (palette or gray)
    config.data.classes = ""  # not of VOC: their number, or names with commas, background first
    config.data.train_split = ""  # empty: train_aug where SBD is, else train
    config.data.eval_split = ""  # empty: val, of a folder test
    config.data.validation_share = 0.2  # of train_split, to choose the rate on (paper: 2,119)
    config.data.max_bad_share = 0.01  # of the images; left out, with more it is an error
    config_lib.lookup(PRESETS, preset, key="preset")(config)
    return config


def _frozen(config: ml_collections.ConfigDict) -> None:
    config.frozen = True


PRESETS = {
    "": lambda config: None,
    "frozen": _frozen,
}
