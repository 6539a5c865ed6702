"""An export as a repository of the Hub: what its card says, what is refused, what reads it back."""

import json
import os
import shutil
import sys

import pytest

from byol_jax.checkpoints import encoders, hub, sources
from byol_jax.config import UsageError
from byol_jax.export import hub_folder
from byol_jax.tasks import export as export_task
from configs import export as config_file

REVISION = "a" * 40
MODEL = {
    "card": {"encoder": "resnet18", "image_size": 64, "mean": [0.5] * 3, "std": [0.2] * 3},
    "output": "embedding",
    "output_size": 512,
    "data": {"name": "folder", "train_split": "all"},
    "config": {"checkpoint": ""},
    "licence": "",
    "notes": [],
}
CLASSIFIER = {
    "data": {"name": 'a "set": of mine', "eval_split": "test"},
    "accuracy": {"top1": 0.75},
    "interval_95": {"top1": [0.7, 0.8]},
}


def front(text):
    """The facts in front of a card; each is JSON, which YAML is a superset of."""
    _, facts, _ = text.split("---\n", 2)
    return {
        line.split(": ", 1)[0]: json.loads(line.split(": ", 1)[1])
        for line in facts.split("\n")
        if line
    }


def test_the_front_of_a_card_has_license_library_and_measures_with_intervals():
    options = {"license": "mit", "fits_timm": True, "classifier": CLASSIFIER}
    text = hub_folder.card("me/enc", MODEL, **options)
    facts = front(text)
    assert (facts["license"], facts["library_name"]) == ("mit", "timm")
    (result,) = facts["model-index"][0]["results"]
    assert result["dataset"]["name"] == 'a "set": of mine'
    assert result["metrics"][0]["value"] == 0.75 and "0.7000 to 0.8000" in str(result["metrics"])
    assert "all of folder" in text and 'timm.create_model("hf-hub:me/enc"' in text


def test_without_a_classifier_nothing_is_claimed():
    text = hub_folder.card("me/enc", MODEL | {"data": None}, license="other", fits_timm=False)
    assert "model-index" not in front(text) and "timm" not in text
    assert "does not say how it was trained" in text


@pytest.mark.parametrize(
    "model",
    [{"licence": sources.DEEPMIND_LICENSE}, {"config": {"checkpoint": "resnet50.pkl"}}],
)
def test_weights_made_from_deepminds_inherit_their_license(model):
    assert hub_folder.license_of(MODEL | model, "") == "cc-by-nc-4.0"
    with pytest.raises(UsageError, match="license=mit, but .* under cc-by-nc-4.0"):
        hub_folder.license_of(MODEL | model, "mit")


def test_a_license_that_nobody_has_given_is_not_made_up():
    assert hub_folder.license_of(MODEL, "") == "other"


@pytest.mark.parametrize("name", ["enc", "a/b/c", "../x", "me/", "me/e c"])
def test_a_name_that_is_no_repository_is_refused(name, tmp_path):
    with pytest.raises(UsageError, match="is no repository: give OWNER/REPO"):
        hub_folder.place(tmp_path / "export", name)


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path):
    (tmp_path / "export-hub").mkdir()
    assert hub_folder.place(tmp_path / "export", "me/enc") == tmp_path / "export-hub"
    (tmp_path / "export-hub" / "README.md").write_text("mine")
    with pytest.raises(UsageError, match="export-hub is there already"):
        hub_folder.place(tmp_path / "export", "me/enc")


class Offline:
    """In place of huggingface_hub: snapshots that are there, and no network."""

    def __init__(self, folder):
        self.folder = folder

    def snapshot_download(self, name, revision=None, allow_patterns=()):
        if name != "me/enc":
            raise ConnectionError("no\nnetwork")
        return str(self.folder)

    class HfApi:
        def create_repo(self, *args, **kwargs):
            raise ConnectionError("no\nnetwork")


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    folder = tmp_path / "snapshots" / REVISION
    folder.mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "huggingface_hub", Offline(folder))
    return folder


def test_an_address_without_network_or_weights_is_one_line(snapshot):
    with pytest.raises(
        UsageError, match=r"Cannot fetch hf://me/none \(ConnectionError: no network"
    ):
        hub.fetch("hf://me/none")
    with pytest.raises(UsageError, match="hf://me/enc@main has no model.safetensors"):
        hub.fetch("hf://me/enc@main")
    with pytest.raises(UsageError, match="is no repository"):
        hub.fetch("hf://me")


def test_what_timm_says_about_images_is_taken_and_damage_is_not(snapshot):
    facts = {"input_size": [3, 176, 176], "mean": [0, 0.5, 1], "std": [1, 1, 1]}
    assert hub.image_facts(facts) == {"image_size": 176, "mean": (0, 0.5, 1), "std": (1, 1, 1)}
    assert hub.image_facts({"input_size": 3, "mean": "x", "std": [1]}) == {}
    (snapshot / "model.safetensors").write_bytes(b"")
    (snapshot / "config.json").write_text("[1")
    assert hub.fetch("hf://me/enc").facts == {}


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[hub\]'"):
        hub.fetch("timm://resnet18.a1_in1k")


@pytest.mark.slow
def test_without_network_the_folder_is_whole_and_is_read_back_bit_for_bit(
    run_folder, snapshot, tmp_path
):
    config = config_file.get_config()
    config.update(checkpoint=str(run_folder), formats="safetensors", hub="me/enc")
    with pytest.raises(UsageError, match="export-hub is written whole, but not uploaded"):
        export_task.run(config, tmp_path / "export")
    folder = tmp_path / "export-hub"
    assert sorted(os.listdir(folder)) == ["README.md", "byol_jax"]
    shutil.copytree(folder, snapshot, dirs_exist_ok=True)
    found = encoders.load_encoder("hf://me/enc")
    assert found.identity["sha256"] == encoders.load_encoder(str(run_folder)).identity["sha256"]
    assert found.identity["path"] == f"hf://me/enc@{REVISION}"


@pytest.mark.slow
@pytest.mark.torch
def test_timm_reads_a_repository_and_the_address_of_a_cache_without_network(tmp_path):
    pytest.importorskip("huggingface_hub")
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")

    model = timm.create_model("resnet18", num_classes=0)
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "resnet18.safetensors")
    config = config_file.get_config()
    config.update(checkpoint=str(tmp_path / "resnet18.safetensors"), formats="torch", hub="me/enc")
    config.image_size = 32
    with pytest.raises(UsageError, match="not uploaded"):
        export_task.run(config, tmp_path / "export")
    again = timm.create_model(f"local-dir:{tmp_path / 'export-hub'}", pretrained=True)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), again.eval()(images))
