"""Whether the folder of a run is still where it was."""

import errno
import os
import shutil

import pytest

from byol_jax.workdir import place, run_folder
from tests.support import systems


@pytest.fixture
def folder(tmp_path):
    """A workdir that this process holds."""
    with run_folder.lock(tmp_path / "run"):
        yield tmp_path / "run"


@pytest.fixture
def found(folder):
    """Where it is."""
    found = place.Place(folder)
    yield found
    found.close()


@systems.NEEDS_PROC
def test_a_folder_that_stays_is_not_left(found, folder):
    (folder / "metrics.jsonl").write_text("{}")
    assert not found.is_left() and found.now() == folder


@systems.NEEDS_PROC
def test_a_renamed_folder_is_left_and_can_be_followed(found, folder):
    folder.rename(folder.with_name("kept"))
    assert found.is_left() and found.now() == folder.with_name("kept")


@systems.NEEDS_PROC
def test_a_renamed_folder_is_left_also_if_another_run_takes_its_place(found, folder, monkeypatch):
    folder.rename(folder.with_name("kept"))
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with run_folder.lock(folder):
        assert found.is_left() and found.now() == folder.with_name("kept")


def test_a_removed_folder_is_left_and_is_nowhere(found, folder):
    shutil.rmtree(folder)
    assert found.is_left() and found.now() is None


def test_a_folder_with_another_number_is_the_same_by_its_lock_file(found, folder):
    """As on network file systems, which number their folders anew now and then."""
    folder.rename(folder.with_name("kept"))
    shutil.copytree(folder.with_name("kept"), folder)
    assert not found.is_left()


def test_a_moment_of_trouble_is_no_move(found, monkeypatch):
    def fail(_):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "stat", fail)
    assert not found.is_left()
