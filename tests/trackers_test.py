"""Weights & Biases, kept on this machine: numbers and pictures, and going on after a stop."""

import types

import numpy as np
import pytest

from byol_jax import trackers
from byol_jax.config import UsageError


def config(project):
    return types.SimpleNamespace(wandb_project=project, to_dict=lambda: {"seed": 0})


def test_nothing_is_tracked_unless_asked_for(tmp_path):
    assert trackers.make_trackers(config(""), tmp_path) == () and not list(tmp_path.iterdir())


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[wandb\]'"):
        trackers.make_trackers(config("birds"), tmp_path)


@pytest.mark.slow
def test_an_offline_run_goes_on_under_its_own_name(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (1, 2):
        (tracker,) = trackers.make_trackers(config("birds"), tmp_path)
        tracker.write(step, {"train/loss": 1.0, "train/nan": float("nan")})
        tracker.write_image(step, "pairs", np.zeros((8, 8, 3), np.uint8))
        tracker.close()
    name = (tmp_path / "wandb_id").read_text().strip()
    runs = list((tmp_path / "wandb").glob(f"offline-run-*-{name}"))
    assert runs and all(list(run.glob("*.wandb")) for run in runs)
