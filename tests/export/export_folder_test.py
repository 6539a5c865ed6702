"""Whose folder an export may replace: one that holds an export as it was written, and no other."""

import errno
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

from byol_jax.checkpoints import export_contents, torch_checkpoint
from byol_jax.config import UsageError
from byol_jax.export import export_folder


def write(folder, text="weights"):
    """Something like an export."""
    with export_folder.replaced(folder) as part:
        (part / export_contents.WEIGHTS).write_text(text)
        (part / "encoder.py").write_text("code")
        model = {"format": export_contents.FORMAT, "source": {"path": "a run"}}
        model["files"] = export_folder.list_files(part)
        (part / export_contents.MODEL).write_text(json.dumps(model))
    return folder


def tree(folder):
    """All that is below a folder, links as links."""
    return {
        str(path.relative_to(folder)): path.is_symlink() or path.is_dir() or path.read_bytes()
        for path in folder.rglob("*")
    }


def test_an_export_replaces_an_older_one_and_says_so(tmp_path, capsys):
    write(tmp_path / "export", "old")
    (tmp_path / "export" / "__pycache__").mkdir()  # its module was imported
    (tmp_path / "export" / "__pycache__" / "encoder.cpython-312.pyc").touch()
    assert (write(tmp_path / "export", "new") / export_contents.WEIGHTS).read_text() == "new"
    assert "Replaced the export of a run" in capsys.readouterr().err
    assert set(tree(tmp_path)) == {
        "export",
        "export/model.json",
        f"export/{export_contents.WEIGHTS}",
        "export/encoder.py",
    }


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "export").mkdir()
    write(tmp_path / "export")


def test_a_new_folder_is_as_open_to_others_as_any(tmp_path):
    (tmp_path / "other").mkdir()
    assert write(tmp_path / "export").stat().st_mode == (tmp_path / "other").stat().st_mode


def of_keras(folder):
    (folder / "model.json").write_text('{"class_name": "Functional", "config": {}}')


def link_away(folder):
    shutil.move(folder / export_contents.WEIGHTS, folder.parent / "mine")
    (folder / export_contents.WEIGHTS).symlink_to(folder.parent / "mine")


THEIRS = {
    "a file beside ours": lambda folder: (folder / "notes.txt").write_text("mine"),
    "a hidden file": lambda folder: (folder / ".git").mkdir(),
    "a folder": lambda folder: (folder / "checkpoints").mkdir(),
    "a model.json of Keras": of_keras,
    "a model.json that is nothing": lambda folder: (folder / "model.json").write_text("[]"),
    "a changed file": lambda folder: (folder / "encoder.py").write_text("mycode"),
    "a changed file of the same size": lambda folder: (folder / "encoder.py").write_text("edoc"),
    "a link": link_away,
    "more in the cache": lambda folder: (
        (folder / "__pycache__").mkdir(),
        (folder / "__pycache__" / "notes").touch(),
    ),
}


@pytest.mark.parametrize("what", THEIRS)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_is_not_as_an_export_wrote_it_is_never_replaced(what, when, tmp_path):
    folder = write(tmp_path / "export")
    if when == "before":
        THEIRS[what](folder)
        before = tree(tmp_path)
    with pytest.raises(UsageError, match="export.*(give another --workdir)"):
        with export_folder.replaced(folder) as part:
            assert when == "meanwhile"
            (part / "file").touch()
            THEIRS[what](folder)
            before = {k: v for k, v in tree(tmp_path).items() if not k.startswith(".")}
    assert tree(tmp_path) == before


@pytest.mark.parametrize("end", [".old", ".part", ".tmp"])
def test_folders_that_are_called_alike_are_left_alone(end, tmp_path):
    (tmp_path / f"export{end}").mkdir()
    (tmp_path / f"export{end}" / "thesis.tex").write_text("mine")
    write(write(tmp_path / "export"))
    assert (tmp_path / f"export{end}" / "thesis.tex").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"export", f"export{end}"}


def test_a_link_to_an_export_stays_a_link(tmp_path):
    write(tmp_path / "real", "old")
    (tmp_path / "export").symlink_to("real")
    write(tmp_path / "export", "new")
    assert (tmp_path / "export").is_symlink()
    assert (tmp_path / "real" / export_contents.WEIGHTS).read_text() == "new"


def test_if_the_new_folder_cannot_get_its_name_the_old_one_gets_it_back(tmp_path, monkeypatch):
    folder = write(tmp_path / "export", "old")
    before, rename = tree(tmp_path), os.rename

    def fail(source, target):
        if str(source).endswith(".part"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(UsageError, match="Cannot write to .*export: Input/output error"):
        write(folder, "new")
    assert tree(tmp_path) == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes more rights")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def save_tensors(part):
    torch_checkpoint.save_safetensors(part / "x", {"x": np.zeros(1 << 20)}, metadata={})


@pytest.mark.parametrize("save", [save_tensors, lambda part: (part / "x").write_bytes(b"0" * 9**6)])
def test_a_full_disk_is_named_and_nothing_is_left_on_it(save, small_disk):
    with pytest.raises(UsageError, match="Cannot write to .*export: No space left on device"):
        with export_folder.replaced(pathlib.Path(small_disk / "export")) as part:
            save(part)
    assert not list(small_disk.iterdir())
