"""Exports as people make them: what is written, what is refused, and that nothing is ever half."""

import functools
import json
import os
import pathlib
import pickle
import signal
import sys
import time

import numpy as np
import pytest

from byol_jax.checkpoints import encoders, export_contents, torch_checkpoint, torchvision_names
from byol_jax.config import UsageError
from byol_jax.export import formats
from byol_jax.models import encoder_spec
from byol_jax.tasks import export as run_export
from configs import export as export_config
from tests.checkpoints.deepmind_test import HOSTILE as HOSTILE_PICKLES
from tests.checkpoints.deepmind_test import whole_file
from tests.checkpoints.third_party_weights_test import HOSTILE, random_network, zipped
from tests.support import golden_data, run_process, snippets

TEST_BATCH = run_export.TEST_BATCH
PICKLE = golden_data.FOLDER / "deepmind_tiny.pkl"
CONFIG = pathlib.Path(export_config.__file__)


def export(workdir, checkpoint, **overrides):
    config = export_config.get_config()
    config.update_from_flattened_dict({"checkpoint": str(checkpoint)} | overrides)
    run_export.run(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def of_pickle(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("exports") / "export"
    return export(workdir, PICKLE, formats="safetensors,stablehlo")


def test_an_export_is_the_encoder_bit_for_bit(of_pickle):
    first, second = (encoders.load_encoder(str(path)) for path in (PICKLE, of_pickle))
    assert first.identity["sha256"] == second.identity["sha256"]
    assert first.card == second.card and second.identity["step"] == 3


def test_the_card_has_what_others_need_to_know(of_pickle):
    model = json.loads((of_pickle / "model.json").read_text())
    assert model["card"]["encoder"] == "tiny_resnet" and model["output_size"] == 8
    assert model["network"] == "online" and "CC BY-NC 4.0" in model["licence"]
    assert model["checks"]["stablehlo"]["max_relative_difference"] <= formats.TOLERANCE
    assert set(model["files"]) == {"model.safetensors", "encoder.stablehlo", TEST_BATCH}


def test_export_of_an_export_is_the_same(of_pickle, tmp_path):
    again = export(tmp_path / "again", of_pickle, formats="safetensors")
    name = export_contents.WEIGHTS
    assert (again / name).read_bytes() == (of_pickle / name).read_bytes()


def test_the_projection_of_the_target_is_the_references(tmp_path):
    options = {"network": "target", "head": "projector", "formats": "stablehlo"}
    folder = export(tmp_path / "export", PICKLE, **options)
    golden = golden_data.load("deepmind_tiny_eval")
    encode = formats.stablehlo.load(folder / "encoder.stablehlo")
    assert golden_data.relerr(encode(golden["images"]), golden["target_projection"]) <= 2e-5


def test_a_difference_is_an_error_and_leaves_the_old_export(of_pickle, monkeypatch, tmp_path):
    folder = export(tmp_path / "export", PICKLE, formats="safetensors")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    load = formats.stablehlo.load
    monkeypatch.setattr(
        formats.stablehlo, "load", lambda path: lambda images: load(path)(images) * 1.001
    )
    with pytest.raises(UsageError, match="stablehlo export gives other embeddings"):
        export(folder, PICKLE, formats="stablehlo")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert os.listdir(tmp_path) == ["export"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_ends_an_export_leaves_nothing(error, monkeypatch, tmp_path):
    def fail(export):
        raise error

    monkeypatch.setitem(formats.FORMATS, "safetensors", fail)
    expected = KeyboardInterrupt if error is KeyboardInterrupt else UsageError
    with pytest.raises(expected, match="|No space left on device. Nothing was written"):
        export(tmp_path / "export", PICKLE, formats="safetensors")
    assert os.listdir(tmp_path) == []


MISTAKES = {
    "format": ({"formats": "safetensor"}, "Unknown formats.*safetensors"),
    "head": ({"head": "predictor"}, "Unknown head: 'predictor'. Valid: projector"),
    "network": ({"network": "offline"}, "has no offline network. Valid: online, target"),
    "image size": ({"image_size": 4}, "must be 8 or more, not 4"),
    "mean": ({"mean": (0.5, 0.5)}, "mean must be three numbers"),
    "onnx alone": ({"formats": "onnx"}, "add torch to --config.formats"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named_and_nothing_is_written(case, tmp_path):
    overrides, message = MISTAKES[case]
    with pytest.raises(UsageError, match=message):
        export(tmp_path / "export", PICKLE, **overrides)
    assert os.listdir(tmp_path) == []


def test_what_is_no_export_is_not_replaced(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="holds something that is no export"):
        export(tmp_path / "export", PICKLE)
    assert os.listdir(tmp_path / "export") == ["thesis.tex"]


@pytest.mark.parametrize("folder", [".", "/"])
def test_a_folder_without_a_name_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="name a folder by --workdir"):
        export(pathlib.Path(folder), PICKLE)
    assert os.listdir(tmp_path) == []


def test_an_encoder_that_gives_no_numbers_is_refused(tmp_path):
    with pytest.raises(UsageError, match="gives no numbers"):
        export(tmp_path / "export", PICKLE, std=(0.0, 0.0, 0.0))
    assert os.listdir(tmp_path) == []


# The command itself, on files that are not what they should be.


def start(folder, checkpoint, workdir="export"):
    """The program in a process of its own, which works in a folder and prints into log.txt."""
    options = [f"--config={CONFIG}", f"--workdir={workdir}", f"--config.checkpoint={checkpoint}"]
    go_there = functools.partial(os.chdir, folder)
    arguments = (options, 1, folder / "log.txt", go_there)
    process = run_process.CONTEXT.Process(target=run_process.run_program, args=arguments)
    process.start()
    return process


def finish(process, folder):
    process.join(120)
    return process.exitcode, (folder / "log.txt").read_text()


def eighteen():
    return torchvision_names.to_torch(
        *random_network(encoder_spec.EncoderSpec("resnet18", padding="torch"))
    )


def tensors_file(path, tensors):
    torch_checkpoint.save_safetensors(path, tensors, metadata={})


def truncated(path):
    data = PICKLE.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def write_encoder(folder, card, network):
    """Weights and their card, as an export of ours."""
    folder.mkdir()
    export_contents.save_weights(folder, *network)
    source = {"card": card._asdict(), "source": {"step": 1}, "network": "online", "config": None}
    rest = {"format": export_contents.FORMAT, "notes": [], "licence": ""}
    (folder / export_contents.MODEL).write_text(json.dumps(source | rest))
    return folder


def other_shapes(path):
    """An export whose weights are of another width than its card says."""
    card = encoder_spec.EncoderSpec("micro_resnet", image_size=32)
    write_encoder(path, card, random_network(card._replace(width_multiplier=2)))


BAD_FILES = {
    "truncated.pkl": (truncated, "damaged"),
    "head.pkl": (lambda path: path.write_bytes(whole_file()), "holds no encoder"),
    "hostile.pt": (lambda p: p.write_bytes(zipped(pickle.dumps(HOSTILE["eval"], 2))), "refuses"),
    **{
        f"hostile{number}.pkl": (
            lambda path, what=what: path.write_bytes(whole_file(HOSTILE_PICKLES[what])),
            "refuses",
        )
        for number, what in enumerate(("os.system", "builtins.eval", "dill._dill._create_function"))
    },
    "truncated.safetensors": (
        lambda path: (tensors_file(path, eighteen()), os.truncate(path, 10_000)),
        "Cannot read",
    ),
    "shapes.safetensors": (
        lambda path: tensors_file(path, eighteen() | {"bn1.bias": np.zeros(3, np.float32)}),
        "holds bn1.bias of shape (3,), not (64,)",
    ),
    "head.safetensors": (
        lambda path: tensors_file(path, {"fc.weight": np.zeros((10, 512), np.float32)}),
        "Of a head alone nothing can be made",
    ),
    "other_shapes": (other_shapes, "looks like micro_resnet, but holds"),
    "no_checkpoint": (lambda path: (path.mkdir(), (path / "notes").touch()), "No checkpoint"),
    "nowhere": (lambda path: None, "No checkpoint at"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_the_command_refuses_bad_files_in_a_line_and_writes_nothing(name, tmp_path):
    make, message = BAD_FILES[name]
    make(tmp_path / name)
    before = set(os.listdir(tmp_path))
    status, text = finish(start(tmp_path, tmp_path / name), tmp_path)
    assert status == 2 and message in text and "Traceback" not in text, text
    assert set(os.listdir(tmp_path)) == before | {"log.txt"}


def test_a_target_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    status, text = finish(start(tmp_path, PICKLE, workdir="file/export"), tmp_path)
    assert status == 2 and "file/export: Not a directory. Nothing was written" in text, text
    assert "Traceback" not in text and set(os.listdir(tmp_path)) == {"file", "log.txt"}


def test_interrupted_it_leaves_nothing_and_the_same_command_works(tmp_path):
    process = start(tmp_path, PICKLE)
    deadline = time.monotonic() + 60
    log = tmp_path / "log.txt"
    while time.monotonic() < deadline:
        if log.exists() and "Writing stablehlo" in log.read_text():
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    status, text = finish(process, tmp_path)
    assert status == 130 and "Interrupted" in text and "Traceback" not in text, text
    assert os.listdir(tmp_path) == ["log.txt"]
    status, text = finish(start(tmp_path, PICKLE), tmp_path)
    assert status == 0, text
    assert (tmp_path / "export" / "encoder.stablehlo").exists()


# What others need to read it.


def test_the_guides_snippet_runs_stablehlo_with_jax_alone(of_pickle, tmp_path):
    installed = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
    assert {"byol_jax", "haiku", "optax", "chex", "orbax", "ml_collections"} <= installed
    jaxs_own = {"jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum"}
    public = {name for name in installed if not name.startswith("_")}
    without = public - jaxs_own - {"flatbuffers", "safetensors"}
    features = snippets.features_of(
        snippets.snippet("import jax.export"), tmp_path, {"export": of_pickle}, without=without
    )
    batch = {n: x.load() for n, x in torch_checkpoint.open_tensors(of_pickle / TEST_BATCH).items()}
    expected = encoders.load_encoder(str(PICKLE)).encode(batch["images"])
    assert golden_data.relerr(features, expected) <= formats.TOLERANCE
