"""Help: complete, quick, and before JAX; configs found from any folder."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

import byol_jax
from byol_jax import config as config_lib
from byol_jax import main_loop
from byol_jax.cli import config_files, help_pages
from byol_jax.models import resnet
from byol_jax.objectives import table

ROOT = pathlib.Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def command(*words, cwd, module="byol_jax", options=()):
    """Status, output and errors of a command."""
    done = subprocess.run(
        [sys.executable, *options, "-m", module, *words],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_help_lists_all_tasks_presets_encoders_and_objectives():
    text = help_pages.overview()
    assert set(help_pages.task_names()) == set(main_loop.TASKS)
    for task in main_loop.TASKS:
        assert re.search(rf"^  {task} +\S", text, re.MULTILINE), task
    assert help_pages.names(*help_pages.ENCODERS) == list(resnet.ENCODERS)
    assert help_pages.names(*help_pages.OBJECTIVES) == list(table.OBJECTIVES)
    for word in (*resnet.ENCODERS, *table.OBJECTIVES, "imagenet-1000", "1percent", "reference"):
        assert re.search(rf"[ ]{word}(,|$)", text, re.MULTILINE), word
    assert max(map(len, text.splitlines())) <= help_pages.WIDTH


def test_every_flag_of_ours_is_in_the_help():
    from byol_jax.cli import command_line

    for flag in command_line.FLAGS:
        assert f"--{flag}" in help_pages.overview()


# What a study is, which its text says and no flag changes.
OF_THE_FILE = (
    *("question", "base", "settings", "axes", "metrics", "paper", "paper_title", "findings"),
)


@pytest.mark.parametrize("task", main_loop.TASKS)
def test_help_of_a_task_names_every_key_with_its_value(task):
    text = help_pages.task(task)
    config = config_files.load(task)
    assert text.startswith(config_files.own(task).read_text().split('"""')[1].split("\n")[0])
    for key, value in config_lib.flatten(config.to_dict()).items():
        if key not in ("task", "preset", *(OF_THE_FILE if task == "study" else ())):
            assert f"  {key} = {'unset' if value is None else repr(value)}" in text


def test_help_shows_the_comment_of_each_key_and_no_other():
    rows = dict(
        re.findall(r"^  (\S+) = [^#\n]*?(?:# (.*))?$", help_pages.task("pretrain:folder"), re.M)
    )
    assert rows["batch_size"] == "of all devices together"
    assert rows["model.stem"] == "imagenet | cifar | cifar_margin | patch"
    assert "each optimizer has settings" in rows["optimizer.name"]
    assert "prepared TFDS sets" in rows["data.dir"]
    assert "1,281,167" not in rows["data.train_split"]  # a remark on another preset
    assert "all devices together" in help_pages.task("preview")


HELP = {
    "overview": ("byol_jax", ["--help"], "Encoders"),
    "nothing": ("byol_jax", [], "Encoders"),
    "word": ("byol_jax", ["help"], "Encoders"),
    "help of a task": ("byol_jax", ["help", "knn"], "knn.temperature"),
    "task": ("byol_jax", ["pretrain:folder", "-h"], "preset folder"),
    "version": ("byol_jax", ["--version"], byol_jax.__version__),
    "inspect": ("byol_jax", ["inspect", "-h"], "Usage: byol-jax inspect"),
    "report": ("byol_jax", ["report", "-h"], "--watch"),
    "main_loop": ("byol_jax.main_loop", ["-h"], "Encoders"),
    "main_loop of a config": ("byol_jax.main_loop", ["--config=knn.py", "--help"], "knn.k ="),
    "main_loop's version": ("byol_jax.main_loop", ["--version"], byol_jax.__version__),
    "inspect alone": ("byol_jax.inspect", ["--help"], "Usage: byol-jax inspect"),
    "inspect's version": ("byol_jax.inspect", ["--version"], byol_jax.__version__),
    "report alone": ("byol_jax.report", ["--version"], byol_jax.__version__),
}


@pytest.mark.parametrize("case", HELP)
def test_help_comes_from_any_folder_without_jax(case, tmp_path):
    module, words, expected = HELP[case]
    status, text, errors = command(
        *words, cwd=tmp_path, module=module, options=["-X", "importtime"]
    )
    assert status == 0 and expected in text
    assert not re.search(r"\| +(jax|numpy)$", errors, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


WRONG = {
    "task": (["pretrian"], "Unknown task: 'pretrian'. Did you mean 'pretrain'?"),
    "help": (["pretrian", "--help"], "Did you mean 'pretrain'?"),
    "preset": (["pretrain:foldr"], "Did you mean 'folder'?"),
    "preset of help": (["pretrain:foldr", "-h"], "Did you mean 'folder'?"),
    "key": (["knn", "--config.checkpont=x"], "Did you mean --config.checkpoint?"),
    "flag first": (["--workdir=x", "knn"], "Name a task before --workdir=x"),
    "two": (["knn", "--config=configs/embed.py"], "--config is given 2 times"),
    "file": (["nothing.py"], "Cannot read the file of --config=nothing.py"),
    "no presets": (["knn:folder"], "has no presets: type --config=knn."),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_in_one_line_before_jax_is_imported(case, tmp_path):
    words, expected = WRONG[case]
    status, text, errors = command(*words, cwd=tmp_path)
    assert status == 2 and text == ""
    assert errors.count("\n") == 1 and errors.startswith("Error: ") and expected in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["configs/knn.py", "knn.py", "knn", str(ROOT / "configs/knn.py")])
def test_configs_are_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.load(name).task == "knn"
    assert config_files.load("configs/preview.py:folder").preset == "folder"
    assert config_files.load("pretrain:folder").task == "pretrain"


def test_a_file_in_the_working_folder_wins_over_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for path in (tmp_path / "configs" / "knn.py", tmp_path / "knn.py"):
        path.write_text((ROOT / "configs" / "knn.py").read_text().replace("= 256", "= 7"))
    assert config_files.load("configs/knn.py").batch_size == 7
    assert config_files.load("knn.py").batch_size == 7
    assert config_files.load("knn").batch_size == 256  # a name, not a file


def test_only_paths_of_ours_lead_to_our_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("elsewhere/knn.py", "../knn.py", str(tmp_path / "knn.py"), "knn.txt"):
        with pytest.raises(config_lib.UsageError, match="Cannot read.*configs/byol.py"):
            config_files.load(name)


def test_installed_configs_are_those_in_the_package(tmp_path):
    """Beside an installed package a folder configs may be anybody's."""
    shutil.copytree(ROOT / "byol_jax", tmp_path / "site" / "byol_jax")
    shutil.copytree(ROOT / "configs", tmp_path / "site" / "byol_jax" / "configs")
    (tmp_path / "site" / "configs").mkdir()
    (tmp_path / "site" / "configs" / "knn.py").write_text("raise ValueError")
    code = "from byol_jax.cli import config_files as c; print(c.load('knn').task, c.OURS)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["knn", str(tmp_path / "site" / "byol_jax" / "configs")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_jax_is_imported_ends_the_command_in_a_word(number, tmp_path):
    code = (
        "import sys, time; sys.argv = ['byol-jax', 'knn'];"
        "sys.meta_path.insert(0, type('Slow', (), {'find_spec': staticmethod("
        "lambda name, *_: time.sleep(30) or None if name == 'jax' and "
        "not print('importing', flush=True) else None)}));"
        "from byol_jax.__main__ import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 128 + number and errors.strip() == "Interrupted."
