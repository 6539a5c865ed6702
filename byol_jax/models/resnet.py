"""Residual encoders, from one table.

Names of modules, parameters and states equal those of DeepMind's reference implementation
(``res_net50/~/initial_conv``, ...). Shapes in comments: b images, H x W pixels, F embedding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.config import lookup
from byol_jax.models import convolution, microbatch, norms
from byol_jax.models.batch_norm import BatchNorm


class ResNetSpec(NamedTuple):
    """One residual network: an entry per block group, channels at width multiplier 1.

    Dilations are of the 3x3 convolutions of a group; empty: 1 everywhere.
    """

    module: str
    blocks: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...] = (1, 2, 2, 2)
    bottleneck: bool = False
    stem_channels: int = 64
    dilations: tuple[int, ...] = ()


_BASIC = (64, 128, 256, 512)
_BOTTLENECK = (256, 512, 1024, 2048)

ENCODERS: dict[str, ResNetSpec] = {
    "micro_resnet": ResNetSpec("micro_res_net", (1, 1), (48, 96), (1, 2), stem_channels=32),
    "tiny_resnet": ResNetSpec("tiny_res_net", (1, 1, 1, 1), (8, 8, 8, 8)),
    "resnet18": ResNetSpec("res_net18", (2, 2, 2, 2), _BASIC),
    "resnet34": ResNetSpec("res_net34", (3, 4, 6, 3), _BASIC),
    "resnet50": ResNetSpec("res_net50", (3, 4, 6, 3), _BOTTLENECK, bottleneck=True),
    "resnet101": ResNetSpec("res_net101", (3, 4, 23, 3), _BOTTLENECK, bottleneck=True),
    "resnet152": ResNetSpec("res_net152", (3, 8, 36, 3), _BOTTLENECK, bottleneck=True),
    "resnet200": ResNetSpec("res_net200", (3, 24, 36, 3), _BOTTLENECK, bottleneck=True),
}


class Stem(NamedTuple):
    """What comes before the first block group: a convolution and perhaps a max-pool.

    A margin is padding on every side besides what keeps the size; only with stride 1.
    """

    kernel: int
    stride: int
    max_pool: bool
    margin: int = 0


STEMS = {
    "imagenet": Stem(7, 2, True),
    "cifar": Stem(3, 1, False),
    "cifar_margin": Stem(3, 1, False, margin=1),  # solo-learn's
    "patch": Stem(5, 4, False),
}

PADDINGS: dict[
    str, Callable[[int], convolution.Pads]
] = {  # from the kernel's size to its spatial padding
    "same": lambda kernel: "SAME",
    "torch": lambda kernel: [((kernel - 1) // 2,) * 2] * 2,
}


class Layers(NamedTuple):
    """Choices that all layers of a network share, and how to build layers with them."""

    pads: Callable[[int], convolution.Pads]
    bottleneck: bool
    resnet_v2: bool
    zero_init_residual: bool
    bn_decay_rate: float
    bn_eps: float
    axis: str | None
    bn_groups: Sequence[Sequence[int]] | None = None
    plan: microbatch.Plan = microbatch.PLAIN
    always_project: bool = True  # in the first block of a group, even if shapes agree
    norm_spec: norms.NormSpec = norms.BATCH_NORM

    def conv(
        self,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        name: str,
        margin: int = 0,
        dilation: int = 1,
    ) -> convolution.Conv2D:
        """A convolution, without bias where a norm follows."""
        reach = (kernel - 1) * dilation + 1
        pads = [(kernel // 2 + margin,) * 2] * 2 if margin else self.pads(reach)
        conv = norms.StandardizedConv if self.norm_spec.standardizes else convolution.Conv2D
        options = {"stride": stride, "dilation": dilation, "pads": pads, "name": name}
        return conv(channels, kernel, with_bias=self.norm_spec.kind == "none", **options)

    def norm(self, name: str, *, zero_scale: bool = False) -> microbatch.Norm:
        """A norm of the kind chosen, which its name says in place of "batch".

        Of batch norm, moments of the batch are averaged over `axis`, if there is one.
        """
        if self.norm_spec.kind != "batch":
            return norms.make(self.norm_spec, name, eps=self.bn_eps, zero_scale=zero_scale)
        return BatchNorm(
            decay_rate=self.bn_decay_rate,
            eps=self.bn_eps,
            zero_scale=zero_scale,
            axis=self.axis,
            groups=self.bn_groups,
            name=name,
        )

    def max_pool(self, x: jax.Array) -> jax.Array:
        """3x3 maximum with stride 2."""
        return convolution.max_pool(x, kernel=3, stride=2, pads=self.pads(3))


class ResidualBlock(hk.Module):
    """Basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) block, normalized after or before.

    Version 1 normalizes after each convolution (He et al. 2015, arXiv:1512.03385), version 2
    before it (He et al. 2016, arXiv:1603.05027).
    """

    def __init__(
        self,
        channels: int,
        *,
        stride: int,
        dilation: int,
        projects: bool,
        layers: Layers,
        name: str,
    ):
        super().__init__(name=name)
        self._resnet_v2, self._plan = layers.resnet_v2, layers.plan
        inner = channels // 4
        if layers.bottleneck:  # channels, kernel, stride
            shapes = [(inner, 1, 1), (inner, 3, stride), (channels, 1, 1)]
        else:
            shapes = [(channels, 3, stride), (channels, 3, 1)]
        # The reference starts only this scale at zero: not in basic blocks, not in version 2.
        zero = layers.zero_init_residual and layers.bottleneck and not layers.resnet_v2
        self._pairs = [
            (
                layers.conv(c, k, stride=s, name=f"conv_{i}", dilation=dilation),
                layers.norm(f"batchnorm_{i}", zero_scale=zero and i == 2),
            )
            for i, (c, k, s) in enumerate(shapes)
        ]
        self._shortcut_conv = self._shortcut_norm = None
        if projects:
            self._shortcut_conv = layers.conv(channels, 1, stride=stride, name="shortcut_conv")
            self._shortcut_norm = None if self._resnet_v2 else layers.norm("shortcut_batchnorm")

    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        passes = [[norm] for _, norm in self._pairs]
        if self._shortcut_norm is not None:
            passes[0] = [self._shortcut_norm, *passes[0]]
        unit = self._version_2 if self._resnet_v2 else self._version_1
        return microbatch.advance(unit, x, passes, is_training=is_training, plan=self._plan)

    def _version_1(self, x: jax.Array, normalize: microbatch.Normalize) -> jax.Array:
        shortcut = x
        if self._shortcut_conv is not None:
            shortcut = normalize(self._shortcut_norm, self._shortcut_conv(x))
        for i, (conv, norm) in enumerate(self._pairs):
            x = normalize(norm, conv(jax.nn.relu(x) if i else x))
        return jax.nn.relu(x + shortcut)

    def _version_2(self, x: jax.Array, normalize: microbatch.Normalize) -> jax.Array:
        shortcut = x
        for i, (conv, norm) in enumerate(self._pairs):
            x = jax.nn.relu(normalize(norm, x))
            if i == 0 and self._shortcut_conv is not None:
                shortcut = self._shortcut_conv(x)
            x = conv(x)
        return x + shortcut


class BlockGroup(hk.Module):
    """The residual blocks of one resolution, which the first one reaches with its stride."""

    def __init__(
        self,
        channels: int,
        *,
        blocks: int,
        stride: int,
        dilation: int,
        projects: bool,
        layers: Layers,
        name: str,
    ):
        super().__init__(name=name)
        self._blocks = [
            ResidualBlock(
                channels,
                stride=1 if i else stride,
                dilation=dilation,
                projects=projects and i == 0,
                layers=layers,
                name=f"block_{i}",
            )
            for i in range(blocks)
        ]

    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        for block in self._blocks:
            x = block(x, is_training)
        return x


class ResNet(hk.Module):
    """Residual encoder: stem, block groups, mean over the pixels."""

    def __init__(self, spec: ResNetSpec, width_multiplier: int, stem: Stem, *, layers: Layers):
        super().__init__(name=spec.module)
        self._initial_conv = layers.conv(
            spec.stem_channels * width_multiplier,
            stem.kernel,
            stride=stem.stride,
            name="initial_conv",
            margin=stem.margin,
        )
        # Blocks of version 2 normalize their input, so that only the last sum is left over.
        self._initial_norm = None if layers.resnet_v2 else layers.norm("initial_batchnorm")
        self._final_norm = layers.norm("final_batchnorm") if layers.resnet_v2 else None
        self._max_pool = layers.max_pool if stem.max_pool else None
        self._plan = layers.plan
        before = (spec.stem_channels, *spec.channels)
        dilations = spec.dilations or (1,) * len(spec.blocks)
        groups = zip(spec.channels, spec.blocks, spec.strides, dilations, before[:-1], strict=True)
        self._groups = [
            BlockGroup(
                c * width_multiplier,
                blocks=b,
                stride=s,
                dilation=d,
                projects=layers.always_project or s > 1 or c != c_before,
                layers=layers,
                name=f"block_group_{i}",
            )
            for i, (c, b, s, d, c_before) in enumerate(groups)
        ]

    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        return pool(self.maps(x, is_training)[-1])  # [b, F]

    def maps(self, x: jax.Array, is_training: bool) -> tuple[jax.Array, ...]:
        """What comes out of each block group [b, h, w, channels], the finest first."""
        passes = [] if self._initial_norm is None else [[self._initial_norm]]
        x = microbatch.advance(self._stem, x, passes, is_training=is_training, plan=self._plan)
        found = []
        for group in self._groups:
            x = group(x, is_training)
            found.append(x)
        if self._final_norm is not None:
            found[-1] = jax.nn.relu(self._final_norm(x, is_training))
        return tuple(found)

    def _stem(self, x: jax.Array, normalize: microbatch.Normalize) -> jax.Array:
        x = self._initial_conv(x)  # [b, H, W, 3] -> [b, H', W', stem channels]
        if self._initial_norm is not None:
            x = jax.nn.relu(normalize(self._initial_norm, x))
        return x if self._max_pool is None else self._max_pool(x)


def normalized_channels(encoder: str, *, width_multiplier: int = 1) -> list[int]:
    """How many channels the norms of an encoder have; ValueError if there is no such encoder."""
    spec = lookup(ENCODERS, encoder, key="encoder")
    inner = [channels // 4 for channels in spec.channels] if spec.bottleneck else []
    found = {spec.stem_channels, *spec.channels, *inner}
    return sorted(width_multiplier * channels for channels in found)


def pool(x: jax.Array) -> jax.Array:
    """Mean [b, C] over the pixels of maps [b, h, w, C]."""
    return jnp.mean(x, axis=(1, 2))


def embedding_size(encoder: str, *, width_multiplier: int = 1) -> int:
    """Size F of an encoder's embedding; ValueError if `ENCODERS` has no such encoder."""
    return lookup(ENCODERS, encoder, key="encoder").channels[-1] * width_multiplier
