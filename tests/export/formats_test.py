"""Which networks a format can hold."""

import pytest

from byol_jax.config import UsageError
from byol_jax.export import formats
from byol_jax.models import byol_network, encoder_spec, norms

PLAIN = encoder_spec.EncoderSpec("micro_resnet")
HEAD = byol_network.HeadSpec(16, 8)
OTHERS = {
    "group norm": (PLAIN._replace(norm="group"), None),
    "standardized": (PLAIN._replace(weight_standardization=True), None),
    "deep head": (PLAIN, HEAD._replace(hidden_layers=2)),
    "bias": (PLAIN, HEAD._replace(has_bias=True)),
    "norm of the head": (PLAIN, HEAD._replace(norm=norms.NormSpec("layer"))),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_layers_are_refused_for_torch_by_the_formats_that_hold_them(case):
    formats.require_writable(["safetensors", "stablehlo"], *OTHERS[case])
    for name in ("torch", "onnx"):
        with pytest.raises(UsageError, match=f"^{name}: .*formats=safetensors,stablehlo"):
            formats.require_writable(["safetensors", name], *OTHERS[case])


@pytest.mark.parametrize("head", [None, HEAD])
def test_the_references_network_fits_every_format_but_detectron2s(head):
    formats.require_writable(
        [name for name in formats.FORMATS if name != "detectron2"], PLAIN, head
    )
