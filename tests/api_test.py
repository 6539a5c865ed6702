"""The Python API: what it takes, what it gives, and that the command line does the same."""

import doctest
import functools
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import byol_jax
from byol_jax import api, api_evaluation, plugins, registry
from byol_jax.augment import extra
from byol_jax.checkpoints import classifiers, encoders
from byol_jax.cli import overrides, typed_values
from byol_jax.data import agreement, array_dataset, datasets, patterns
from byol_jax.export import formats
from byol_jax.host import signals
from byol_jax.models import encoder_spec, inference, resnet
from byol_jax.objectives import table
from byol_jax.tasks import embed
from byol_jax.training import run_files
from tests.conftest import make_config
from tests.support import snippets

ROOT = pathlib.Path(__file__).parents[1]
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
LABELS = np.arange(40) % 4
SMALL = {"total_steps": 2, "batch_size": 8, "log_every_steps": 1, "probe.every_steps": 100}


@pytest.fixture(scope="session")
def encoder():
    """Of random weights; what an encoder is worth plays no part here."""
    card = encoder_spec.EncoderSpec("tiny_resnet", stem="cifar", image_size=32)
    forward = encoder_spec.make_forward(card)
    images = np.zeros((1, 32, 32, 3), np.float32)
    init = jax.jit(functools.partial(forward.init, is_training=False, part="encoder"))
    params, state = init(jax.random.key(0), images)
    identity = {"path": "nowhere", "step": 0, "encoder": "tiny_resnet", "parameters": 1}
    identity |= {"trained_on": None, "sha256": encoders.fingerprint(params, state)}
    return encoders.make_encoder(None, card, params, state, identity)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, byol_jax; byol_jax.__version__; dir(byol_jax); "
        "print([n for n in ('jax', 'numpy', 'absl', 'ml_collections') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


