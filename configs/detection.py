"""Trains a detector on an encoder: VOC2007 detection, or a set in COCO's format.

    python -m byol_jax.main_loop --config=configs/detection.py --config.checkpoint=RUN \
        --config.data.dir=FOLDER

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>. FOLDER holds VOCdevkit
(docs/dense.md). It takes PyTorch: pip install 'byol_jax[detection]'. One GPU that PyTorch sees is
used, else the processor. For boxes of your own: --config.data.name=coco, where FOLDER holds
annotations/instances_train2017.json and the images in train2017, and likewise val2017; other names
by --config.data.train_split and --config.data.eval_split.

Faster R-CNN R50-C4 as in the paper (appendix D.5): the block groups of the encoder but the last are
the backbone, the last is the head of boxes. The paper's 1.5 million asynchronous steps are not
described well enough to be repeated; the recipe is the one that MoCo's numbers are made with: 16
images, rate 0.02, x 0.1 at 3/4 and 11/12 of the steps, shorter side 480 to 800 px, mirrored half
the time, a batch norm after the last group. Measured are VOC's AP50 and COCO's AP.

| preset | learned from | steps |
|---|---|---|
| (default) | trainval2007 | 9,000 |
| voc0712 | trainval2007 and trainval2012 | 24,000 |
| frozen | trainval2007, the encoder as it is | 9,000 |

Images smaller than VOC's need smaller sizes and anchors, such as --config.image_sizes=128
--config.test_image_size=128 --config.anchor_sizes="(16, 32, 64)". The encoder's stem must be
ImageNet's.

The workdir is runs/detection-<preset>-<run>-step<step> unless --workdir is given; a result of other
settings that is there is kept in its folder earlier/.
"""

import ml_collections

from byol_jax import config as config_lib


def get_config(preset: str = "") -> ml_collections.ConfigDict:
    """The config of a preset."""
    config = ml_collections.ConfigDict()
    config.task = "detection"
    config.preset = preset
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.weights = "checkpoint"  # or random: the same network from scratch
    config.frozen = False  # train the new layers alone
    config.seed = 0  # of the new layers, the order, what is mirrored, sizes and the bootstrap
    config.seeds = 1  # so many seeds, from that one on: mean and std
    config.batch_size = 16
    config.accumulate = 8  # parts of a batch, one after the other, in less memory
    config.total_steps = 9000
    config.learning_rate = 0.02
    config.warmup_steps = 100
    config.weight_decay = 1e-4
    config.bn_decay_rate = 0.9
    config.image_sizes = tuple(range(480, 801, 32))  # px of the shorter side, one is drawn
    config.test_image_size = 800
    config.longest_side = 1333  # px, at most
    config.anchor_sizes = (32, 64, 128, 256, 512)  # px; each has three shapes
    config.regions = 512  # of an image that the head learns from; fewer take less time and memory
    config.test_regions = 1000  # of an image that the head looks at when it is tested
    config.bootstrap_resamples = 1000
    config.data = ml_collections.ConfigDict()
    config.data.name = "voc2007"  # voc2007 | voc0712 | voc2012 | coco
    config.data.dir = ""  # holds VOCdevkit, or annotations
    config.data.train_split = ""  # empty: trainval, of voc2012 train, of coco train2017
    config.data.eval_split = ""  # empty: test, of voc2012 val, of coco val2017
    config.data.max_bad_share = 0.01  # of the images; left out, with more it is an error
    config_lib.lookup(PRESETS, preset, key="preset")(config)
    return config


def _voc0712(config: ml_collections.ConfigDict) -> None:
    config.data.name = "voc0712"
    config.total_steps = 24_000


def _frozen(config: ml_collections.ConfigDict) -> None:
    config.frozen = True


PRESETS = {
    "": lambda config: None,
    "voc0712": _voc0712,
    "frozen": _frozen,
}
