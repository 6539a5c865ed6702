"""Other people's weights: what is recognized, what is refused, and that nothing of it runs."""

import io
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from byol_jax import inspect
from byol_jax.checkpoints import (
    encoders,
    export_contents,
    safe_pickle,
    sources,
    torch_checkpoint,
    torchvision_names,
)
from byol_jax.config import UsageError
from byol_jax.models import encoder_spec
from tests.support import golden_data

PICKLE = golden_data.FOLDER / "deepmind_tiny.pkl"
MARKER = "ran.txt"


def random_network(card, seed=0):
    """Parameters and state of a card, drawn at random; variances are positive."""
    rng = np.random.default_rng(seed)

    def draw(name, leaf):
        if name == "counter":
            return np.int32(7)
        return (0.1 + rng.random(leaf.shape)).astype(np.float32) / max(leaf.shape[-1], 1) ** 0.5

    return tuple(
        {module: {n: draw(n, x) for n, x in leaves.items()} for module, leaves in tree.items()}
        for tree in encoder_spec.shapes(card)
    )


@pytest.fixture(scope="module")
def eighteen():
    """A ResNet-18 of torchvision's kind, by its names."""
    card = encoder_spec.EncoderSpec("resnet18", padding="torch")
    return torchvision_names.to_torch(*random_network(card))


def save(path, tensors):
    torch_checkpoint.save_safetensors(path, tensors, metadata={})
    return str(path)


def test_a_pickle_of_deepmind_gives_the_embeddings_of_the_reference():
    golden = golden_data.load("deepmind_tiny_eval")
    encoder = encoders.load_encoder(str(PICKLE))
    assert golden_data.relerr(encoder.encode(golden["images"]), golden["embedding"]) <= 2e-5
    assert encoder.identity["step"] == 3 and encoder.config is None


LAYOUTS = {
    "torchvision": ("", lambda key: key),
    "solo-learn": ("state_dict.backbone.", lambda key: key),
    "data parallel": ("module.", lambda key: key),
    "lightly": (
        "state_dict.backbone.",
        lambda key: ".".join(
            [
                str(
                    ["conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4"].index(
                        key.split(".")[0]
                    )
                ),
                *key.split(".")[1:],
            ]
        ),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_peers_names_lead_to_the_same_parameters(layout, eighteen, tmp_path):
    prefix, rename = LAYOUTS[layout]
    tensors = {prefix + rename(key): tensor for key, tensor in eighteen.items()}
    tensors["head.weight"] = np.zeros((3, 3), np.float32)
    found = sources.open_weights(save(tmp_path / "model.safetensors", tensors))
    assert found.card.encoder == "resnet18" and found.card.padding == "torch"
    params, state = sources.load(found, "online")
    back = torchvision_names.to_torch(params, state)
    for key, tensor in eighteen.items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[key], tensor)


@pytest.mark.parametrize("momentum, stem", [("momentum_backbone", "cifar_margin"), ("x", "cifar")])
def test_the_stem_of_solo_learn_for_small_images_has_a_margin(momentum, stem, tmp_path):
    card = encoder_spec.EncoderSpec("resnet18", padding="torch", stem="cifar")
    names = torchvision_names.to_torch(*random_network(card))
    tensors = {f"state_dict.backbone.{key}": tensor for key, tensor in names.items()}
    tensors[f"state_dict.{momentum}.fc.weight"] = np.zeros(3, np.float32)
    found = sources.open_weights(save(tmp_path / "model.safetensors", tensors))
    assert found.card.stem == stem and found.card.image_size == 32
    assert any("solo-learn" in note for note in found.notes) == (stem == "cifar_margin")


def test_the_moving_average_is_the_target(eighteen, tmp_path):
    tensors = {f"backbone.{key}": tensor for key, tensor in eighteen.items()}
    tensors |= {f"target_net.module.0.{key}": 2 * tensor for key, tensor in eighteen.items()}
    found = sources.open_weights(save(tmp_path / "model.safetensors", tensors))
    online, target = (sources.load(found, name).params for name in ("online", "target"))
    name = "res_net18/~/initial_conv"
    np.testing.assert_array_equal(2 * online[name]["w"], target[name]["w"])


def test_what_is_written_is_read_back_bit_by_bit(tmp_path):
    network = random_network(encoder_spec.EncoderSpec("tiny_resnet"))
    export_contents.save_weights(tmp_path, *network)
    stored = export_contents.open_weights(tmp_path)
    back = [
        {m: {n: x.load() for n, x in leaves.items()} for m, leaves in tree.items()}
        for tree in stored
    ]
    assert encoders.fingerprint(*back) == encoders.fingerprint(*network)


BAD = {
    "a head": (lambda t: {"fc.weight": t["conv1.weight"]}, "no ResNet by torchvision's names"),
    "half": (lambda t: {k: x for k, x in t.items() if "layer3.1" not in k}, "a network of|lacks"),
    "a shape": (lambda t: t | {"bn1.weight": np.zeros(3, np.float32)}, "bn1.weight of shape .3,."),
}  # fmt: skip


def test_a_header_of_any_length_is_no_pickle(tmp_path):
    """The first byte of a file of safetensors is the lowest of its header's length."""
    beginnings = set()
    for length in range(0, 400, 4):
        path = tmp_path / "weights.safetensors"
        written = {"x" * (length + 1): np.ones(3, np.float32)}
        torch_checkpoint.save_safetensors(path, written, metadata={})
        beginnings.add(path.read_bytes()[0])
        assert set(torch_checkpoint.open_tensors(path)) == set(written)
    assert 0x80 in beginnings  # as of a pickle


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_an_encoder_is_refused(case, eighteen, tmp_path):
    change, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        sources.open_weights(save(tmp_path / "model.safetensors", change(eighteen)))


@pytest.mark.parametrize("fraction", [0, 0.5, 0.99])
def test_truncated_files(fraction, eighteen, tmp_path):
    path = pathlib.Path(save(tmp_path / "model.safetensors", eighteen))
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(UsageError, match="Cannot read"):
        sources.open_weights(str(path))


def zipped(pickled):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", np.arange(4, dtype="<f4").tobytes())
    return file.getvalue()


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "os.system": Evil(os.system, f"touch {MARKER}"),
    "eval": Evil(eval, f"open({MARKER!r}, 'w')"),
    "nested": {"state_dict": {"a": [Evil(exec, f"open({MARKER!r}, 'w')")]}},
}


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_of_torch_run_nothing(what, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = pickle.dumps(HOSTILE[what], 2)
    pathlib.Path("file.pt").write_bytes(zipped(code) if kind == "zip" else code)
    with pytest.raises(safe_pickle.UnsupportedPickle, match="refuses to load"):
        torch_checkpoint.open_tensors("file.pt")
    assert os.listdir() == ["file.pt"]
    pickle.loads(code)
    assert pathlib.Path(MARKER).exists()  # else this would prove nothing


def test_inspect_says_what_it_is_and_what_to_do(capsys):
    assert inspect.main([str(PICKLE)]) == 0
    text = capsys.readouterr().out
    for words in ("DeepMind", "step           3", "tiny_resnet", "19,072", "CC BY-NC", "export.py"):
        assert words in text
    assert inspect.main(["/nowhere"]) == 2 and "no such path" in capsys.readouterr().err
