"""The layout of docs/design.md: who may import whom, and one door for every dependency."""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "byol_jax"
# A room imports only from rooms of lines before its own; those of one line do not know each other.
ORDER = (
    "config",
    "plugins",
    "host",
    "distributed",
    "workdir",
    "models augment metrics objectives",
    "data",
    "data.prepare",
    "checkpoints",
    "training",
    "evaluation",
    "curation",
    "report",
    "visualize",
    "export",
    "detection",
    "cli",
    "studies comparison",
    "tasks",
    "inspect main_loop",
    "registry",
    "api_evaluation",
    "api",
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms.split()}
DOORS = {
    "absl": {"cli.command_line", "main_loop"},
    "array_record": {"data.prepare.array_record"},
    "cv2": {"data.host_crops", "data.pixel_views", "data.prepare.shrinking"},
    "dill": set(),
    "google_crc32c": {"data.prepare.tfrecord"},
    "grain": {
        "data.train_loader",
        "data.eval_loader",
        "data.pixel_loader",
        "data.pixel_sets",
    },
    "h5py": {"data.nyu"},
    "huggingface_hub": {"checkpoints.hub", "export.hub_folder"},
    "matplotlib": {"report.figures", "studies.plots"},
    "onnxruntime": {"export.torch_export"},
    "orbax": {"checkpoints.manager", "checkpoints.orbax_reader"},
    # What follows pickles never unpickles: it takes the list of opcodes, and nothing else.
    "pickle": set(),
    "pickletools": {"checkpoints.safe_pickle"},
    "PIL": {
        "curation.pictures",
        "data.deep_color",
        "data.image_formats",
        "data.pillow_images",
        "visualize.thumbnails",
    },
    "pillow_heif": {"data.pillow_images"},
    "pyarrow": {"tasks.embed", "tasks.predict"},
    "safetensors": {"checkpoints.torch_checkpoint"},
    "simplejpeg": {"data.image_decoding", "data.prepare.shrinking"},
    "scipy": {
        "curation.duplicates",
        "data.nyu",
        "data.pixel_targets",
        "objectives.ssl_hsic",
        "studies.results",
    },
    "sklearn": {
        "curation.label_errors",
        "curation.selection",
        "training.online_eval",
        "evaluation.logistic_regression",
        "visualize.embedding_map",
    },
    "tensorboardX": {"workdir.tensorboard"},
    "tensorflow": set(),
    "tensorflow_datasets": {
        "data.tfds_source",
        "data.prepare.pack_sources",
        "data.prepare.packed_dataset",
        "tasks.convert",
    },
    "torch": {
        "export.torch_export",
        "export.torch_module",
        "detection.network",
        "detection.training",
    },
    "torchvision": {"export.torch_export", "detection.network", "detection.training"},
    "wandb": {"workdir.trackers"},
}
TEXTS_OF_JAX = {  # what only one room may mention
    r"jax\.pmap\(": "distributed",
    r"jax\.shard_map\(": "distributed",
    r"(?<!byol_)jax\.distributed": "distributed",
}
# What a task that can be resumed keeps its finished work with.
KEEPERS = {"evaluation.resume", "training.run_saver", "data.prepare.packed_dataset"}


def module_name(path):
    """Such as ``data.prepare.pack_sources``."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {
    module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.stem != "__init__"
}
MODULES = {name: path for name, path in MODULES.items() if path.stem != "__main__"}


def room(module):
    """The folder of a module, or the module itself at the top."""
    return module.rpartition(".")[0] or module


def imports(path):
    """Full names of everything that a file imports, also inside of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path):
    """Modules of this package that a file imports."""
    for name in imports(path):
        if name.startswith("byol_jax."):
            name = name.removeprefix("byol_jax.")
            yield name if name in MODULES else name.rpartition(".")[0]


def test_every_module_is_in_a_room():
    assert {room(module) for module in MODULES} == set(LEVEL)


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_only_from_rooms_before_them(module):
    own = room(module)
    for name in ours(MODULES[module]):
        assert room(name) == own or LEVEL[room(name)] < LEVEL[own], f"{module} imports {name}"


def test_inside_a_room_there_are_no_circles():
    graph = {module: set(ours(path)) for module, path in MODULES.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_private_names_stay_in_their_module(module):
    tree = ast.parse(MODULES[module].read_text())
    names = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("byol_jax")
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            is_private = node.attr.startswith("_") and not node.attr.startswith("__")
            is_of_tuples = node.attr in ("_replace", "_asdict", "_fields")
            assert node.value.id not in names or not is_private or is_of_tuples, (
                f"{module} uses {node.value.id}.{node.attr}"
            )


@pytest.mark.parametrize("module", MODULES)
def test_dependencies_have_one_door(module):
    for name in imports(MODULES[module]):
        allowed = DOORS.get(name.split(".")[0])
        assert allowed is None or module in allowed, f"{module} imports {name}"


def test_reports_need_nothing_of_ours():
    """They can be made wherever a run's files are."""
    for module in MODULES:
        if room(module) == "report":
            assert {room(name) for name in ours(MODULES[module])} <= {"report"}, module


@pytest.mark.parametrize("text, owner", TEXTS_OF_JAX.items())
def test_only_one_room_knows_of_several_devices_and_processes(text, owner):
    found = [name for name, path in MODULES.items() if re.search(text, path.read_text())]
    assert [name for name in found if room(name) != owner] == []


def test_tasks_are_named_as_their_configs():
    configs = {path.stem for path in (ROOT / "configs").glob("*.py")}
    tasks = {name.rpartition(".")[2] for name in MODULES if room(name) == "tasks"}
    assert tasks == configs - {"byol"} | {"pretrain"}


def keys(name):
    """Of a dictionary of `main_loop`, read without importing it, which takes seconds."""
    for node in ast.parse(MODULES["main_loop"].read_text()).body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if getattr(targets[0], "id", None) == name:
            return set(map(ast.literal_eval, node.value.keys))
    raise LookupError(name)


def test_only_tasks_that_keep_what_they_have_finished_say_so_when_they_are_interrupted():
    resumed = {
        name
        for name in keys("TASKS")
        if KEEPERS & set(ours(MODULES[f"tasks.{name}"]))
        or "array_record.write_shard" in MODULES[f"tasks.{name}"].read_text()
    }
    assert resumed == keys("LEFT")


def test_tests_and_experiments_do_not_import_each_other():
    for folder, other in (("tests", "experiments"), ("experiments", "tests")):
        for path in (ROOT / folder).rglob("*.py"):
            assert not [name for name in imports(path) if name.split(".")[0] == other], path


def test_the_package_runs_without_tensorflow():
    """TFDS needs TensorFlow only to prepare a set: nothing that we lock may bring it in."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert not [line for line in lines if line.split("==")[0] in ("tensorflow", "tensorflow-cpu")]
