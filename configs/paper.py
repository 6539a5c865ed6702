"""Runs every evaluation of the paper whose data is there, and writes one page beside its numbers.

    python -m byol_jax.main_loop --config=configs/paper.py --config.checkpoint=RUN \
        --config.data.dir=FOLDER

RUN is the workdir of a pretraining run, or one of its checkpoints/<step>: of a run that goes on,
the newest one when this begins. Each evaluation is a command of its own, the one that its config
describes, in a folder of the workdir; what is missing in FOLDER is skipped, and the page says how
to get it. Rerun the same command to resume, or once more data is there.

| in FOLDER | evaluations |
|---|---|
| imagenet2012 of TFDS; or imagenet/train/CLASS/..., imagenet/val/CLASS/... | linear, few labels |
| sets prepared by TFDS (docs/evaluation.md); birdsnap, aircraft: folders | transfer |
| VOCdevkit/VOC2012, and benchmark_RELEASE of SBD | segmentation |
| VOCdevkit/VOC2007 | detection |
| nyudepthv2, or nyu_depth_v2_labeled.mat with splits.mat (also in nyu) | depth |

Keys of an evaluation can be given as words: --config.options.segmentation="seeds=5 batch_size=8".

| preset | |
|---|---|
| (default) | the paper's protocols; days on one GPU, most of them for the 1 % and 10 % |
| small | a few steps of each on small images, to try it |

The workdir is runs/paper-<preset>-<run>-step<step> unless --workdir is given.
"""

import ml_collections

from byol_jax import config as config_lib


def get_config(preset: str = "") -> ml_collections.ConfigDict:
    """The config of a preset."""
    config = ml_collections.ConfigDict()
    config.task = "paper"
    config.preset = preset
    config.checkpoint = ""  # a run's workdir, or one of its checkpoints/<step>
    config.only = ""  # names of evaluations with commas, such as linear,segmentation; empty: all
    config.data = ml_collections.ConfigDict()
    config.data.dir = ""  # holds all sets
    config.options = ml_collections.ConfigDict()  # of each evaluation, as key=value, with spaces
    config.options.linear = ""
    config.options.semi_supervised = ""
    config.options.transfer = ""
    config.options.segmentation = ""
    config.options.detection = ""
    config.options.depth = ""
    config_lib.lookup(PRESETS, preset, key="preset")(config)
    return config


def _small(config: ml_collections.ConfigDict) -> None:
    every = "bootstrap_resamples=100"
    config.options.linear = f"{every} total_epochs=2 features=cached batch_size=32"
    config.options.semi_supervised = f"{every} epochs=2 base_learning_rates=0.1 batch_size=16"
    config.options.transfer = f"{every} lambdas.count=5 max_iterations=50"
    config.options.segmentation = (
        f"{every} total_steps=8 batch_size=8 learning_rates=0.1 crop_size=33 output_stride=4 "
        "head.channels=16 head.dilation=2"
    )
    config.options.detection = (
        f"{every} total_steps=4 batch_size=4 accumulate=2 warmup_steps=1 image_sizes=64 "
        "test_image_size=64 longest_side=128 anchor_sizes=(16,32,64) regions=16 test_regions=50"
    )
    config.options.depth = (
        f"{every} total_steps=8 batch_size=8 input_height=32 input_width=40 up_channels=(16,8)"
    )


PRESETS = {
    "": lambda config: None,
    "small": _small,
}