def test_every_public_name_is_there_and_listed():
    assert set(byol_jax.__all__) <= set(dir(byol_jax))
    assert all(getattr(byol_jax, name) is not None for name in byol_jax.__all__)
    assert byol_jax.evaluate.knn is byol_jax.evaluate_knn
    assert (ROOT / "byol_jax" / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'load_model'"):
        byol_jax.load_model  # noqa: B018


def test_export_is_a_function_and_a_package_at_once(monkeypatch):
    monkeypatch.setattr(api, "export", lambda *given: given)
    assert byol_jax.export("run", "out") == ("run", "out")
    assert byol_jax.export.formats is formats


# Encoders.


def test_a_float_image_and_its_uint8_give_equal_embeddings(encoder):
    expected = encoder.embed(IMAGES)
    for kind in (np.float32, np.float64):
        found = encoder.embed(IMAGES.astype(kind) / kind(255))
        np.testing.assert_allclose(found, expected, atol=1e-4)  # of up to 30


def test_embeddings_of_all_batch_sizes_are_alike(encoder):
    expected = encoder.embed(IMAGES)
    assert expected.shape == (40, encoder.embedding_size) and expected.dtype == np.float32
    np.testing.assert_allclose(encoder.embed(IMAGES, batch_size=16), expected, atol=1e-5)
    np.testing.assert_array_equal(encoder.embed(jnp.asarray(IMAGES)), expected)
    np.testing.assert_array_equal(encoder.embed(list(IMAGES)), expected)
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        encoder.embed(IMAGES, batch_size=0)


def test_images_of_another_size_are_resized_as_evaluations_do(encoder):
    large = np.repeat(np.repeat(IMAGES[:4], 2, axis=1), 2, axis=2)
    expected = encoder.encode(np.asarray(inference.resize(large, 32)))
    np.testing.assert_allclose(encoder.embed(large), expected, atol=1e-4)


def test_a_bar_is_shown_on_request_alone(encoder, capsys):
    encoder.embed(IMAGES)
    assert capsys.readouterr().err == ""
    encoder.embed(IMAGES, progress=True)
    assert "embed" in capsys.readouterr().err


FLOATS = IMAGES.astype(np.float32)
UNUSABLE = {
    "RGBA": (np.zeros((2, 8, 8, 4), np.uint8), r"images\[\.\.\., :3\]"),
    "gray with an axis": (np.zeros((2, 8, 8, 1), np.uint8), "np.repeat"),
    "gray": (np.zeros((2, 8, 8), np.uint8), "np.repeat"),
    "channels first": (np.zeros((2, 3, 8, 8), np.uint8), "transpose"),
    "one image": (IMAGES[0], r"images\[None\]"),
    "none": (IMAGES[:0], "empty"),
    "floats up to 255": (FLOATS, "divide by 255"),
    "normalized": (FLOATS / 255 - 0.5, r"must be in \[0, 1\]"),
    "NaN": (np.full((2, 8, 8, 3), np.nan), "NaN"),
    "integers": (IMAGES.astype(np.int64), "astype"),
    "objects": (np.array([None] * 3), "np.stack"),
    "several sizes": ([IMAGES[0], IMAGES[0, :5]], "one size"),
    "bools": (IMAGES > 9, "must be uint8"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_is_no_batch_of_rgb_images_is_refused_with_what_to_convert(case, encoder):
    images, message = UNUSABLE[case]
    with pytest.raises(ValueError, match=message):
        encoder.embed(images)


@pytest.mark.parametrize("shape", [(2, 8, 8, 4), (2, 8, 8, 1), (2, 3, 8, 8), (8, 8, 3)])
def test_the_network_itself_takes_no_other_channels(shape, encoder):
    with pytest.raises(ValueError, match=r"Images must be \[b, H, W, 3\]"):
        encoder.encode(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="must be uint8, or float"):
        encoder.encode(np.zeros((2, 8, 8, 3), np.int32))


# Data sets of arrays.


def test_any_sequence_of_images_is_a_data_set():
    class Photos:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return IMAGES[range(3)[index]]

    data = byol_jax.ArrayDataset(Photos(), labels=[0, 1, -1])
    np.testing.assert_array_equal(data.images, IMAGES[:3])
    assert len(data) == 3 and data.num_classes == 2 and data.labels.dtype == np.int32
    assert len(byol_jax.ArrayDataset(jnp.asarray(IMAGES))) == 40


def test_a_memmap_stays_on_disk(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    data = byol_jax.ArrayDataset(np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert isinstance(data.images, np.memmap) and isinstance(data.take(5).images, np.memmap)
    assert (data.labels == -1).all() and data.num_classes == 0


BAD_DATA = {
    "an image of another size": (dict(images=[IMAGES[0], IMAGES[1, :9]]), "Image 1 is"),
    "a gray image": (dict(images=[IMAGES[0], IMAGES[1, ..., 0]]), "Image 1 must be uint8"),
    "nothing": (dict(images=[]), "at least one image"),
    "no sequence": (dict(images=3), "__getitem__"),
    "floats": (dict(images=IMAGES / 255), "np.rint"),
    "names as labels": (dict(images=IMAGES, labels=["cat"] * 40), "np.unique"),
    "labels of fewer images": (dict(images=IMAGES, labels=[0]), "there are 1"),
    "a label out of range": (dict(images=IMAGES, labels=LABELS, num_classes=3), "image 3"),
    "too few names": (dict(images=IMAGES, labels=LABELS, class_names="ab"), "2"),
    "names in place of a number": (dict(images=IMAGES, num_classes=["a"]), "class_names="),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_what_is_no_data_set_is_refused(case):
    given, message = BAD_DATA[case]
    with pytest.raises(ValueError, match=message):
        byol_jax.ArrayDataset(**given)


def test_arrays_are_known_by_their_content():
    whole = byol_jax.ArrayDataset(IMAGES, LABELS)
    others = [
        byol_jax.ArrayDataset(IMAGES[::-1], LABELS),
        byol_jax.ArrayDataset(IMAGES, LABELS[::-1]),
        byol_jax.ArrayDataset(IMAGES[:39], LABELS[:39]),
        byol_jax.ArrayDataset(IMAGES.reshape(40, 16, 64, 3), LABELS),
    ]
    digests = {agreement.digest(data) for data in [whole, *others]}
    assert len(digests) == 5 and agreement.digest(whole) in digests


def test_data_sets_are_as_long_as_they_have_images():
    assert len(datasets.load("patterns", "test")) == patterns.SPLITS["test"].num_images
    assert len(datasets.RecordDataset(records=None, num_images=7, num_classes=0)) == 7


# Overrides.

WRONG = {
    "a key": ({"total_epoch": 3}, "Did you mean total_epochs"),
    "a section": ({"data": 3}, "is a section"),
    "a text for a number": ({"batch_size": "many"}, "takes a whole number"),
    "a digit in a text": ({"batch_size": "64"}, "takes int"),
    "a part of a step": ({"batch_size": 6.5}, "takes a whole number"),
    "yes for a number": ({"batch_size": True}, "takes a whole number"),
    "texts for numbers": ({"data.mean": ("a",)}, "takes one number or several"),
    "a key without effect": ({"accumulate_statistics": "exact"}, "add accumulate=2"),
    "out of range": ({"batch_size": 0}, "^batch_size must be above 0, not 0"),
    "no module": ({"plugins": ("a b",)}, "names of modules"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_overrides_are_refused_before_anything_is_written(case, tmp_path):
    values, message = WRONG[case]
    with pytest.raises(byol_jax.UsageError, match=message) as caught:
        byol_jax.pretrain(make_config(), overrides=values, workdir=tmp_path / "run")
    assert "--" not in str(caught.value)  # no flag was typed
    assert not (tmp_path / "run").exists()


def test_the_address_of_a_bucket_is_no_workdir_and_no_folder_of_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(byol_jax.UsageError, match="workdir=gs://lab/a is an address"):
        byol_jax.pretrain("configs/byol.py", workdir="gs://lab/a")
    with pytest.raises(byol_jax.UsageError, match="data.dir=gs://lab/a is an address"):
        datasets.load("folder", "train", data_dir="gs://lab/a")
    assert not list(tmp_path.iterdir())


def test_overrides_are_set_in_the_type_of_the_key():
    config = make_config()
    values = {"total_epochs": 3, "data.mean": [0.1, 0.2, 0.3], "batch_size": np.int64(4)}
    overrides.apply(config, values | {"total_steps": None, "plugins": "a.b"})
    assert config.total_epochs == 3.0 and isinstance(config.total_epochs, float)
    assert config.data.mean == (0.1, 0.2, 0.3) and config.batch_size == 4
    assert config.total_steps is None and config.plugins == ("a.b",)
    typed_values.check("plugins", tuple, "my_lab.parts")
    typed_values.check("plugins", tuple, "('my_lab.parts', 'other')")


# Plugins.


@pytest.fixture
def tables(monkeypatch):
    owners = {"OBJECTIVES": table, "ENCODERS": resnet, "DATASETS": datasets, "AUGMENTATIONS": extra}
    for name, owner in owners.items():
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))


PLUGIN = """
    import numpy as np
    import byol_jax
    from byol_jax.objectives import byol

    @byol_jax.register_objective("outside")
    def loss(online, target):
        return 0.5 * byol.byol_loss(online, target)

    @byol_jax.register_augmentation("outside")
    def tint(key, image):
        return image * np.array([1.0, 0.9, 0.8], np.float32)

    @byol_jax.register_dataset("outside")
    def load(split, data_dir):
        images = np.random.default_rng(len(split)).integers(0, 256, (40, 32, 32, 3))
        return byol_jax.ArrayDataset(images.astype(np.uint8), class_names=("a", "b"))
"""


def write_plugin(folder, name, text=PLUGIN):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    (folder / name / "parts.py").write_text(textwrap.dedent(text))


def test_a_module_from_outside_registers_its_parts(tmp_path, monkeypatch, tables):
    write_plugin(tmp_path, "inside_lab")
    monkeypatch.syspath_prepend(tmp_path)
    config = make_config(**{"plugins": ("inside_lab.parts",), "objective.name": "outside"})
    plugins.load(config)
    plugins.load(config)  # again is no mistake
    assert table.OBJECTIVES["outside"].has_predictor
    assert len(datasets.load("outside", "train")) == 40
    assert extra.find(("outside",), view="view1")[0].apply(None, np.ones(3)).tolist() != [1, 1, 1]
    assert datasets.class_names(datasets.load("outside", "train"), "outside", "") == ["a", "b"]


def test_a_name_that_is_taken_is_refused(tables):
    for name, register in (
        ("byol", lambda name: registry.register_objective(name)(len)),
        ("resnet50", lambda name: registry.register_encoder(name, None)),
        ("folder", lambda name: registry.register_dataset(name)(len)),
    ):
        with pytest.raises(byol_jax.UsageError, match=f"'{name}' is registered already"):
            register(name)


REGISTER = {
    "objective": lambda name, part: registry.register_objective(name)(part),
    "encoder": registry.register_encoder,
    "dataset": lambda name, part: registry.register_dataset(name)(part),
    "augmentation": lambda name, part: registry.register_augmentation(name)(part),
}


@pytest.mark.parametrize("kind", REGISTER)
def test_a_notebook_cell_that_is_run_again_replaces_its_part(kind, tables):
    cell = f"def mine(*args):\n    pass\nregister('mine_{kind}', mine)"
    for _ in range(2):
        exec(cell, {"__name__": "__main__", "register": REGISTER[kind]})
    elsewhere = {"__name__": "other_lab", "register": REGISTER[kind]}
    with pytest.raises(byol_jax.UsageError, match=f"'mine_{kind}' is registered already"):
        exec(cell, elsewhere)


def test_the_newer_part_of_the_same_origin_counts():
    table = {"own": 0}
    for part in (1, 2):
        plugins.register(table, "mine", part, what="part of a test", origin="lab.mine")
    assert table == {"own": 0, "mine": 2}
    for name, origin in (("mine", "lab.other"), ("own", "lab.own")):
        with pytest.raises(byol_jax.UsageError, match=f"'{name}' is registered already"):
            plugins.register(table, name, 3, what="part of a test", origin=origin)
    assert table == {"own": 0, "mine": 2}


def test_a_plugin_that_cannot_be_imported_is_named_with_its_error(tmp_path, monkeypatch):
    write_plugin(tmp_path, "broken_lab", "1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for name, message in (("no_such_lab", "ModuleNotFoundError"), ("broken_lab.parts", "division")):
        with pytest.raises(byol_jax.UsageError, match=f"plugin '{name}' .*{message}"):
            plugins.load(make_config(plugins=(name,)))


def test_a_config_without_plugins_is_that_of_a_run_without_any(tmp_path):
    config = make_config()
    old = config.to_dict()
    del old["plugins"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert run_files.changes(tmp_path, config.to_dict(), warn=print) == []
    with pytest.raises(byol_jax.UsageError, match="plugins"):
        run_files.changes(tmp_path, make_config(plugins=("lab",)).to_dict(), warn=print)


# Whole runs.


@pytest.fixture(scope="module")
def data():
    return byol_jax.ArrayDataset(IMAGES, LABELS, class_names=("w", "x", "y", "z"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    """A run on arrays, and what its callback was told."""
    rows = []
    found = byol_jax.pretrain(
        make_config(**{"gallery.max_images": 20}),
        train=data,
        overrides=SMALL,
        workdir=tmp_path_factory.mktemp("api") / "run",
        callbacks=[lambda step, row: rows.append({"step": step, **row})],
    )
    return found, rows


@pytest.mark.slow
def test_a_run_on_arrays_gives_its_metrics_and_its_encoder(run, data, capsys):
    found, rows = run
    assert found.step == 2 and [row["step"] for row in rows] == [
        row["step"] for row in found.metrics
    ]
    losses = [row["train/loss"] for row in found.metrics if "train/loss" in row]
    assert losses == [row["train/loss"] for row in rows if "train/loss" in row] and len(losses) == 2
    assert found.encoder.embed(IMAGES).shape == (40, 96)
    assert (found.workdir / "report.html").exists()
    stored = json.loads((found.workdir / "data.json").read_text())
    assert stored["num_images"] == 36 and stored["fingerprint"]
    capsys.readouterr()
    again = byol_jax.pretrain(found.config, train=data, workdir=found.workdir)
    assert again.step == 2 and "Resuming from step 2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_arrays_alone(run):
    other = byol_jax.ArrayDataset(255 - IMAGES, LABELS)
    with pytest.raises(byol_jax.UsageError, match="not those that this run began with"):
        byol_jax.pretrain(run[0].config, train=other, workdir=run[0].workdir)


@pytest.mark.slow
def test_images_of_a_run_on_arrays_are_in_no_file(run):
    with pytest.raises(byol_jax.UsageError, match="arrays that Python handed over"):
        datasets.load(run[0].config.data.name, "train")


@pytest.mark.slow
def test_evaluations_of_arrays_give_what_their_files_hold(run, data, tmp_path):
    encoder = run[0].encoder
    result = byol_jax.evaluate.knn(encoder, data, data.take(20), k=[3], workdir=tmp_path / "knn")
    assert result == json.loads((tmp_path / "knn" / "result.json").read_text())
    assert result["num_images"]["evaluated"] == 20 and result["table"][0]["k"] == 3
    alone = byol_jax.evaluate.knn(str(run[0].workdir), data, k=[3])
    assert alone["protocol"] == "leave-one-out on the train split"
    result = byol_jax.evaluate.linear(
        encoder, data, data.take(20), overrides={"total_epochs": 2, "batch_size": 8}
    )
    assert result["num_images"]["evaluated"] == 20 and 0 <= result["accuracy"]["top1"] <= 1
    with pytest.raises(byol_jax.UsageError, match="knn.temperature"):
        byol_jax.evaluate.knn(encoder, data, overrides={"temperature": 1})


@pytest.mark.slow
def test_embeddings_equal_those_of_the_command_to_the_bit(run_folder, tmp_path):
    from configs import embed as embed_config

    config = embed_config.get_config()
    config.checkpoint = str(run_folder)
    embed.run(config, tmp_path)
    expected = np.load(tmp_path / "embeddings.npz")["features"]
    images = byol_jax.load_dataset("patterns", "test").images
    found = byol_jax.load_encoder(run_folder).embed(images)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_the_python_of_the_readme_runs_as_it_stands(run_folder, tmp_path, monkeypatch):
    """In a folder that holds a run; its training is cut down to two steps of a small encoder."""
    small = SMALL | {"model.encoder": "tiny_resnet", "data.image_size": 32, "batch_size": 4}
    small |= {"model.stem": "cifar", "gallery.max_images": 0, "optimizer.warmup_epochs": 0}
    monkeypatch.setattr(byol_jax, "pretrain", functools.partial(api.pretrain, overrides=small))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "pretrain-patterns").symlink_to(run_folder)
    names = {"images": IMAGES}
    exec(snippets.snippet("import byol_jax\n\nencoder ="), names)
    assert names["features"].shape == (40, 96) and names["run"].step == 2
    assert (tmp_path / "runs" / "mine-export" / "model.json").exists()


@pytest.mark.slow
def test_an_exception_in_a_callback_ends_the_run_with_it(data, tmp_path):
    def fail(step, row):
        if step == 2 and "train/loss" in row:
            raise ZeroDivisionError("mine")

    options = {"train": data, "overrides": SMALL | {"checkpoint_every_steps": 1}}
    options |= {"workdir": tmp_path / "run"}
    with pytest.raises(ZeroDivisionError, match="mine"):
        byol_jax.pretrain(make_config(), **options, callbacks=[fail])
    assert byol_jax.load_encoder(tmp_path / "run").identity["step"] >= 1
    assert byol_jax.pretrain(make_config(), **options).step == 2


@pytest.mark.slow
def test_an_interrupted_run_is_saved_and_says_so(data, tmp_path):
    def stop(step, row):
        if step == 1 and "train/loss" in row:
            signals.signal.raise_signal(signals.signal.SIGINT)

    before = signals.signal.getsignal(signals.signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="make the same call"):
        byol_jax.pretrain(
            make_config(),
            train=data,
            overrides=SMALL | {"total_steps": 9},
            workdir=tmp_path,
            callbacks=[stop],
        )
    assert 1 <= byol_jax.load_encoder(tmp_path).identity["step"] < 9
    assert signals.signal.getsignal(signals.signal.SIGINT) == before


@pytest.mark.slow
def test_a_run_in_another_thread_comes_to_its_end(data, tmp_path):
    found = []
    options = {"train": data, "test": data, "overrides": SMALL, "workdir": tmp_path}
    thread = threading.Thread(
        target=lambda: found.append(byol_jax.pretrain(make_config(), **options))
    )
    thread.start()
    thread.join()
    assert found[0].step == 2


@pytest.mark.slow
def test_a_plugin_from_outside_trains_by_the_command(tmp_path):
    write_plugin(tmp_path, "outside_lab")
    config = [f"--config.{key}={value}" for key, value in SMALL.items()]
    config += ["--config.plugins=outside_lab.parts", "--config.objective.name=outside"]
    config += ["--config.augment.view2.extra=outside"]
    config += ["--config.data.name=outside", "--config.gallery.max_images=0"]
    command = [sys.executable, "-m", "byol_jax.main_loop", f"--workdir={tmp_path / 'run'}"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command + config, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [row for row in rows if "train/loss" in row]
    command[3:] = [f"--workdir={tmp_path / 'knn'}", "--config=configs/knn.py"]
    command.append(f"--config.checkpoint={tmp_path / 'run'}")
    for known, status in ((os.environ, 2), (environment, 0)):  # its views are needed
        done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert ("Cannot import the plugin 'outside_lab.parts'" in done.stderr) == bool(status)


MODULES = [api, api_evaluation, array_dataset, classifiers, encoders, registry]


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_every_example_runs(module, run, tmp_path_factory, tables):
    encoder, weights = run[0].encoder, np.zeros((run[0].encoder.embedding_size, 2), np.float32)
    classifier = classifiers.Classifier(encoder, ("a", "b"), weights, weights[0], 1.0, {})
    names = vars(api) | {"np": np, "encoder": encoder, "classifier": classifier}
    names["workdir"] = run[0].workdir
    finder = doctest.DocTestFinder()
    count = 0
    for name, example in vars(module).items():
        if getattr(example, "__module__", "") != module.__name__:
            continue
        folder = tmp_path_factory.mktemp(name) / "new"
        for test in finder.find(example, name, module, globs=vars(module) | names):
            test.globs["empty_folder"] = folder
            failed, tried = doctest.DocTestRunner().run(test)
            assert not failed, test.name
            count += tried
    assert count


# Signals.


def test_off_the_main_thread_no_handler_is_set():
    failed = []

    def work():
        try:
            with signals.reacting(signals.Reaction(signals.interrupt)):
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []
