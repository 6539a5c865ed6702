"""Four fake CPU devices for every test, and quick compilation, set before JAX starts."""

import os
import pathlib

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
# Nearly all time goes into compiling; without LLVM's optimizations that takes half as long.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"


def make_config(**overrides):
    """The default config, cut down to a few steps on small networks; keys may have dots."""
    from configs import byol

    config = byol.get_config()
    small = {
        "batch_size": 8,
        "total_steps": 4,
        "log_every_steps": 1,
        "checkpoint_every_steps": 2,
        "probe.every_steps": 2,
        "probe.max_images": 100,
        "model.projector_hidden_size": 16,
        "model.projector_output_size": 8,
        "model.predictor_hidden_size": 16,
    }
    config.update_from_flattened_dict(small | overrides)
    return config


def make_settings(num_images=640, **overrides):
    """The settings of `make_config` for a training set of a size."""
    from byol_jax.training import settings

    return settings.resolve(make_config(**overrides), num_images=num_images)


def final_state(folder, config):
    """The newest checkpoint of a run, on the host."""
    from byol_jax.checkpoints import manager
    from byol_jax.training import build

    return manager.restore_newest(folder, build.build(config).state, warn=print).state


@pytest.fixture(scope="session", autouse=True)
def small_patterns():
    """Fewer images in the embedded set, for tests that run through the whole program."""
    from byol_jax.data import patterns

    splits = dict(patterns.SPLITS)
    patterns.SPLITS.update({name: split._replace(num_images=200) for name, split in splits.items()})
    yield splits
    patterns.SPLITS.update(splits)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory, small_patterns):
    """A workdir in which a small run has come to its end, on four devices."""
    from byol_jax.tasks import pretrain

    workdir = tmp_path_factory.mktemp("run")
    pretrain.run(make_config(), workdir)
    return workdir
