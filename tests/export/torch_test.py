"""Exports read by those for whom they are made, and files that PyTorch itself wrote.

They need what is in requirements-torch.txt: ``make test-torch``.
"""

import copy
import functools
import importlib.util
import itertools
import json
import pathlib
import tempfile

import jax
import jax.export
import numpy as np
import pytest
import scipy.special

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision", exc_type=ImportError)

import safetensors.numpy  # noqa: E402
import safetensors.torch  # noqa: E402

import byol_jax  # noqa: E402
from byol_jax.checkpoints import encoders, sources, torchvision_names  # noqa: E402
from byol_jax.config import UsageError  # noqa: E402
from byol_jax.models import encoder_spec  # noqa: E402
from tests.support import classified, golden_data, snippets  # noqa: E402
from tests.support.photos import photos  # noqa: E402
from tests.tasks.export_test import export, write_encoder  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.slow]
TOLERANCE = 1e-4
ALL = "safetensors,torch,stablehlo,onnx"
CASES = {
    f"{encoder}, {padding}": encoder_spec.EncoderSpec(encoder, padding=padding, image_size=size)
    for encoder, size in (("resnet18", 96), ("resnet50", 64))
    for padding in ("same", "torch")
}


def write_formula(folder, card):
    """An encoder of formula parameters and batch-norm statistics, as an export of ours."""
    trees = [
        golden_data.formula_tree(shapes, "torch", counter=9) for shapes in encoder_spec.shapes(card)
    ]
    return write_encoder(folder, card, trees)


@functools.cache
def scratch():
    return tempfile.TemporaryDirectory()


@functools.cache
def folder_of(case):
    """The export of a case, in all formats; it has been checked once by writing it."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=scratch().name))
    export(folder / "export", write_formula(folder / "source", CASES[case]), formats=ALL)
    jax.clear_caches()  # of programs that hold all parameters as constants
    return folder / "export"


@functools.cache
def embeddings_of(case):
    return encoders.load_encoder(str(folder_of(case))).encode(photos(CASES[case].image_size))


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    yield
    scratch().cleanup()
    for cached in (scratch, folder_of, embeddings_of, classifier_of):
        cached.cache_clear()


def assert_close(actual, expected):
    """Relative to what distinguishes images, which is less than the embeddings themselves."""
    assert actual.shape == expected.shape and actual.dtype == np.float32
    scale = np.abs(expected - expected.mean(0)).max()
    assert np.abs(actual - expected).max() <= TOLERANCE * scale


def run(model, images):
    """A network of PyTorch's on images or what was made of them, [b, H, W, 3]."""
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def normalized(images, card):
    return (images / np.float32(255) - np.float32(card["mean"])) / np.float32(card["std"])


