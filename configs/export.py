"""Hands an encoder over: files that other programs read, checked by reading them back.

    python -m byol_jax.main_loop --config=configs/export.py --config.checkpoint=RUN_OR_FILE

RUN_OR_FILE is whatever configs/knn.py takes: a run's workdir, one of its checkpoints/<step>, a .pkl
file of DeepMind's, a file of PyTorch's or of safetensors, or another export. Writes the workdir
whole or not at all: model.json says what is in it. Half a minute on 2 CPU cores for a ResNet-50.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The config; it has no presets."""
    config = ml_collections.ConfigDict()
    config.task = "export"
    config.preset = ""
    config.checkpoint = ""
    config.formats = "safetensors,torch,stablehlo"  # and onnx, detectron2: pip install '.[torch]'
    config.network = "online"  # online | target
    config.head = ""  # projector: what comes out is the projection, not the embedding
    # What a file that is not a run's does not say; unset: as it is, or the custom.
    config.image_size = config_dict.placeholder(int)
    config.mean = config_dict.placeholder(tuple)
    config.std = config_dict.placeholder(tuple)
    config.hub = ""  # OWNER/REPO of the Hugging Face Hub: written beside the workdir, and uploaded
    config.license = ""  # of its card, such as apache-2.0; empty: that of what it was made from
    return config
