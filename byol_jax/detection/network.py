"""Faster R-CNN on an encoder (Ren et al. 2015): all block groups but the last, and the last in it.

Shapes: b images of H x W pixels, R regions, F embedding, K classes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models import detection
from torchvision.models.detection import faster_rcnn, rpn

from byol_jax.checkpoints import encoders, export_contents, torchvision_names
from byol_jax.export import torch_module

STRIDE = 16  # px between cells of the map before the last group
REGION = 14  # cells of a region's side, which the last group halves
ANCHOR_RATIOS = (0.5, 1.0, 2.0)


class Sizes(NamedTuple):
    """How large images are.

    Attributes:
      train: px of the shorter side, one of which is drawn for each image.
      test: px of the shorter side.
      longest: px of the longer side, at most.
      anchors: sides of square anchors, in px.
      regions: of an image that the head learns from.
      test_regions: of an image that the head looks at when it is tested.
    """

    train: tuple[int, ...]
    test: int
    longest: int
    anchors: tuple[int, ...]
    regions: int = 512
    test_regions: int = 1000


class Backbone(nn.Module):
    """Normalized images [b, 3, H, W] -> the map before the last group [b, c, H / 16, W / 16]."""

    def __init__(self, encoder: torch_module.Encoder):
        super().__init__()
        self.encoder = encoder
        self.out_channels = encoder.card["groups"][-2]["channels"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.encoder.stem(images)
        for group in self.encoder.groups()[:-1]:
            x = group(x)
        return x


class Regions(torchvision.ops.MultiScaleRoIAlign):
    """Cuts regions from a map: aligned, so that a cell's center lies at 16 i + 7.5 px."""

    def forward(self, x: Mapping[str, torch.Tensor], boxes: Any, image_shapes: Any) -> torch.Tensor:
        del image_shapes
        features = x["0"]
        return torchvision.ops.roi_align(features, boxes, REGION, 1 / STRIDE, 0, aligned=True)


class BoxHead(nn.Module):
    """Regions [R, c, 14, 14] -> their embeddings [R, F], by the last group.

    A batch norm follows, as is usual for weights that were learned without labels: their features
    have another size than those that detectors are tuned for (He et al. 2020, arXiv:1911.05722).
    """

    def __init__(self, encoder: torch_module.Encoder):
        super().__init__()
        self._last, self._pool = encoder.groups()[-1:], encoder.pool  # parameters of the backbone
        channels = encoder.card["groups"][-1]["channels"]
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self._pool(self._last[0](x)))


def to_torch(encoder: encoders.Encoder) -> torch_module.Encoder:
    """The same encoder as a module of PyTorch, as exports have it."""
    model = {"card": encoder.card._asdict()}
    model["architecture"] = export_contents.architecture(encoder.card, None)
    module = torch_module.Encoder(model)
    tensors = torchvision_names.to_torch(encoder.params, encoder.state)
    module.load_state_dict({name: torch.tensor(x) for name, x in tensors.items()}, strict=True)
    return module


def make(
    encoder: encoders.Encoder,
    *,
    num_classes: int,
    sizes: Sizes,
    bn_decay_rate: float,
    is_frozen: bool,
    seed: int,
) -> faster_rcnn.FasterRCNN:
    """A detector whose new layers are drawn by a seed.

    Images [3, H, W] in [0, 1] go in, and are normalized once, before the mean color is padded to
    sides that are multiples of 32.

    Args:
      encoder: a residual network with stride `STRIDE` before its last group.
      num_classes: K, without the background.
      sizes: of images.
      bn_decay_rate: of running statistics.
      is_frozen: the encoder stays as it is, its batch norm in inference mode.
      seed: of the new layers.
    """
    torch.manual_seed(seed)
    body = to_torch(encoder)
    backbone, head = Backbone(body), BoxHead(body)
    anchors = rpn.AnchorGenerator((sizes.anchors,), (ANCHOR_RATIOS,))
    model = detection.FasterRCNN(
        backbone,
        min_size=sizes.train,
        max_size=sizes.longest,
        image_mean=list(encoder.card.mean),
        image_std=list(encoder.card.std),
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=12_000,
        rpn_pre_nms_top_n_test=6000,
        rpn_post_nms_top_n_train=2000,
        rpn_post_nms_top_n_test=sizes.test_regions,
        box_batch_size_per_image=sizes.regions,
        box_roi_pool=Regions(["0"], REGION, 0),
        box_head=head,
        box_predictor=faster_rcnn.FastRCNNPredictor(
            head.norm.num_features, num_classes + 1
        ),
        size_divisible=32,
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1 - bn_decay_rate
    for parameter in body.parameters():
        parameter.requires_grad = not is_frozen
    return model


def set_training(model: faster_rcnn.FasterRCNN, *, is_frozen: bool) -> None:
    """To learn from images; a frozen encoder stays in inference mode."""
    model.train()
    if is_frozen:
        model.backbone.encoder.eval()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What is trained: all of it decays but the parameters of norms."""
    norms, others = [], []
    for module in model.modules():
        is_norm = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                (norms if is_norm else others).append(parameter)
    groups = [{"params": others, "weight_decay": weight_decay}]
    return groups + [{"params": norms, "weight_decay": 0.0}]


def to_image(pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """An image [3, H, W] in [0, 1] of pixels uint8 [H, W, 3]."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return image.permute(2, 0, 1).to(torch.float32) / 255
