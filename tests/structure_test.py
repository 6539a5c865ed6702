"""The layout of docs/design.md: who may import whom, and one door for every dependency."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
ROWS = [
    set(names.split())
    for names in (
        "config parallel metrics pickles deepmind torch_files torch_encoder images patterns "
        "processes reference console signals",
        "datasets folder host_views records tfds_sets transfer_sets augment crop batch_norm "
        "micro_batches networks resnet cards exported torch_layout objectives optimizers "
        "tensorboard checkpoint loop workdir sessions thumbnails trackers flops snapshots "
        "soundness",
        "input_pipeline eval_pipeline atlas neighbours linear logistic labelled probes "
        "pack_sources packed_set weights views",
        "pretrain curator gallery initial collapse checks finetune build encoders features "
        "baselines evaluation subjects supervised stablehlo torch_export formats forecast "
        "bad_images summary unfinished",
        "run_pretrain run_linear_eval run_finetune run_transfer run_knn run_embed run_export "
        "run_gallery preview inspect convert pack bench_input main_loop",
    )
]
DOORS = {
    "orbax": {"checkpoint", "snapshots"},
    # What follows pickles never unpickles: it takes the list of opcodes, and nothing else.
    "pickle": set(),
    "pickletools": {"pickles"},
    "grain": {"input_pipeline", "eval_pipeline"},
    "tensorflow_datasets": {"tfds_sets", "convert", "pack_sources", "packed_set"},
    "array_record": {"records"},
    "google_crc32c": {"convert"},
    "simplejpeg": {"images", "packed_set"},
    "PIL": {"images", "thumbnails"},
    "pyarrow": {"run_embed"},
    "cv2": {"host_views", "packed_set"},
    "sklearn": {"probes", "logistic", "atlas"},  # scores; maps for people
    "tensorboardX": {"tensorboard"},
    "safetensors": {"torch_files"},
    "torch": {"torch_encoder", "torch_export"},
    "torchvision": {"torch_export"},
    "onnxruntime": {"torch_export"},
    "absl": {"main_loop"},
    "dill": set(),
    "matplotlib": {"report_plots"},
    "wandb": {"trackers"},
    "tensorflow": set(),
}
REPORT = {
    "report",
    "report_charts",
    "report_data",
    "report_page",
    "report_pictures",
    "report_plots",
    "report_preview",
    "report_tables",
    "report_verdict",
    "report_watch",
}
ROWS[0] |= REPORT
MODULES = sorted(path for path in (ROOT / "byol_jax").glob("*.py") if path.stem != "__init__")


def imports(path):
    """Full names of everything that a file imports, also inside of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def row(module):
    return next(number for number, names in enumerate(ROWS) if module in names)


def test_every_module_has_a_row():
    assert {path.stem for path in MODULES} == set().union(*ROWS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_import_only_from_rows_above(path):
    ours = [name.split(".")[1] for name in imports(path) if name.startswith("byol_jax.")]
    # Within a row the order of the listing below is not enforced, cycles Python itself refuses.
    assert all(row(name) <= row(path.stem) for name in ours), ours


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_dependencies_have_one_door(path):
    for name in imports(path):
        allowed = DOORS.get(name.split(".")[0])
        assert allowed is None or path.stem in allowed, f"{path.stem} imports {name}"


@pytest.mark.parametrize("name", sorted(REPORT))
def test_reports_need_nothing_of_ours(name):
    """They can be made wherever a run's files are."""
    ours = [n.split(".")[1] for n in imports(ROOT / "byol_jax" / f"{name}.py") if "byol_jax." in n]
    assert set(ours) <= REPORT


def test_only_parallel_knows_pmap_and_distributed():
    for path in MODULES:
        if path.stem != "parallel":
            text = path.read_text()
            assert "jax.pmap(" not in text and "jax.distributed" not in text, path.stem


def test_the_package_runs_without_tensorflow():
    """TFDS needs TensorFlow only to prepare a set: nothing that we lock may bring it in."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert not [line for line in lines if line.split("==")[0] in ("tensorflow", "tensorflow-cpu")]
