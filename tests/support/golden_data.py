"""Reads the reference's expected values (tests/golden, or the folder in $BYOL_JAX_GOLDEN)."""

import gzip
import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from byol_jax.models import byol_network

FOLDER = pathlib.Path(
    os.environ.get("BYOL_JAX_GOLDEN", pathlib.Path(__file__).parents[1] / "golden")
)


def load(name: str) -> Mapping[str, np.ndarray]:
    """Loads every array of ``<name>.npz`` into a dictionary."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


def has_photos() -> bool:
    """Whether the reference's JPEG files are there; they are not part of the repository."""
    return (FOLDER / "preprocess.npz").exists()


def load_geometry() -> Mapping[str, np.ndarray]:
    """Loads the windows of evaluation and of training."""
    return load("preprocess" if has_photos() else "crop_geometry")


def load_json(name: str) -> Any:
    """Loads ``<name>.json``, or its gzipped form."""
    plain = FOLDER / f"{name}.json"
    if plain.exists():
        return json.loads(plain.read_text())
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


def config(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The configuration that a golden file was computed with."""
    return json.loads(str(arrays["config_json"]))


def tree(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, dict[str, np.ndarray]]:
    """Entries ``prefix|module|name`` as ``{module: {name: array}}``."""
    result: dict[str, dict[str, np.ndarray]] = {}
    for key, value in arrays.items():
        if key.startswith(prefix + "|") and key.count("|") == prefix.count("|") + 2:
            module, name = key.split("|")[-2:]
            result.setdefault(module, {})[name] = value
    return result


def formula_value(salt: str, module: str, name: str, shape, counter: int) -> np.ndarray:
    """The parameter or state value that the golden files use where none is stored."""
    if name == "counter":
        return np.int32(counter)
    seed = zlib.crc32(f"{salt}/{module}/{name}".encode())
    z = np.random.RandomState(seed).standard_normal(tuple(shape)).astype(np.float32)
    if name == "w":
        return z * np.float32(np.sqrt(2.0 / np.prod(shape[:-1])))
    if name == "scale":
        return z * np.float32(0.1) + np.float32(1)
    if name in ("b", "offset") or module.endswith("/mean_ema"):
        return z * np.float32(0.1)
    if module.endswith("/var_ema"):
        return np.exp(0.1 * z.astype(np.float64)).astype(np.float32)
    raise ValueError(f"no formula for {module}|{name}")


def formula_tree(shapes, salt: str, counter: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Formula values for a tree whose leaves have a ``.shape`` (arrays or shape structs)."""
    return {
        module: {
            name: formula_value(salt, module, name, leaf.shape, counter)
            for name, leaf in leaves.items()
        }
        for module, leaves in shapes.items()
    }


def relerr(actual, expected) -> float:
    """Largest absolute difference over the largest expected magnitude, one number a tensor."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def assert_trees_close(actual, expected, *, atol: float) -> None:
    """Compares every tensor of two trees with the same modules."""
    assert actual.keys() == expected.keys()
    for module, leaves in expected.items():
        for name, value in leaves.items():
            np.testing.assert_allclose(
                actual[module][name], value, atol=atol, rtol=0, err_msg=f"{module}|{name}"
            )


def assert_summary(arrays, prefix: str, actual, *, tolerance: float, only=None) -> None:
    """Compares a tree with stored sums; ``only(module)`` limits it to modules that we keep."""
    names = [str(name) for name in arrays[f"{prefix}|names"]]
    checked = 0
    for index, key in enumerate(names):
        module, name = key.split("|")
        if only is not None and not only(module):
            continue
        value = np.asarray(actual[module][name], np.float64)
        bound = tolerance * arrays[f"{prefix}|abs_sum"][index] + 1e-30
        assert abs(value.sum() - arrays[f"{prefix}|sum"][index]) <= bound, key
        assert abs(np.abs(value).sum() - arrays[f"{prefix}|abs_sum"][index]) <= bound, key
        checked += 1
    assert checked


ENCODER_OF_CLASS = {  # the reference's class names
    "TinyResNet": "tiny_resnet",
    **{f"ResNet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152, 200)},
}
HEAD_KEYS = (
    "num_classes",
    "projector_hidden_size",
    "projector_output_size",
    "predictor_hidden_size",
)


def make_forward(config: Mapping[str, Any], **options):
    """Our network for the configuration of a golden case."""
    return byol_network.make_forward(
        ENCODER_OF_CLASS[config["encoder_class"]],
        resnet_v2=config["resnet_v2"],
        width_multiplier=config["width_multiplier"],
        bn_decay_rate=config["bn_decay_rate"],
        bn_eps=config["bn_eps"],
        **{key: config[key] for key in HEAD_KEYS},
        **options,
    )


def is_kept(module: str) -> bool:
    """Whether our target network has a module: the reference's has heads that nothing reads."""
    return module.split("/")[0] not in ("predictor", "classifier")


def images(pixels: np.ndarray, dtype=np.float32) -> np.ndarray:
    """uint8 images as the networks take them, in [0, 1]."""
    return pixels.astype(dtype) / dtype(255)
