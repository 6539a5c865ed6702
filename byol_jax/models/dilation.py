"""How coarse an encoder's last map is, and how dilation makes it finer."""

import math

from byol_jax.models import resnet


def output_stride(spec: resnet.ResNetSpec, stem: resnet.Stem) -> int:
    """Pixels of the image between neighboring cells of the last map."""
    return stem.stride * (2 if stem.max_pool else 1) * math.prod(spec.strides)


def dilated(spec: resnet.ResNetSpec, stem: resnet.Stem, stride: int) -> resnet.ResNetSpec:
    """The same network with finer last maps: strides of the last groups become dilations.

    Parameters keep their shapes. All blocks of such a group are dilated, the first, too.

    Args:
      spec: of the network.
      stem: of the network.
      stride: `output_stride` of what is returned.

    Raises:
      ValueError: no number of groups gives this stride; lists those that some do.
    """
    strides, dilations = list(spec.strides), [1] * len(spec.strides)
    found = {output_stride(spec, stem): spec}
    for group in reversed(range(len(strides))):
        dilations[group:] = [d * strides[group] for d in dilations[group:]]
        strides[group] = 1
        finer = spec._replace(strides=tuple(strides), dilations=tuple(dilations))
        found.setdefault(output_stride(finer, stem), finer)
    if stride not in found:
        raise ValueError(f"output stride {stride} is none of {', '.join(map(str, found))}")
    return found[stride]
