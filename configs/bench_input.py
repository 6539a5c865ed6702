"""How fast is the input, and is it fast enough for the encoder?

    python -m byol_jax.main_loop --config=configs/bench_input.py:PRESET [--config.data.dir=...]

PRESET is one of configs/byol.py, whose keys can be overridden here too. Images a second are
measured stage by stage on one thread (read, decode, crop, batch), then for the whole pipeline,
then for the training step. Takes about ten seconds and the compilation of the step. On a CPU the
step is measured on 16 images a device. Writes result.json.
"""

import pathlib

import ml_collections
from ml_collections import config_dict

from byol_jax import config as config_lib

BYOL = pathlib.Path(__file__).with_name("byol.py")  # beside it, wherever that is


def get_config(preset: str = "patterns") -> ml_collections.ConfigDict:
    """The config of a preset of configs/byol.py, to be measured."""
    config = config_lib.load_file(BYOL).get_config(preset)
    config.task = "bench_input"
    config.bench = ml_collections.ConfigDict()
    config.bench.seconds = 5.0  # for the pipeline, and again for the step
    config.bench.step = True  # whether to measure the training step too
    config.bench.step_batch_size = config_dict.placeholder(int)  # of all devices together
    return config
