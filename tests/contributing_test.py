"""The examples of CONTRIBUTING.md do what the text says, with the code as it is."""

import importlib
import json
import pathlib
import re
import types

import jax
import ml_collections
import numpy as np
import pytest

from byol_jax.export import formats

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", TEXT, re.DOTALL))


def extended(file):
    """The names of a module to which an example was added; the module stays as it is."""
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    names = {k: dict(v) if isinstance(v, dict) else v for k, v in vars(module).items()}
    exec(compile(BLOCKS[file], file, "exec"), names)
    return types.SimpleNamespace(**names)


def fresh(file):
    """A module of its own."""
    names = {"__name__": file}
    exec(compile(BLOCKS[file], file, "exec"), names)
    return types.SimpleNamespace(**names)


def test_the_objective_is_a_loss():
    objective = extended("byol_jax/objectives/byol.py").OBJECTIVES["byol_one_view"]
    views = tuple(jax.random.normal(jax.random.key(i), (4, 8)) for i in range(2))
    assert objective.loss(views, views[::-1]) == pytest.approx(0, abs=1e-6)
    terms = objective.terms(views, views)
    assert terms["view1_loss"] == objective.loss(views, views) > 0.1


def test_the_encoder_is_a_network(monkeypatch):
    from byol_jax.models import encoder_spec, resnet

    found = extended("byol_jax/models/resnet.py").ENCODERS["resnet26"]
    monkeypatch.setitem(resnet.ENCODERS, "resnet26", found)
    params, _ = encoder_spec.shapes(encoder_spec.EncoderSpec("resnet26"))
    assert params["res_net26/~/initial_conv"]["w"].shape == (7, 7, 3, 64)
    assert resnet.embedding_size("resnet26") == 2048


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_data_source_gives_images_with_labels(split):
    data = extended("byol_jax/data/datasets.py").DATASETS["disks"]("disks", split, None)
    assert data.images.shape == (1000, 32, 32, 3) and data.images.dtype == np.uint8
    bright = data.images.mean(axis=(1, 2, 3))
    assert bright[data.labels == 1].mean() > 2 * bright[data.labels == 0].mean()


def test_the_export_format_is_read_back(tmp_path):
    write = extended("byol_jax/export/formats.py").FORMATS["example"]
    images, expected = np.zeros((2, 4, 4, 3), np.uint8), np.ones((2, 8), np.float32)
    export = formats.Export(tmp_path, None, None, None, None, None, images, expected)
    assert write(export)["bit_identical"] and (tmp_path / "example.npz").is_file()


@pytest.mark.slow
def test_the_evaluation_writes_a_result(run_folder, tmp_path):
    config = fresh("configs/norms.py").get_config()
    assert isinstance(config, ml_collections.ConfigDict)
    config.checkpoint = str(run_folder)
    fresh("byol_jax/tasks/norms.py").run(config, tmp_path / "norms")
    result = json.loads((tmp_path / "norms" / "result.json").read_text())
    assert result["norm"] > 0 and result["config"]["num_images"] == 100


def test_every_example_is_tested_and_every_path_is_there():
    source = pathlib.Path(__file__).read_text()
    assert len(BLOCKS) == TEXT.count("```python") == 6
    for file in BLOCKS:
        assert f'("{file}")' in source
    for path in re.findall(r"`((?:byol_jax|configs|tests|docs)/[\w/.]*)`", TEXT):
        assert (ROOT / path).exists(), path