def by_module(folder, images):
    specification = importlib.util.spec_from_file_location("encoder", folder / "encoder.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return run(module.load(), images)


def by_plain_network(model, folder, images):
    card = json.loads((folder / "model.json").read_text())["card"]
    tensors = safetensors.torch.load_file(folder / "torch.safetensors")
    model.load_state_dict(tensors, strict=True)
    return run(model, normalized(images, card))


CLASSIFIERS = [case for case in CASES if "resnet18" in case]


@functools.cache
def classifier_of(case):
    """A result with a classifier, and its export in all formats."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=scratch().name))
    source = write_formula(folder / "source", CASES[case])
    result = classified.write_classifier(folder / "result", source)
    export(folder / "export", result, formats=ALL)
    return byol_jax.load_classifier(result), folder / "export"


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_an_exported_classifier_gives_its_probabilities_to_every_client(case):
    classifier, folder = classifier_of(case)
    images = photos(CASES[case].image_size)
    expected = classifier.predict_proba(images)
    assert expected.std() > 0.01
    logits = by_module(folder, images)
    assert_close(scipy.special.softmax(logits, axis=1), expected)
    session = onnxruntime.InferenceSession(folder / "encoder.onnx")
    names, found = (
        session.get_modelmeta().custom_metadata_map,
        session.run(None, {"images": images}),
    )
    assert tuple(json.loads(names["classes"])) == classifier.classes
    assert_close(found[0], logits)
    assert_close(found[1], expected)


@pytest.mark.parametrize("case", [case for case in CLASSIFIERS if "torch" in case])
def test_an_exported_classifier_loads_strictly_into_torchvision_and_timm(case):
    classifier, folder = classifier_of(case)
    images, name = photos(CASES[case].image_size), CASES[case].encoder
    expected = classifier.logits(classifier.encoder.embed(images))
    for model in (
        torchvision.models.get_model(name, num_classes=3),
        timm.create_model(name, num_classes=3),
    ):
        assert_close(by_plain_network(model, folder, images), expected)


def make_torchvision(card, stem="imagenet", padding=1):
    model = torchvision.models.get_model(card.encoder)
    model.fc = torch.nn.Identity()
    if stem == "cifar":
        model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, padding, bias=False)
        model.maxpool = torch.nn.Identity()
    return model


def by_stablehlo(folder, images):
    data = bytearray((folder / "encoder.stablehlo").read_bytes())
    encode = jax.export.deserialize(data).call
    # In batches of the size that the export's own check has compiled.
    return np.concatenate([encode(part) for part in np.split(images, len(images) // 4)])


def by_onnx(folder, images):
    return onnxruntime.InferenceSession(folder / "encoder.onnx").run(None, {"images": images})[0]


CLIENTS = {"encoder.py": by_module, "stablehlo": by_stablehlo, "onnx": by_onnx}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_gives_the_embeddings_of_the_encoder(client, case):
    images = photos(CASES[case].image_size)
    assert_close(CLIENTS[client](folder_of(case), images), embeddings_of(case))


@pytest.mark.parametrize("case", [case for case in CASES if "torch" in case])
@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_trained_with_torchs_layout_it_loads_strictly(package, case):
    card = CASES[case]
    model = (
        make_torchvision(card)
        if package == "torchvision"
        else timm.create_model(card.encoder, num_classes=0)
    )
    actual = by_plain_network(model, folder_of(case), photos(card.image_size))
    assert_close(actual, embeddings_of(case))


def test_the_card_says_what_a_plain_load_would_cost():
    folder = folder_of("resnet50, same")
    advice = json.loads((folder / "model.json").read_text())["torch"]
    assert advice["use"] == "encoder.py" and advice["plain_load"] == "strict"
    batch = safetensors.numpy.load_file(folder / "test_batch.safetensors")
    plain = by_plain_network(make_torchvision(CASES["resnet50, same"]), folder, batch["images"])
    cost = np.abs(plain - batch["embeddings"]).max() / np.abs(batch["embeddings"]).max()
    assert cost > 1e-3
    np.testing.assert_allclose(advice["plain_load_relative_difference"], cost, rtol=1e-2)


OTHERS = {
    "stem for small images": dict(stem="cifar"),
    "stem with a margin, torch": dict(stem="cifar_margin", padding="torch"),
    "stem of patches, twice as wide": dict(stem="patch", width_multiplier=2),
    "version 2": dict(resnet_v2=True),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_stems_versions_and_widths_in_pytorch(case, tmp_path):
    card = encoder_spec.EncoderSpec("micro_resnet", image_size=33)._replace(**OTHERS[case])
    folder = export(tmp_path / "export", write_formula(tmp_path / "source", card), formats="torch")
    expected = encoders.load_encoder(str(folder)).encode(photos(33))
    assert_close(by_module(folder, photos(33)), expected)


# The snippets of the guide, on what the default job has learned.


@pytest.fixture(scope="module")
def learned(run_folder, tmp_path_factory):
    return export(tmp_path_factory.mktemp("learned") / "export", run_folder, formats=ALL)


OURS = {"byol_jax", "haiku", "optax", "orbax", "jax", "jaxlib"}
SNIPPETS = {
    "import encoder": OURS | {"torchvision", "timm", "onnxruntime"},
    "onnxruntime": OURS | {"torch"},
    "import jax.export": OURS - {"jax", "jaxlib"} | {"torch"},
}


@pytest.mark.parametrize("word", SNIPPETS)
def test_snippets_of_the_guide_read_what_the_default_job_learned(
    word, learned, run_folder, tmp_path
):
    features = snippets.features_of(
        snippets.snippet(word), tmp_path, {"export": learned}, without=SNIPPETS[word]
    )
    images = safetensors.numpy.load_file(learned / "test_batch.safetensors")["images"]
    assert_close(features, encoders.load_encoder(str(run_folder)).encode(images))


@pytest.mark.parametrize("client", CLIENTS)
def test_what_the_default_job_learned_is_the_same_for_every_client(client, learned, run_folder):
    expected = encoders.load_encoder(str(run_folder)).encode(photos(32))
    assert_close(CLIENTS[client](learned, photos(32)), expected)
    again = encoders.load_encoder(str(learned))
    assert again.identity["sha256"] == encoders.load_encoder(str(run_folder)).identity["sha256"]


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_the_snippet_of_the_guide_for_plain_networks(package, tmp_path):
    code = snippets.snippet("timm")
    if package == "torchvision":
        code = code.replace("import timm", "import torchvision").replace(
            'timm.create_model(card["encoder"], num_classes=0)',
            'torchvision.models.get_model(card["encoder"]); model.fc = torch.nn.Identity()',
        )
        assert "timm" not in code.split("#")[0]
    folder = folder_of("resnet18, torch")
    exports = {"export-resnet": folder}
    features = snippets.features_of(code, tmp_path, exports, without=OURS)
    expected = safetensors.numpy.load_file(folder / "test_batch.safetensors")["embeddings"]
    assert_close(features, expected)


# Files that PyTorch wrote.


def shaken(model, seed=0):
    """A network whose batch norms are not as they begin."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, std=0.2)
    return model


def head(*sizes):
    return torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))


