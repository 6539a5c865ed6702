"""Files that are whole or not there, whatever comes between."""

import contextlib
import errno
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from byol_jax.workdir import files


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_gets_its_content_and_nothing_is_left_beside_it(tmp_path):
    for text in ("old", "new\n"):
        files.write_text(tmp_path / "made" / "config.json", text)
        assert (tmp_path / "made" / "config.json").read_text() == text
    assert names(tmp_path / "made") == ["config.json"]


def test_who_may_read_a_file_is_as_for_any_other_new_file(tmp_path):
    (tmp_path / "other").touch()
    files.write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_part(error, tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(error), files.whole(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["result.json"]


def test_content_reaches_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path, monkeypatch
):
    path, events = tmp_path / "result.json", []
    path.write_text("old")
    fsync = os.fsync

    def note(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append(("folder" if is_folder else "file", path.read_text()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    files.write_text(path, "new")
    assert events == [("file", "old"), ("folder", "new")]


def test_an_error_of_the_system_names_the_file_and_not_a_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="Cannot write to .*/result.json: No space left"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["result.json"]


@pytest.mark.parametrize("place", ["folder", "pipe", "below/file", "below/a/file"])
def test_what_is_no_file_is_never_replaced(place, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "below").touch()
    before = {entry: entry.lstat().st_ino for entry in tmp_path.iterdir()}
    with pytest.raises(OSError, match=f"{place}: (Is a|Not a|not a)"):
        files.write_text(tmp_path / place, "text")
    assert {entry: entry.lstat().st_ino for entry in tmp_path.iterdir()} == before


def test_what_a_link_leads_to_is_not_written_to(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "link").symlink_to("theirs")
    files.write_text(tmp_path / "link", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "link").read_text() == "ours"


def test_what_a_killed_writer_left_goes_and_what_others_own_stays(tmp_path):
    path = tmp_path / "shard"
    code = (
        "import os, pathlib, sys; from byol_jax.workdir import files\n"
        "with files.whole(pathlib.Path(sys.argv[1])) as part:\n"
        "    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    (left,) = names(tmp_path)
    theirs = [".shard.part", ".shard.notes.part", ".shard2.0123abcd.part", "shard.part"]
    for name in theirs:
        (tmp_path / name).touch()
    with contextlib.ExitStack() as stack:
        alive = stack.enter_context(files.whole(path))
        stack.enter_context(files.whole(path))
        assert alive.exists() and not (tmp_path / left).exists()
    assert names(tmp_path) == sorted([*theirs, "shard"])


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file.*pipe"):
        files.read_bytes(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        files.read_bytes(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.read_bytes(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"text")
    assert files.read_bytes(tmp_path / "file") == b"text"
