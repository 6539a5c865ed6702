"""Floating-point operations of a training step by formula: two for every multiply-add.

Convolutions and linear layers are counted; everything else together is a few per cent of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from byol_jax.config import lookup
from byol_jax.models import microbatch, resnet


class Unit(NamedTuple):
    """A stem or a residual block, by operations for one image.

    Attributes:
      convs: of its convolutions in their order.
      shortcut: of the convolution beside them, if it has one.
      norm_is_first: batch norm comes before each convolution, not after it.
      outputs: numbers that its convolutions give for one image.
    """

    convs: tuple[int, ...]
    shortcut: int = 0
    norm_is_first: bool = False
    outputs: int = 0

    @property
    def once(self) -> int:
        """Of one pass through the unit."""
        return sum(self.convs) + self.shortcut

    def in_parts(self) -> int:
        """Of all passes that `microbatch.advance` makes of a batch in parts, forward."""
        ahead = 0 if self.norm_is_first else 1  # convolutions up to the first norm
        measured = sum(sum(self.convs[: i + ahead]) for i in range(len(self.convs)))
        return measured + (0 if self.norm_is_first else self.shortcut) + self.once


def encoder_units(
    encoder: str,
    *,
    image_size: int,
    stem: str,
    width_multiplier: int = 1,
    resnet_v2: bool = False,
    always_project: bool = True,
) -> list[Unit]:
    """The stem and the residual blocks of an encoder, for images of a size in pixels."""
    spec = lookup(resnet.ENCODERS, encoder, key="encoder")
    kernel, stride, max_pool, margin = lookup(resnet.STEMS, stem, key="stem")
    size = -(-image_size // stride) + 2 * margin  # rounded up, as both kinds of padding do
    channels = spec.stem_channels * width_multiplier
    units = [Unit((_conv(size, kernel, 3, channels),), outputs=size * size * channels)]
    size = -(-size // 2) if max_pool else size
    for out, blocks, stride in zip(spec.channels, spec.blocks, spec.strides, strict=True):
        out *= width_multiplier
        for block in range(blocks):
            step = 1 if block else stride
            projects = block == 0 and (always_project or step > 1 or channels != out)
            unit = _block(spec.bottleneck, size, step, channels, out, projects=projects)
            units.append(unit._replace(norm_is_first=resnet_v2))
            size, channels = -(-size // step), out
    return units


def _block(
    bottleneck: bool, size: int, stride: int, channels: int, out: int, *, projects: bool
) -> Unit:
    small = -(-size // stride)
    if bottleneck:
        inner = out // 4
        convs = (
            _conv(size, 1, channels, inner),
            _conv(small, 3, inner, inner),
            _conv(small, 1, inner, out),
        )
        outputs = size * size * inner + small * small * (inner + out)
    else:
        convs = (_conv(small, 3, channels, out), _conv(small, 3, out, out))
        outputs = 2 * small * small * out
    outputs += small * small * out if projects else 0
    return Unit(convs, _conv(small, 1, channels, out) if projects else 0, outputs=outputs)


def _conv(size: int, kernel: int, channels_in: int, channels_out: int) -> int:
    return 2 * size * size * kernel * kernel * channels_in * channels_out


def mlp(*sizes: int) -> int:
    """Of linear layers between these sizes."""
    return 2 * sum(a * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))


def step(
    units: Sequence[Unit],
    *,
    projector: int,
    predictor: int,
    plan: microbatch.Plan = microbatch.PLAIN,
    has_target: bool = True,
) -> int:
    """Of one image in a training step, both views and, if there is a target, both networks.

    A gradient costs as much again for the weights and for the inputs of a layer, but for the stem,
    whose input needs none. With `remat` blocks are passed once more, in parts several times.
    """
    once = sum(unit.once for unit in units)
    stem = units[0].once
    of_target = 1 if has_target else 0
    heads = 3 * (projector + predictor) + of_target * projector
    if plan.parts > 1:
        forward = sum(unit.in_parts() for unit in units)
        passes = 4 + of_target  # online: twice, and the gradient
        return 2 * (passes * forward - units[0].in_parts() + heads)
    online = 4 * once if plan.remat else 3 * once
    return 2 * (online - stem + of_target * once + heads)
