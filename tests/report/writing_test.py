"""Reports go where they are told to, but over no file that somebody else wrote."""

import errno
import os

import numpy as np
import pytest
from matplotlib import figure as figure_lib

from byol_jax.config import UsageError
from byol_jax.report import cli, figures, writing
from byol_jax.tasks import preview
from configs import preview as preview_config
from tests.support.pages import PROBES, make_run


@pytest.fixture
def run(tmp_path):
    return str(make_run(tmp_path / "run", PROBES))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def thesis(path):
    path.write_text("<!doctype html><title>Thesis</title> made with byol_jax")


def plain_figure(path):
    figure_lib.Figure().savefig(path)


def link(path):
    thesis(path.with_name("real"))
    path.symlink_to("real")


PLACES = {
    "page": thesis,
    "an empty file": lambda path: path.touch(),
    "bytes": lambda path: path.write_bytes(bytes(range(256))),
    "a link": link,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("what", PLACES)
def test_a_page_is_not_written_over_what_is_no_page_of_ours(what, run, tmp_path, capsys):
    out = tmp_path / "page.html"
    PLACES[what](out)
    before = {path: path.lstat() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit):
        cli.main([run, f"--out={out}"])
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {out} was not written by this program"), error
    assert {path: path.lstat() for path in tmp_path.iterdir()} == before


def test_a_page_of_ours_is_replaced(run, tmp_path):
    for _ in range(2):
        cli.main([run, f"--out={tmp_path / 'new' / 'page.html'}"])
    assert set(contents(tmp_path / "new")) == {"page.html"}


@pytest.mark.parametrize("name", ["loss.png", "loss.csv", "loss.svg", "loss.pdf"])
def test_figures_are_not_written_over_what_is_none_of_ours(name, run, tmp_path, capsys):
    theirs = tmp_path / "figures" / name
    theirs.parent.mkdir()
    theirs.write_text("step,loss\n") if theirs.suffix == ".csv" else plain_figure(theirs)
    before = contents(theirs.parent)
    with pytest.raises(SystemExit):
        cli.main([run, "--format=png,svg,pdf", f"--out={theirs.parent}"])
    assert f"{theirs} was not written by this program" in capsys.readouterr().err
    assert contents(theirs.parent) == before


def test_figures_of_ours_are_replaced_by_the_same_bytes(run, tmp_path):
    made = []
    for _ in range(2):
        cli.main([run, "--format=png,svg,pdf", f"--out={tmp_path / 'figures'}"])
        made.append(contents(tmp_path / "figures"))
    assert made[0] == made[1] and {"loss.png", "loss.svg", "loss.pdf", "loss.csv"} <= set(made[0])


@pytest.mark.parametrize("command", [["--out={}/page.html"], ["--format=png", "--out={}"]])
def test_a_full_disk_leaves_the_old_files_and_no_parts(command, run, tmp_path, monkeypatch, capsys):
    arguments = [run, *(part.format(tmp_path / "out") for part in command)]
    cli.main(arguments)
    before = contents(tmp_path / "out")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert "No space left on device. Give another --out." in capsys.readouterr().err
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["preview.html", "preview.png"])
def test_a_preview_is_not_written_over_what_is_none_of_ours(name, tmp_path):
    (thesis if name == "preview.html" else plain_figure)(tmp_path / name)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=f"{name} was not written by this program"):
        preview.run(preview_config.get_config(), tmp_path)
    assert contents(tmp_path) == before


def test_a_picture_of_a_preview_is_known_again(tmp_path):
    cell = ("words", np.zeros((8, 8, 3), np.uint8))
    figures.write_grid(tmp_path / "preview.png", [("row", [cell])])
    writing.require_ours(tmp_path / "preview.png")
