"""What an encoder is, apart from its numbers: enough to build it and to feed it.

A run knows this from its config, an export from its ``model.json``, and of other people's files it
is recognized from the names and shapes of the parameters.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import haiku as hk
import jax
import numpy as np

from byol_jax import config as config_lib
from byol_jax.models import byol_network, norms, resnet

UsageError = config_lib.UsageError

PROJECTOR = byol_network.HeadSpec(4096, 256)
HEADS = ("projector", "predictor", "classifier", "objective")
# Nobody writes into a file of weights what images it was made for: the customs of the stems.
IMAGE_SIZES = {"imagenet": 224, "cifar": 32, "cifar_margin": 32, "patch": 32}
SMALL_ENCODERS = ("tiny_resnet", "micro_resnet")  # only ever used at 32 px


class Network(NamedTuple):
    """The numbers of a network.

    Attributes:
      params: of the encoder and of those heads that there are.
      state: running batch-norm statistics.
    """

    params: Any
    state: Any


class EncoderSpec(NamedTuple):
    """How to build an encoder.

    Attributes:
      encoder: a key of `resnet.ENCODERS`.
      width_multiplier: of all channels.
      resnet_v2: pre-activation blocks.
      stem: a key of `resnet.STEMS`.
      padding: a key of `resnet.PADDINGS`.
      bn_decay_rate: of the running batch-norm statistics.
      bn_eps: of batch norm.
      mean: of the channels, in [0, 1]; images are normalized with it.
      std: standard deviation of the channels.
      image_size: height and width that it was trained for, in pixels.
      zero_init_residual: how an untrained network of this kind starts.
      grey_ranges: what is black and white in grayscale of more than 8 bits, as it was trained.
      norm: one of `norms.KINDS`.
      norm_groups: of a group norm.
      weight_standardization: of convolutions.
    """

    encoder: str
    width_multiplier: int = 1
    resnet_v2: bool = False
    stem: str = "imagenet"
    padding: str = "same"
    bn_decay_rate: float = 0.9
    bn_eps: float = 1e-5
    mean: tuple[float, ...] = byol_network.IMAGENET_MEAN
    std: tuple[float, ...] = byol_network.IMAGENET_STD
    image_size: int = 224
    zero_init_residual: bool = True
    grey_ranges: Mapping[str, tuple[float, float]] | None = None
    norm: str = "batch"
    norm_groups: int = 16
    weight_standardization: bool = False

    @property
    def norm_spec(self) -> norms.NormSpec:
        """Of all layers."""
        return norms.NormSpec(self.norm, self.norm_groups, self.weight_standardization)


# What settings, specs and `byol_network.make_forward` call by the same names.
_OF_MODEL = (
    *("encoder", "width_multiplier", "resnet_v2", "stem", "padding"),
    *("bn_decay_rate", "bn_eps", "zero_init_residual"),
)
_OF_NORM = ("norm", "norm_groups", "weight_standardization")


def of_run(
    model: Any,
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    grey_ranges: Mapping[str, tuple[float, float]] | None = None,
) -> EncoderSpec:
    """The spec of the encoder of a run.

    Args:
      model: its settings of the networks, or the section ``model`` of its config.
      image_size: that it is trained at.
      mean: of the channels.
      std: of the channels.
      grey_ranges: what is black and white in its images of more than 8 bits.
    """
    return EncoderSpec(
        **{name: getattr(model, name) for name in (*_OF_MODEL, *_OF_NORM)},
        mean=mean,
        std=std,
        image_size=image_size,
        grey_ranges=grey_ranges,
    )


def projector_of_run(model: Any) -> byol_network.HeadSpec:
    """The projector of a run, of its settings of the networks, or the section of its config."""
    return byol_network.HeadSpec(
        model.projector_hidden_size,
        model.projector_output_size,
        model.projector_hidden_layers,
        model.head_bias,
        norms.NormSpec(model.head_norm, model.norm_groups, model.weight_standardization),
        model.projector_output_norm,
    )


def make_forward(
    card: EncoderSpec,
    *,
    projector: byol_network.HeadSpec = PROJECTOR,
    num_classes: int = 0,
    **options: Any,
) -> hk.TransformedWithState:
    """The network of a spec: the one way to make it from what is stored of an encoder or a run.

    Args:
      card: of the encoder.
      projector: of no account for ``part="encoder"``; norm and bias are those of both heads.
      num_classes: of a linear classifier; 0 for none.
      options: what `byol_network.make_forward` takes besides, such as ``axis`` or
        ``output_stride``.
    """
    return byol_network.make_forward(
        **{name: getattr(card, name) for name in _OF_MODEL},
        mean=card.mean,
        std=card.std,
        num_classes=num_classes,
        norm=card.norm_spec,
        projector_hidden_size=projector.hidden_size,
        projector_output_size=projector.output_size,
        projector_hidden_layers=projector.hidden_layers,
        head_bias=projector.has_bias,
        head_norm=projector.norm,
        projector_output_norm=projector.output_norm,
        **options,
    )


def make_layers(card: EncoderSpec, *, axis: str | None) -> resnet.Layers:
    """How a head on an encoder builds its layers, with the encoder's padding and batch norm.

    Args:
      card: of the encoder.
      axis: over which batch statistics are averaged.
    """
    pads = resnet.PADDINGS[card.padding]
    return resnet.Layers(pads, False, False, False, card.bn_decay_rate, card.bn_eps, axis)


def shapes(card: EncoderSpec) -> tuple[Any, Any]:
    """Shapes of the encoder's parameters and state, module by module."""
    forward = make_forward(card)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), np.float32)

    def init(key: jax.Array, images: jax.Array) -> tuple[Any, Any]:
        return forward.init(key, images, is_training=True, part="encoder")

    return jax.eval_shape(init, jax.random.key(0), images)


