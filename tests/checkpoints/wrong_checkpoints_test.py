"""What people give as a checkpoint that is none: a line that says what it is, at once."""

import os
import shutil

import pytest

from byol_jax.checkpoints import file_kinds, sources, step_folders, torch_checkpoint
from byol_jax.config import UsageError
from tests.support.samples import drawn_picture, encode


def make_run(folder, *steps):
    for step in steps:
        (folder / "checkpoints" / str(step) / "state").mkdir(parents=True)
    return folder


WRONG = {
    "photo.png": (lambda p: p.write_bytes(encode(drawn_picture(9, 9))), "it is a PNG image"),
    "photo.pkl": (lambda p: p.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF"), "it is a JPEG image"),
    "model.pt": (lambda p: p.write_text("<!doctype html>"), "is a page of HTML"),
    "model.pth": (lambda p: p.write_text("version https://git-lfs"), "is a pointer of Git LFS"),
    "model.safetensors": (lambda p: p.touch(), "it is empty"),
    "notes.txt": (lambda p: p.write_text("learning rate 0.3"), "Cannot read .*notes.txt"),
    "pipe.pt": (os.mkfifo, "it is neither a folder nor a file"),
    "empty": (lambda p: p.mkdir(), "it is an empty folder"),
    "run/checkpoints": (lambda p: make_run(p.parent, 100), "the workdir is .*run"),
    "run/checkpoints/100/state": (lambda p: make_run(p.parents[2], 100), "a part of .*100"),
    "knn": (lambda p: (p.mkdir(), (p / "result.json").touch()), "the workdir of an evaluation"),
    "new": (lambda p: (p.mkdir(), (p / "data.json").touch()), "its run has not saved any yet"),
    "hub": (
        lambda p: (p.mkdir(), (p / "config.json").touch(), (p / "model.safetensors").touch()),
        "it holds the file .*hub/model.safetensors",
    ),
    "photos": (lambda p: (p.mkdir(), (p / "a.jpg").touch(), (p / "b").touch()), "holds a.jpg, b"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_checkpoint_is_said_in_a_line(name, tmp_path):
    make, message = WRONG[name]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    make(tmp_path / name)
    with pytest.raises(UsageError, match=message) as error:
        sources.open_weights(str(tmp_path / name))
    assert name in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_header_whose_length_spells_a_letter_is_not_taken_for_a_page(tmp_path):
    path = tmp_path / "model.safetensors"
    for number in range(256):
        torch_checkpoint.save_safetensors(path, {}, metadata={"x": "y" * number})
        assert file_kinds.recognize(path) == ""


# A run that goes on deletes all but its newest checkpoints.


def step_of(path):
    return int(step_folders.find(str(path)).name)


def test_a_checkpoint_that_is_deleted_while_it_is_read_gives_way_to_the_newest(tmp_path):
    run = make_run(tmp_path / "run", 100)
    read = []

    def load():
        read.append(step_of(run))
        if len(read) < 4:  # three times the run is faster
            make_run(run, read[-1] + 100)
            shutil.rmtree(run / "checkpoints" / str(read[-1]))
            raise UsageError("half-written or damaged")
        return "loaded"

    assert step_folders.until_sound(str(run), load) == "loaded"
    assert read == [100, 200, 300, 400]


def test_a_named_checkpoint_that_is_deleted_while_it_is_read_is_said(tmp_path):
    folder = make_run(tmp_path / "run", 100, 200) / "checkpoints" / "100"

    def load():
        shutil.rmtree(folder)
        raise UsageError("half-written or damaged")

    with pytest.raises(
        step_folders.GoneError, match="checkpoints/100 was deleted while it was read"
    ):
        step_folders.until_sound(str(folder), load)


@pytest.mark.parametrize("path", ["run", "run/checkpoints/200"])
def test_a_damaged_checkpoint_of_a_run_that_rests_is_an_error_at_once(path, tmp_path):
    make_run(tmp_path / "run", 100, 200)
    calls = []

    def load():
        calls.append(1)
        raise UsageError("half-written or damaged")

    with pytest.raises(UsageError, match="half-written"):
        step_folders.until_sound(str(tmp_path / path), load)
    assert len(calls) == 1
