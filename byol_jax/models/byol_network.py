"""BYOL's network: an encoder, its MLP heads, and the one forward function that joins them.

Module, parameter and state names equal those of DeepMind's reference implementation
(``res_net50/~/initial_conv``, ``projector/linear``, ...), so that its checkpoints can be used as
they are. Shapes in comments: b images, F embedding, P projection, C classes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.config import lookup
from byol_jax.models import batch_norm, dilation, microbatch, norms, resnet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Part = Literal["online", "target", "encoder", "maps"]
PREDICTORS = ("mlp", "linear", "none")
# Batch norm at the end of the projector, by what it learns: scale, offset.
OUTPUT_NORMS = {"none": None, "batch_scale": (True, False), "batch_plain": (False, False)}


class Outputs(NamedTuple):
    """What one forward pass gives; None where `part` stops before it."""

    embedding: jax.Array  # [b, F]
    projection: jax.Array | None = None  # [b, P]
    prediction: jax.Array | None = None  # [b, P]
    logits: jax.Array | None = None  # [b, C]
    maps: tuple[jax.Array, ...] | None = None  # [b, h, w, channels] of each block group


class HeadSpec(NamedTuple):
    """A projector or predictor.

    Attributes:
      hidden_size: of each hidden layer.
      output_size: P.
      hidden_layers: how many; without any, the head is linear.
      has_bias: whether its last layer has one.
      norm: of the hidden layers.
      output_norm: a key of `OUTPUT_NORMS`.
    """

    hidden_size: int
    output_size: int
    hidden_layers: int = 1
    has_bias: bool = False
    norm: norms.NormSpec = norms.BATCH_NORM
    output_norm: str = "none"


class MLP(hk.Module):
    """Projector or predictor: Linear, norm, ReLU, as often as it has hidden layers, then Linear.

    The reference's have one, batch norm and a last layer without bias (paper, section 3.3; the
    pseudo-code of appendix J.2 has one with bias).
    """

    def __init__(self, spec: HeadSpec, *, layers: resnet.Layers, name: str):
        super().__init__(name=name)
        self._spec = spec
        self._layers = layers._replace(norm_spec=spec.norm)

    def __call__(self, x: jax.Array, is_training: bool) -> jax.Array:
        # Built here, not in __init__, where Haiku would put "~" into the parameters' names; of
        # several of one name it calls the second linear_1.
        spec = self._spec
        hidden = norms.StandardizedLinear if spec.norm.standardizes else hk.Linear
        for _ in range(spec.hidden_layers):
            x = hidden(spec.hidden_size, name="linear")(x)
            x = jax.nn.relu(self._layers.norm("batch_norm")(x, is_training))
        x = hk.Linear(spec.output_size, with_bias=spec.has_bias, name="linear")(x)
        learned = OUTPUT_NORMS[spec.output_norm]
        return x if learned is None else self._output_norm(*learned)(x, is_training)

    def _output_norm(self, has_scale: bool, has_offset: bool) -> batch_norm.BatchNorm:
        layers = self._layers
        return batch_norm.BatchNorm(
            decay_rate=layers.bn_decay_rate,
            eps=layers.bn_eps,
            zero_scale=False,
            axis=layers.axis,
            groups=layers.bn_groups,
            name="output_norm",
            has_scale=has_scale,
            has_offset=has_offset,
        )


def make_forward(
    encoder: str,
    *,
    num_classes: int,
    width_multiplier: int = 1,
    resnet_v2: bool = False,
    stem: str = "imagenet",
    zero_init_residual: bool = False,
    padding: str = "same",
    projector_hidden_size: int = 4096,
    projector_output_size: int = 256,
    predictor_hidden_size: int = 4096,
    projector_hidden_layers: int = 1,
    predictor_hidden_layers: int = 1,
    predictor: str = "mlp",
    projector_output_norm: str = "none",
    head_bias: bool = False,
    norm: norms.NormSpec = norms.BATCH_NORM,
    head_norm: norms.NormSpec = norms.BATCH_NORM,
    bn_decay_rate: float = 0.9,
    bn_eps: float = 1e-5,
    bn_groups: Sequence[Sequence[int]] | None = None,
    dtype: str | None = None,
    plan: microbatch.Plan = microbatch.PLAIN,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    axis: str | None = None,
    output_stride: int | None = None,
) -> hk.TransformedWithState:
    """Builds BYOL's network: encoder, projector, predictor, and a linear classifier.

    The result's ``apply(params, state, rng, images, is_training, part="online")`` takes one view,
    float images [b, H, W, 3] in [0, 1], and gives ``(Outputs, new state)``; ``rng`` may be None.
    Calling it for view 1, then for view 2 with the new state, is what the reference does: batch
    statistics of each view, running ones that move twice. ``part`` is "online" (everything),
    "target" (embedding and projection), "encoder" (embedding only) or "maps" (that and the maps of
    every block group); parameters of what is left out need not be there. The classifier sees a
    stop-gradient embedding.

    Args:
      encoder: a key of `resnet.ENCODERS`; `width_multiplier` scales the channels of all its layers.
      num_classes: number of classes C of the classifier; 0 for none.
      resnet_v2: pre-activation blocks.
      stem: a key of `resnet.STEMS`.
      zero_init_residual: start the last batch norm of every bottleneck block of version 1 at
        scale 0, as the reference's code does; the paper's results used 1 (False).
      padding: "same" is TensorFlow's, one pixel more at the right and bottom if need be; "torch"
        is (kernel - 1) // 2 on every side, as in torchvision's ResNets, whose shortcuts project
        only where shapes differ: in the reference's the first block of a group always does.
      projector_output_size: size P of projection and prediction.
      projector_hidden_layers: number of hidden layers; without any, a head is linear.
      predictor: one of `PREDICTORS`; without one, the prediction is the projection.
      projector_output_norm: a key of `OUTPUT_NORMS`.
      head_bias: whether the last layers of the heads have one.
      norm: of the encoder; `head_norm` is that of the heads.
      bn_groups: positions on the axis that average batch statistics among themselves; None: all.
      dtype: in which convolutions and linear layers compute, such as "bfloat16"; parameters, batch
        norm and what comes out stay float32. None: the type of the parameters.
      plan: how to save memory in training.
      mean: subtracted from the images, one number a channel; `std` divides them after that.
      axis: name of the mapped axis over which batch statistics are averaged; None: local ones.
      output_stride: of the last map, finer than usual by dilation; see `dilation.dilated`.

    Raises:
      ValueError: if encoder, stem, padding, norm, predictor or output stride is unknown; names the
        valid ones.
    """
    spec = lookup(resnet.ENCODERS, encoder, key="encoder")
    stem_spec, pads = (
        lookup(resnet.STEMS, stem, key="stem"),
        lookup(resnet.PADDINGS, padding, key="padding"),
    )
    for chosen in (norm, head_norm):
        lookup(dict.fromkeys(norms.KINDS), chosen.kind, key="norm")
    if output_stride is not None:
        spec = dilation.dilated(spec, stem_spec, output_stride)
    layers = resnet.Layers(
        pads,
        spec.bottleneck,
        resnet_v2,
        zero_init_residual,
        bn_decay_rate,
        bn_eps,
        axis,
        bn_groups,
        plan,
        always_project=padding != "torch",
        norm_spec=norm,
    )
    lookup(dict.fromkeys(PREDICTORS), predictor, key="predictor")
    sizes = projector_hidden_size, projector_output_size, projector_hidden_layers
    lookup(OUTPUT_NORMS, projector_output_norm, key="projector_output_norm")
    projector_spec = HeadSpec(*sizes, head_bias, head_norm, projector_output_norm)
    predictor_spec = projector_spec._replace(
        output_norm="none",
        hidden_size=predictor_hidden_size,
        hidden_layers=predictor_hidden_layers if predictor == "mlp" else 0,
    )
    mlp = functools.partial(MLP, layers=layers)
    forward = functools.partial(
        _forward,
        normalize=functools.partial(_normalize, mean=mean, std=std),
        make_encoder=functools.partial(
            resnet.ResNet, spec, width_multiplier, stem_spec, layers=layers
        ),
        make_projector=functools.partial(mlp, projector_spec, name="projector"),
        make_predictor=None
        if predictor == "none"
        else functools.partial(mlp, predictor_spec, name="predictor"),
        make_classifier=functools.partial(hk.Linear, num_classes, name="classifier")
        if num_classes
        else None,
    )
    return hk.transform_with_state(_computing_in(dtype, forward) if dtype else forward)


def _computing_in(dtype: str, forward: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """The same function with weights and images rounded to a type of fewer bits."""

    def round_weights(get: Callable[..., jax.Array], value: jax.Array, context: Any) -> jax.Array:
        value = get(value)
        return value.astype(dtype) if context.name in ("w", "b") else value

    def rounded(images: jax.Array, is_training: bool, *, part: Part = "online") -> Outputs:
        if hk.running_init():  # parameters are float32
            return forward(images, is_training, part=part)
        with hk.custom_getter(round_weights):
            outputs = forward(images, is_training, part=part, dtype=dtype)
        return jax.tree.map(lambda x: x.astype(jnp.float32), outputs)

    return rounded


def _forward(
    images: jax.Array,
    is_training: bool,
    *,
    part: Part = "online",
    dtype: str | None = None,
    normalize: Callable[[jax.Array], jax.Array],
    make_encoder: Callable[[], resnet.ResNet],
    make_projector: Callable[[], MLP],
    make_predictor: Callable[[], MLP] | None,
    make_classifier: Callable[[], hk.Linear] | None,
) -> Outputs:
    """One pass of one view; builds only the modules that `part` needs."""
    if part not in get_args(Part):
        raise ValueError(f"Unknown part: {part!r}. Valid: {', '.join(get_args(Part))}.")
    # Haiku creates the running statistics in training mode only, so initialize in that mode.
    is_training = is_training or hk.running_init()
    images = normalize(images)
    images = images.astype(dtype or images.dtype)
    if part == "maps":
        maps = make_encoder().maps(images, is_training)
        return Outputs(resnet.pool(maps[-1]), maps=maps)
    embedding = make_encoder()(images, is_training)
    if part == "encoder":
        return Outputs(embedding)
    projection = make_projector()(embedding, is_training)
    if part == "target":
        return Outputs(embedding, projection)
    prediction = make_predictor()(projection, is_training) if make_predictor else projection
    if make_classifier is None:
        return Outputs(embedding, projection, prediction)
    logits = make_classifier()(jax.lax.stop_gradient(embedding))
    return Outputs(embedding, projection, prediction, logits)


def _normalize(images: jax.Array, *, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Standardizes the channels of images in [0, 1]."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images are {images.dtype}: give floats in [0, 1], uint8 / 255")
    return (images - np.asarray(mean, images.dtype)) / np.asarray(std, images.dtype)
