"""Encoders of runs: the same numbers as the run itself, frozen, and what is refused."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from byol_jax.checkpoints import encoders
from byol_jax.config import UsageError
from byol_jax.models import inference
from byol_jax.training import build
from tests.conftest import final_state, make_config

pytestmark = pytest.mark.slow  # each worker would train a run for them

IMAGES = np.random.RandomState(0).randint(0, 256, (5, 32, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def encoder(run_folder):
    return encoders.load_encoder(str(run_folder))


def test_it_gives_what_the_runs_own_network_gives(encoder, run_folder):
    config = make_config()
    state = final_state(run_folder, config)
    encode = inference.make_encode(build.build(config).forward, image_size=32)
    expected = encode(state.online_params, state.online_state, IMAGES)
    np.testing.assert_array_equal(encoder.encode(IMAGES), expected)
    assert expected.shape == (5, encoder.embedding_size) and encoder.image_size == 32


def test_its_images_do_not_depend_on_each_other(encoder):
    """Inference mode: batch statistics would mix them."""
    alone = np.concatenate([encoder.encode(image[None]) for image in IMAGES])
    np.testing.assert_allclose(alone, encoder.encode(IMAGES), atol=1e-5)


def test_its_identity_names_the_step_and_the_parameters(encoder, run_folder):
    path = run_folder / "checkpoints" / "4"
    assert encoder.identity["path"] == str(path) and encoder.identity["step"] == 4
    assert encoder.identity["encoder"] == "micro_resnet"
    sizes = [leaf.size for leaf in jax.tree.leaves(encoder.params)]
    assert encoder.identity["parameters"] == sum(sizes)
    assert not any("projector" in module for module in encoder.params)
    again = encoders.load_encoder(str(path))
    assert again.identity == encoder.identity
    earlier = encoders.load_encoder(str(run_folder / "checkpoints" / "2"))
    assert earlier.identity["sha256"] != encoder.identity["sha256"]


def test_the_hash_ignores_the_order_and_sees_every_number():
    params = {"b": {"w": np.ones(3, np.float32)}, "a": {"w": np.zeros(2, np.float32)}}
    turned = dict(reversed(params.items()))
    assert encoders.fingerprint(params, {}) == encoders.fingerprint(turned, {})
    params["b"]["w"] = np.array([1, 1, np.nextafter(np.float32(1), np.float32(2))])
    assert encoders.fingerprint(params, {}) != encoders.fingerprint(
        turned | {"b": {"w": np.ones(3, np.float32)}}, {}
    )


def test_no_such_path_and_no_checkpoint(tmp_path):
    for path in ("", str(tmp_path / "nothing")):
        with pytest.raises(UsageError, match="Give a workdir"):
            encoders.load_encoder(path)
    with pytest.raises(UsageError, match="No checkpoint at"):
        encoders.load_encoder(str(tmp_path))


@pytest.fixture
def copied(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


def change_config(run, **values):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | values))


def lose(run, name, text=None):
    """A file beside the checkpoints that is gone or damaged, and no checkpoint has a copy."""
    (run / name).unlink() if text is None else (run / name).write_text(text)
    for copy in run.glob("checkpoints/*/about"):
        shutil.rmtree(copy)


def other_encoder(run):
    model = json.loads((run / "config.json").read_text())["model"]
    change_config(run, model=model | {"encoder": "tiny_resnet"})


DAMAGE = {
    "no config": (lambda run: lose(run, "config.json"), "config.json is missing.*copy it"),
    "half a config": (
        lambda run: lose(run, "config.json", '{"task"'),
        "config.json is damaged.*copy it",
    ),
    "a list": (lambda run: lose(run, "config.json", "[]"), "config.json is damaged.*copy it"),
    "a pipe": (
        lambda run: (lose(run, "config.json"), os.mkfifo(run / "config.json")),
        "Cannot read .*config.json: not a regular file",
    ),
    "another task": (lambda run: change_config(run, task="knn"), "of the task 'knn'"),
    "a key too few": (lambda run: change_config(run, model={}), "lacks a key.*encoder"),
    "no card": (lambda run: lose(run, "data.json"), "data.json is missing.*copy it"),
    "another encoder": (other_encoder, "another network .micro_res_net.*tiny_res_net"),
    "no metadata": (
        lambda run: (run / "checkpoints" / "4" / "state" / "_METADATA").unlink(),
        "checkpoints/4 is half-written or damaged.*Others here: 2",
    ),
    "no arrays": (
        lambda run: shutil.rmtree(run / "checkpoints" / "4" / "state" / "ocdbt.process_0"),
        "checkpoints/4 is half-written or damaged.*Others here: 2",
    ),
    "no state": (
        lambda run: shutil.rmtree(run / "checkpoints" / "4" / "state"),
        "checkpoints/4 is half-written or damaged.*Others here: 2",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_damaged_or_missing_is_named(case, copied):
    damage, message = DAMAGE[case]
    damage(copied)
    with pytest.raises(UsageError, match=message):
        encoders.load_encoder(str(copied))


@pytest.mark.parametrize("damage", ["", '{"task"', "[]", None])
@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_what_a_run_has_lost_beside_a_checkpoint_comes_from_its_copy_there(
    name, damage, copied, capsys
):
    whole = encoders.load_encoder(str(copied / "checkpoints" / "2"))
    (copied / name).unlink() if damage is None else (copied / name).write_text(damage)
    assert_same_encoder(encoders.load_encoder(str(copied / "checkpoints" / "2")), whole)
    said = capsys.readouterr().err
    assert said.count("WARNING") == 1 and f"{copied / name} is " in said
    assert f"its copy in {copied / 'checkpoints' / '2'} is used" in said


def assert_same_encoder(found, expected):
    assert (found.identity, found.card) == (expected.identity, expected.card)


def test_an_unfinished_step_is_refused_by_name_and_passed_over_in_a_workdir(copied):
    unfinished = copied / "checkpoints" / "9.orbax-checkpoint-tmp"
    unfinished.mkdir()
    with pytest.raises(UsageError, match="never finished"):
        encoders.load_encoder(str(unfinished))
    assert encoders.load_encoder(str(copied)).identity["step"] == 4