class SoloLearn(torch.nn.Module):
    def __init__(self, network, moving):
        super().__init__()
        self.backbone, self.momentum_backbone = network, moving
        self.classifier, self.projector = head(512, 10), head(512, 64, 32)
        self.momentum_projector, self.predictor = head(512, 64, 32), head(32, 64, 32)


class Lightly(torch.nn.Module):
    def __init__(self, network, moving):
        super().__init__()
        self.backbone = torch.nn.Sequential(*list(network.children())[:-1])
        self.backbone_momentum = torch.nn.Sequential(*list(moving.children())[:-1])
        self.projection_head = torch.nn.ModuleDict({"layers": head(512, 64, 32)})


class MMPretrain(torch.nn.Module):
    def __init__(self, network, moving):
        super().__init__()
        self.backbone, self.neck = network, head(512, 64, 32)
        self.target_net = torch.nn.Module()
        self.target_net.module = torch.nn.Sequential(moving, head(512, 64, 32))


PEERS = {"solo-learn": SoloLearn, "lightly": Lightly, "mmpretrain": MMPretrain}


@functools.cache
def two_networks():
    make = functools.partial(make_torchvision, encoder_spec.EncoderSpec("resnet18"))
    return shaken(make(), 1), shaken(make(), 2)


def save_as_peers_do(path, peer, networks, *, is_zip=True):
    """With all that Lightning and others keep beside the parameters."""
    model = PEERS[peer](*map(copy.deepcopy, networks))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    content = {
        "epoch": 3,
        "state_dict": model.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "meta": {"seed": 1, "time": None, "flags": [True, 0.5]},
    }
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    return str(path)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pth"])
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("peer", PEERS)
def test_files_of_peers_lead_to_the_same_tensors(peer, is_zip, name, tmp_path):
    networks = two_networks()
    found = sources.open_weights(save_as_peers_do(tmp_path / name, peer, networks, is_zip=is_zip))
    assert found.card == encoder_spec.EncoderSpec("resnet18", padding="torch")
    for which, network in zip(("online", "target"), networks, strict=True):
        back = torchvision_names.to_torch(*sources.load(found, which))
        for key, tensor in network.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                np.testing.assert_array_equal(back[key], tensor.numpy(), err_msg=key)


def test_resnet50_of_torchvision_gives_its_embeddings_here(tmp_path):
    model = shaken(torchvision.models.resnet50())
    torch.save(model.state_dict(), tmp_path / "resnet50.pth")
    model.fc = torch.nn.Identity()
    encoder = encoders.load_encoder(str(tmp_path / "resnet50.pth"))
    images = photos(224)[::4]
    assert_close(encoder.encode(images), run(model, normalized(images, encoder.card._asdict())))


@pytest.mark.parametrize("peer, padding", [("solo-learn", 2), ("mmpretrain", 1)])
def test_small_images_networks_of_peers_give_their_embeddings_here(peer, padding, tmp_path):
    model = shaken(make_torchvision(encoder_spec.EncoderSpec("resnet18"), "cifar", padding))
    encoder = encoders.load_encoder(save_as_peers_do(tmp_path / "model.ckpt", peer, (model, model)))
    assert encoder.image_size == 32
    expected = run(model, normalized(photos(32), encoder.card._asdict()))
    assert_close(encoder.encode(photos(32)), expected)


def test_lightlys_own_resnet_for_small_images(tmp_path):
    """Its layers without ReLU and pooling between them, and shortcuts by another name."""
    model = shaken(make_torchvision(encoder_spec.EncoderSpec("resnet18"), "cifar"))
    layers = [model.conv1, model.bn1, model.layer1, model.layer2, model.layer3, model.layer4]
    names = torch.nn.Sequential(*layers).state_dict()
    tensors = {f"backbone.{k.replace('downsample', 'shortcut')}": x for k, x in names.items()}
    torch.save({"state_dict": tensors}, tmp_path / "model.ckpt")
    encoder = encoders.load_encoder(str(tmp_path / "model.ckpt"))
    assert encoder.card.stem == "cifar"
    expected = run(model, normalized(photos(32), encoder.card._asdict()))
    assert_close(encoder.encode(photos(32)), expected)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("fraction", [0.1, 0.9, 0.999])
def test_half_a_file_is_refused(fraction, is_zip, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(two_networks()[0].state_dict(), path, _use_new_zipfile_serialization=is_zip)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(UsageError, match="Cannot read"):
        sources.open_weights(str(path))


def test_a_whole_module_is_refused_by_its_class(tmp_path):
    torch.save(two_networks()[0], tmp_path / "model.pt")
    with pytest.raises(UsageError, match="refuses to load 'torchvision.models.resnet.ResNet'"):
        sources.open_weights(str(tmp_path / "model.pt"))
