"""Says what a run will take before it is started: time, computation, memory, disk. Writes nothing.

    python -m byol_jax.main_loop --config=configs/estimate.py:PRESET [--config.data.dir=...]

PRESET is one of configs/byol.py, whose keys can be overridden here too. A step is compiled, and
measured for about ten seconds with its input; for named GPUs and TPUs the time follows from the
operations of a step and from the bytes that it moves. With the preset folder, a table shows what
would be trained in 10 minutes, 1 hour and 8 hours.
"""

import pathlib

import ml_collections

from byol_jax import config as config_lib

BYOL = pathlib.Path(__file__).with_name("byol.py")  # beside it, wherever that is


def get_config(preset: str = "patterns") -> ml_collections.ConfigDict:
    """The config of a preset of configs/byol.py, to be estimated."""
    config = config_lib.load_file(BYOL).get_config(preset)
    config.task = "estimate"
    config.preset = preset
    config.estimate = ml_collections.ConfigDict()
    config.estimate.seconds = 10.0  # in which steps are measured
    return config