def encoder_modules(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The modules of a network that are not its heads'."""
    return {name: leaves for name, leaves in tree.items() if name.split("/")[0] not in HEADS}


def recognize(params: Mapping[str, Mapping[str, Any]], *, padding: str) -> EncoderSpec:
    """The card of an encoder, from its parameters (or their shapes) by Haiku's names.

    Image size and normalization cannot be seen: those are the customary ones.

    Raises:
      UsageError: there is no encoder among the parameters, or none of ours.
    """
    roots = {module.split("/")[0] for module in encoder_modules(params)}
    known = {spec.module: name for name, spec in resnet.ENCODERS.items()}
    if len(roots) != 1 or not roots <= set(known):
        found = ", ".join(sorted(module.split("/")[0] for module in params)[:3]) or "nothing"
        raise UsageError(
            f"holds no encoder that is known here (it has {', '.join(sorted(roots)) or found}); "
            f"known are {', '.join(sorted(known))}."
        )
    root = roots.pop()
    spec = resnet.ENCODERS[known[root]]
    try:
        kernel, _, _, channels = params[f"{root}/~/initial_conv"]["w"].shape
    except (KeyError, ValueError):
        raise UsageError("holds an encoder without its first convolution.") from None
    stems = stems_by_kernel()
    if kernel not in stems or channels % spec.stem_channels:
        raise UsageError(f"has a first convolution of {kernel} px and {channels} channels.")
    stem = stems[kernel]
    return EncoderSpec(
        known[root],
        width_multiplier=channels // spec.stem_channels,
        resnet_v2=f"{root}/~/initial_batchnorm" not in params,
        stem=stem,
        padding=padding,
        image_size=32 if known[root] in SMALL_ENCODERS else IMAGE_SIZES[stem],
    )


def stems_by_kernel() -> dict[int, str]:
    """Which stem a first convolution of a size is of, where a margin cannot be seen."""
    return {stem.kernel: name for name, stem in resnet.STEMS.items() if not stem.margin}


def require_encoder(card: EncoderSpec, params: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Checks that nothing of the encoder is missing, too much, or of another shape.

    Raises:
      UsageError: names the first difference.
    """
    for found, built in zip((params, state), shapes(card), strict=True):
        ours, theirs = (_flat(encoder_modules(tree)) for tree in (built, found))
        if ours != theirs:
            key = min(key for key, _ in ours.items() ^ theirs.items())
            held, wanted = (tree.get(key, "nothing") for tree in (theirs, ours))
            raise UsageError(
                f"looks like {card.encoder}, but holds {held} at {key} where {wanted} belongs."
            )


def _flat(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    return {
        f"{module}/{name}": tuple(leaf.shape)
        for module, leaves in tree.items()
        for name, leaf in leaves.items()
    }
