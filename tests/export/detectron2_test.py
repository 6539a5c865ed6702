"""detectron2's names and shapes, from a table of its R50-C4 that was written by hand."""

import numpy as np
import pytest
import yaml

from byol_jax.config import UsageError
from byol_jax.export import detectron2, formats, torch_export
from byol_jax.models import byol_network, encoder_spec

CARD = encoder_spec.EncoderSpec("resnet50", padding="torch")
# Group, its place, blocks, channels before it, inside of a block, and after it.
GROUPS = (
    ("res2", "backbone", 3, 64, 64, 256),
    ("res3", "backbone", 4, 256, 128, 512),
    ("res4", "backbone", 6, 512, 256, 1024),
    ("res5", "roi_heads", 3, 1024, 512, 2048),
)


def layer(name, *shape):
    """A convolution without bias, and the batch norm in it."""
    yield f"{name}.weight", shape
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.norm.{part}", shape[:1]
    yield f"{name}.norm.num_batches_tracked", None


def table():
    yield from layer("backbone.stem.conv1", 64, 3, 7, 7)
    for group, place, blocks, before, inside, after in GROUPS:
        for block in range(blocks):
            prefix, given = f"{place}.{group}.{block}", after if block else before
            if not block:
                yield from layer(f"{prefix}.shortcut", after, given, 1, 1)
            yield from layer(f"{prefix}.conv1", inside, given, 1, 1)
            yield from layer(f"{prefix}.conv2", inside, inside, 3, 3)
            yield from layer(f"{prefix}.conv3", after, inside, 1, 1)


def zeros(tree):
    return {
        module: {name: np.zeros(leaf.shape, np.float32) for name, leaf in leaves.items()}
        for module, leaves in tree.items()
    }


def test_names_and_shapes_are_those_of_r50_c4():
    found = detectron2.tensors_of(*map(zeros, encoder_spec.shapes(CARD)))
    shapes = {key: x.shape for key, x in found.items() if not key.endswith("_tracked")}
    assert shapes == {key: shape for key, shape in table() if shape is not None}
    assert {key for key, _ in table()} >= set(found)


def test_the_config_is_one_of_rgb_images_from_0_to_255(tmp_path):
    detectron2.write_config(tmp_path, CARD._replace(mean=(0.5, 0.4, 0.2), std=(1.0, 0.5, 0.1)))
    config = yaml.safe_load((tmp_path / detectron2.CONFIG).read_text())
    assert config["MODEL"]["PIXEL_MEAN"] == [127.5, 102.0, 51.0]
    assert config["MODEL"]["PIXEL_STD"] == [255.0, 127.5, 25.5]
    assert config["INPUT"]["FORMAT"] == "RGB" and config["MODEL"]["RESNETS"]["DEPTH"] == 50
    assert config["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] is False


REFUSED = {
    "basic blocks": CARD._replace(encoder="resnet18"),
    "stem": CARD._replace(stem="cifar"),
    "width": CARD._replace(width_multiplier=2),
    "version": CARD._replace(resnet_v2=True),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_that_detectron2_lacks_is_refused(case, monkeypatch):
    monkeypatch.setattr(torch_export, "has", lambda *_: True)
    formats.require_writable(["detectron2"], CARD, None)
    with pytest.raises(UsageError, match="detectron2 has no such network"):
        formats.require_writable(["detectron2"], REFUSED[case], None)


def test_a_projector_and_a_missing_pytorch_are_refused(monkeypatch):
    with pytest.raises(UsageError, match="no projector"):
        formats.require_writable(["detectron2"], CARD, byol_network.HeadSpec(8, 4))
    monkeypatch.setattr(torch_export, "has", lambda *_: False)
    with pytest.raises(UsageError, match="pip install torch"):
        formats.require_writable(["detectron2"], CARD, None)
