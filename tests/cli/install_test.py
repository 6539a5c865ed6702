"""The wheel: built without a trace, and complete enough to work from an empty folder."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

import byol_jax

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow
SMALL = [
    "--config.total_steps=2",
    "--config.batch_size=16",
    "--config.checkpoint_every_steps=2",
    "--config.log_every_steps=1",
    "--config.probe.every_steps=2",
    "--config.probe.max_images=64",
    "--config.gallery.max_images=0",
    "--config.model.projector_hidden_size=16",
    "--config.model.predictor_hidden_size=16",
]


def tree():
    """All files of the source tree that git knows or ignores, but for what Python and tests add."""
    done = subprocess.run(
        ["git", "status", "--porcelain", "--ignored", "--untracked-files=all"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    return {line for line in lines if "__pycache__" not in line and ".pytest_cache" not in line}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package, built as `pip install .` does, and what that has changed in the tree."""
    if not (ROOT / ".git").exists():
        pytest.skip("the source tree is no clone, whose state git could tell")
    folder = tmp_path_factory.mktemp("wheel")
    before = tree()
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(folder), "."]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)
    if done.returncode and "setuptools>=77" in done.stderr:
        pytest.skip(f"pip cannot fetch setuptools, without network? {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path, tree() - before


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Folder of programs of a new environment, whose other packages are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    variables = {"base": str(folder), "platbase": str(folder)}
    site = pathlib.Path(sysconfig.get_path("purelib", "venv", vars=variables))
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    done = subprocess.run(
        [*install, "--no-deps", "--no-index", "--quiet", str(wheel[0])],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def command(installed, tmp_path_factory):
    """Runs a program of the environment in a folder that was empty at first."""
    folder = tmp_path_factory.mktemp("empty")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"

    def run(program, *words):
        done = subprocess.run(
            [installed / program, *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    run.folder = folder
    return run


def test_building_leaves_nothing_in_the_source_tree(wheel):
    assert wheel[1] == set()


def test_the_wheel_holds_every_module_config_and_file(wheel):
    with zipfile.ZipFile(wheel[0]) as archive:
        held = set(archive.namelist())
    known = subprocess.run(
        ["git", "ls-files", "byol_jax", "configs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for path in known:
        name = f"byol_jax/{path}" if path.startswith("configs/") else path
        assert name in held, f"{name} is not in the wheel"
    assert not [name for name in held if name.startswith(("tests", "experiments", "configs"))]


def test_an_installed_package_works_from_an_empty_folder(command):
    where = "import byol_jax, pathlib; print(pathlib.Path(byol_jax.__file__).parent)"
    assert str(ROOT) not in command("python", "-c", where)
    assert command("byol-jax", "--version").strip() == f"byol_jax {byol_jax.__version__}"
    assert "imagenet-1000" in command("byol-jax", "--help")
    assert "knn.temperature" in command("byol-jax", "knn", "--help")
    command("byol-jax", "pretrain", "--workdir=run", *SMALL)
    command("byol-jax", "knn", "--config.checkpoint=run", "--workdir=knn")
    assert (command.folder / "knn" / "result.json").is_file()
    command("byol-jax", "export", "--config.checkpoint=run", "--workdir=out")
    assert (command.folder / "out" / "model.json").is_file()
    assert "report.html" in command("byol-jax", "report", "run")
    assert "micro_resnet" in command("byol-jax", "inspect", "out")
    command("python", "-m", "byol_jax.main_loop", "--config=configs/preview.py", "--workdir=look")
    assert (command.folder / "look" / "preview.html").is_file()
