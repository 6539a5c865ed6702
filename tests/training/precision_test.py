"""In how many bits a run computes where its config leaves that to the device."""

import json

import jax
import pytest

from byol_jax.training import precision, run_files
from configs import byol

PLATFORMS = {"cpu": "float32", "gpu": "bfloat16", "tpu": "bfloat16"}


def on(platform, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_presets_of_imagenet_compute_in_bfloat16_on_accelerators(platform, monkeypatch, tmp_path):
    on(platform, monkeypatch)
    for preset in ("imagenet-300", "imagenet-77"):
        found = precision.dtype_of(byol.get_config(preset), tmp_path)
        assert found == PLATFORMS[platform]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_other_presets_and_what_was_typed_stay(platform, monkeypatch, tmp_path):
    on(platform, monkeypatch)
    assert precision.dtype_of(byol.get_config("patterns"), tmp_path) == "float32"
    config = byol.get_config("imagenet-100")
    config.model.dtype = "float32"
    assert precision.dtype_of(config, tmp_path) == "float32"


@pytest.mark.parametrize(("stored", "expected"), [("float32", "float32"), ("bfloat16", "bfloat16")])
def test_a_run_keeps_what_it_began_with(stored, expected, monkeypatch, tmp_path):
    """Also one of an earlier version, whose presets had float32, on a GPU."""
    config = byol.get_config("imagenet-300").to_dict()
    config["model"]["dtype"] = stored
    (tmp_path / "config.json").write_text(json.dumps(config))
    for platform in PLATFORMS:
        on(platform, monkeypatch)
        given = byol.get_config("imagenet-300")
        given.model.dtype = precision.dtype_of(given, tmp_path)
        assert given.model.dtype == expected
        assert run_files.changes(tmp_path, given.to_dict(), warn=pytest.fail) == []


@pytest.mark.parametrize(
    ("platform", "words"), [("cpu", "in float32."), ("gpu", "TF32"), ("tpu", "pass of bfloat16")]
)
def test_how_products_are_computed_is_said(platform, words, monkeypatch):
    on(platform, monkeypatch)
    assert words in precision.describe("bfloat16") and "in bfloat16" in precision.describe(
        "bfloat16"
    )
    with jax.default_matmul_precision("highest"):
        assert "JAX_DEFAULT_MATMUL_PRECISION=highest" in precision.describe("float32")
