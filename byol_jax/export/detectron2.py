"""An encoder by detectron2's names, with a config of its R50-C4 detector; detectron2 is not needed.

Written from detectron2's model: the stem and the first three groups are the backbone, the last
group is the head of boxes.
"""

import pathlib
import re
from collections.abc import Mapping

import numpy as np

from byol_jax.checkpoints import torchvision_names
from byol_jax.models import encoder_spec, norms, resnet
from byol_jax.workdir import files

WEIGHTS, CONFIG = "detectron2.pth", "detectron2.yaml"
DEPTHS = {"resnet50": 50, "resnet101": 101, "resnet152": 152}
_LAST_GROUP = "4"


def fits(card: encoder_spec.EncoderSpec) -> bool:
    """Whether detectron2 has such a network, as far as names and shapes go."""
    is_plain = (card.width_multiplier, card.resnet_v2, card.bn_eps) == (1, False, 1e-5)
    has_stem = resnet.STEMS[card.stem] == resnet.STEMS["imagenet"]
    return card.encoder in DEPTHS and is_plain and has_stem and card.norm_spec == norms.BATCH_NORM


def to_detectron2(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of `torchvision_names.to_torch` by detectron2's names.

    >>> list(to_detectron2({"layer4.0.bn2.weight": np.ones(3)}))
    ['roi_heads.res5.0.conv2.norm.weight']
    """
    return {_rename(key): array for key, array in tensors.items()}


def _rename(key: str) -> str:
    found = re.fullmatch(r"layer(\d)\.(.*)", key)
    if found:
        group = f"res{int(found[1]) + 1}"
        prefix = f"roi_heads.{group}." if found[1] == _LAST_GROUP else f"backbone.{group}."
        rest = found[2]
    else:
        prefix, rest = "backbone.stem.", key
    rest = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", rest)
    rest = rest.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return prefix + rest


def tensors_of(params: Mapping, state: Mapping) -> dict[str, np.ndarray]:
    """An encoder's arrays by detectron2's names."""
    return to_detectron2(torchvision_names.to_torch(params, state))


def write_config(folder: pathlib.Path, card: encoder_spec.EncoderSpec) -> None:
    """Writes the config: images are RGB, 0 to 255, normalized as for the encoder."""
    mean, std = ([round(255 * value, 3) for value in values] for values in (card.mean, card.std))
    text = _CONFIG.format(depth=DEPTHS[card.encoder], mean=mean, std=std, weights=WEIGHTS)
    files.write_text(folder / CONFIG, text)


_CONFIG = """\
# For detectron2: Faster R-CNN R50-C4 on VOC2007+2012, the encoder fine-tuned. Paths are relative to
# where detectron2 is started. On several GPUs take SyncBN for BN.
VERSION: 2
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  WEIGHTS: {weights}
  PIXEL_MEAN: {mean}
  PIXEL_STD: {std}
  MASK_ON: False
  BACKBONE:
    NAME: build_resnet_backbone
    FREEZE_AT: 0
  RESNETS:
    DEPTH: {depth}
    NORM: BN
    OUT_FEATURES: [res4]
    STRIDE_IN_1X1: False
  ANCHOR_GENERATOR:
    SIZES: [[32, 64, 128, 256, 512]]
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]
  RPN:
    IN_FEATURES: [res4]
    PRE_NMS_TOPK_TEST: 6000
    POST_NMS_TOPK_TEST: 1000
  ROI_HEADS:
    NAME: Res5ROIHeads
    IN_FEATURES: [res4]
    NUM_CLASSES: 20
  ROI_BOX_HEAD:
    POOLER_RESOLUTION: 14
    POOLER_TYPE: ROIAlignV2
INPUT:
  FORMAT: RGB
  MIN_SIZE_TRAIN: [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
  MIN_SIZE_TEST: 800
DATASETS:
  TRAIN: [voc_2007_trainval, voc_2012_trainval]
  TEST: [voc_2007_test]
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.02
  WARMUP_ITERS: 100
  STEPS: [18000, 22000]
  MAX_ITER: 24000
"""
