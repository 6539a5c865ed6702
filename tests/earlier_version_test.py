"""A run and an export that an earlier version wrote: they resume, load, embed, are evaluated.

They are of the commit before the modules moved into rooms; tests/golden/README.md says more.
"""

import json

import numpy as np
import pytest

from byol_jax.checkpoints import encoders
from byol_jax.config import flatten
from byol_jax.tasks import knn, pretrain
from byol_jax.training import run_files
from byol_jax.workdir import metrics_log
from configs import knn as knn_config
from tests.conftest import make_config
from tests.support import earlier_version

IMAGES = np.random.RandomState(0).randint(0, 256, (8, 32, 32, 3)).astype(np.uint8)
FORMS = ["run", "run/checkpoints/2", "export"]
SPEED = "train/images_per_second"


@pytest.fixture
def folder(tmp_path):
    return earlier_version.unpack(tmp_path)


def run_config(**overrides):
    """That of the run, with the keys that came later."""
    return make_config(
        **{
            "model.encoder": "tiny_resnet",
            "model.projector_hidden_size": 8,
            "model.predictor_hidden_size": 8,
            "gallery.max_images": 0,
            "probe.max_images": 40,
        }
        | overrides
    )


def expected(folder):
    return json.loads((folder / "expected.json").read_text())


def assert_same_numbers(ours, theirs):
    """To the last bit on the machine that wrote them; other processors round differently."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_its_encoder_loads_bit_for_bit_and_embeds_as_it_did(form, folder):
    encoder = encoders.load_encoder(str(folder / form))
    assert encoder.identity["sha256"] == expected(folder)["encoder_sha256"]
    assert_same_numbers(encoder.embed(IMAGES), expected(folder)["embeddings"])


def test_its_config_lacks_keys_of_today_which_hinder_nothing(folder):
    stored = flatten(json.loads((folder / "run" / "config.json").read_text()))
    assert {"plugins", "augment.view1.extra"} <= set(flatten(run_config().to_dict())) - set(stored)
    assert not run_files.changes(folder / "run", run_config().to_dict(), warn=pytest.fail)


@pytest.mark.slow
def test_it_resumes_as_if_nothing_had_happened(folder, capfd):
    pretrain.run(run_config(), folder / "run")
    assert "Resuming from step 2" in capfd.readouterr().err
    rows = list(metrics_log.rows(folder / "run"))
    known = expected(folder)["rows"]
    assert [row["step"] for row in rows] == [row["step"] for row in known]
    for ours, theirs in zip(rows, known, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs.keys() - {SPEED}:
            assert_same_numbers(ours[name], theirs[name])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_it_is_evaluated_as_it_was(form, folder, tmp_path):
    config = knn_config.get_config()
    small = {"checkpoint": str(folder / form), "batch_size": 64, "knn.k": (1, 5, 20)}
    set_of_run = {"data.name": "patterns", "data.train_split": "train", "data.eval_split": "test"}
    config.update_from_flattened_dict(small | set_of_run)
    knn.run(config, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    known = expected(folder)["knn"]
    assert found["num_images"] == known["num_images"]
    assert found["accuracy"] == pytest.approx(known["accuracy"], abs=0.01)  # two images of 200
    assert found["table"] == [pytest.approx(row, abs=0.01) for row in known["table"]]
