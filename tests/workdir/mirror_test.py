"""Workdirs in buckets: what is there at every moment, who may write, what a rerun goes on with."""

import json
import os
import pathlib
import platform

import fsspec
import pytest

from byol_jax import config as config_lib
from byol_jax.workdir import bucket, lease, mirror

ADDRESS = "memory://lab/runs/a"
_opened = []


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    """Folders of this test alone, here and in the bucket."""
    monkeypatch.setenv("BYOL_JAX_WORKDIRS", str(tmp_path / "workdirs"))
    fsspec.filesystem("memory").store.clear()
    yield
    for opened in _opened:
        opened._ending.set()  # also of those whose process died
    _opened.clear()
    fsspec.filesystem("memory").store.clear()


def objects():
    """Content by name, but for what the mirror keeps for itself."""
    store = fsspec.filesystem("memory").store
    found = {name.removeprefix("/lab/runs/a/"): file.getvalue() for name, file in store.items()}
    return {name: data for name, data in found.items() if name not in (mirror.LIST, lease.NAME)}


def open_mirror(said=None):
    say = (lambda text: None) if said is None else said.append
    _opened.append(mirror.Mirror(ADDRESS, every=3600, say=say))
    return _opened[-1]


def write(folder, **content):
    for name, text in content.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def elsewhere(monkeypatch, tmp_path):
    """From now on the local folders are those of another machine."""
    monkeypatch.setenv("BYOL_JAX_WORKDIRS", str(tmp_path / "elsewhere"))


def test_another_machine_goes_on_with_what_was_uploaded(tmp_path, monkeypatch):
    opened = open_mirror()
    write(opened.folder, config="{}", metrics="1\n2\n", checkpoints__10__state="numbers")
    opened.close()
    elsewhere(monkeypatch, tmp_path)
    again = open_mirror()
    assert tmp_path / "elsewhere" in again.folder.parents
    assert (again.folder / "metrics").read_text() == "1\n2\n"
    assert (again.folder / "checkpoints/10/state").read_text() == "numbers"
    again.close()


def test_only_what_is_new_is_sent_and_what_is_gone_is_removed(monkeypatch):
    opened = open_mirror()
    write(opened.folder, config="{}", checkpoints__10__state="ten")
    opened.upload()
    sent = []
    monkeypatch.setattr(opened._bucket, "write", lambda name, data: sent.append(name))
    write(opened.folder, checkpoints__20__state="twenty", metrics="1\n")
    (opened.folder / "checkpoints/10/state").unlink()
    (opened.folder / "checkpoints/10").rmdir()
    opened.upload()
    assert [name for name in sent if name != lease.NAME] == [
        *("checkpoints/20/state", "metrics", mirror.LIST),
    ]
    assert "checkpoints/10/state" not in objects()
    opened.close()


def test_locks_and_files_that_are_being_written_stay_here():
    opened = open_mirror()
    names = ("lock", ".config.json.0123abcd.part")
    write(opened.folder, kept="x", **{name: "x" for name in names})
    write(opened.folder / "checkpoints/10.orbax-checkpoint-tmp", state="half")
    opened.close()
    assert set(objects()) == {"kept"}


def test_a_process_that_dies_while_it_uploads_leaves_the_last_whole_state(tmp_path, monkeypatch):
    opened = open_mirror()
    write(opened.folder, checkpoints__10__a="ten", checkpoints__10__b="ten")
    opened.upload()
    write(opened.folder, checkpoints__20__a="twenty", checkpoints__20__b="twenty")
    plain = opened._bucket.write

    def die(name, data):
        if name == "checkpoints/20/b":
            raise KeyboardInterrupt
        plain(name, data)

    monkeypatch.setattr(opened._bucket, "write", die)
    with pytest.raises(KeyboardInterrupt):
        opened.upload()
    assert "checkpoints/20/a" in objects()
    opened._lease._bucket.remove(lease.NAME)  # the process is dead
    elsewhere(monkeypatch, tmp_path)
    again = open_mirror()
    assert [path.name for path in (again.folder / "checkpoints").iterdir()] == ["10"]
    again.close()


def test_a_checkpoint_that_is_removed_meanwhile_is_listed_as_a_whole_or_not_at_all(monkeypatch):
    opened = open_mirror()
    write(opened.folder, checkpoints__10__a="ten", checkpoints__10__b="ten", config="{}")
    plain = opened._bucket.write

    def remove_others(name, data):
        if name == "checkpoints/10/a":
            (opened.folder / "checkpoints/10/b").unlink()
        plain(name, data)

    monkeypatch.setattr(opened._bucket, "write", remove_others)
    opened.upload()
    assert set(objects()) == {"config"}
    assert list(json.loads(bucket.Bucket(ADDRESS).read(mirror.LIST))["files"]) == ["config"]
    monkeypatch.undo()


def test_what_could_not_be_uploaded_is_kept_and_uploaded_by_the_next_run(monkeypatch):
    opened = open_mirror()
    write(opened.folder, config="{}")
    opened.upload()
    write(opened.folder, result="5")
    monkeypatch.setattr(opened._bucket, "write", lambda *_: _raise(bucket.BucketError("no net")))
    with pytest.raises(bucket.BucketError, match=r"no net.* is in .*; once this is mended, rerun"):
        opened.close()
    again = open_mirror()
    assert (again.folder / "result").read_text() == "5"
    again.close()
    assert objects()["result"] == b"5"


def _raise(error):
    raise error


def test_files_of_a_run_that_went_on_elsewhere_are_never_overwritten(tmp_path, monkeypatch):
    opened = open_mirror()
    write(opened.folder, result="first")
    opened.close()
    first = opened.folder
    elsewhere(monkeypatch, tmp_path)
    other = open_mirror()
    write(other.folder, result="second")
    other.close()
    monkeypatch.setenv("BYOL_JAX_WORKDIRS", str(tmp_path / "workdirs"))
    write(first, notes="mine, never uploaded")
    said = []
    again = open_mirror(said)
    assert (again.folder / "result").read_text() == "second"
    (aside,) = first.parent.glob("*.aside-*")
    assert (aside / "notes").read_text() == "mine, never uploaded"
    assert str(aside) in said[0] and "never uploaded" in said[0]
    again.close()


@pytest.mark.parametrize("damage", ["whole folder", "one file"])
def test_a_local_folder_that_was_cleaned_up_empties_no_bucket(damage):
    opened = open_mirror()
    write(opened.folder, config="{}", result="5")
    opened.close()
    (opened.folder / "config").unlink()
    if damage == "whole folder":
        (opened.folder / "result").unlink()
        opened.folder.rmdir()
    again = open_mirror()
    assert (again.folder / "config").read_text() == "{}"
    again.close()
    assert set(objects()) == {"config", "result"}


def test_a_local_folder_that_goes_while_the_run_writes_empties_no_bucket():
    opened = open_mirror()
    write(opened.folder, config="{}")
    opened.upload()
    opened.folder.rename(opened.folder.with_name("moved"))
    with pytest.raises(bucket.BucketError, match="No such file"):
        opened.close()
    assert set(objects()) == {"config"}


def test_a_kill_between_two_uploads_loses_nothing_of_the_local_folder():
    opened = open_mirror()
    write(opened.folder, checkpoints__10__state="ten")
    opened.upload()
    write(opened.folder, checkpoints__20__state="twenty")
    (opened.folder / "checkpoints/10/state").unlink()  # older ones are removed
    opened._lease.release()  # as if killed
    again = open_mirror()
    assert (again.folder / "checkpoints/20/state").read_text() == "twenty"
    again.close()
    assert set(objects()) == {"checkpoints/20/state"}


# Who may write.


def note(**changes):
    found = {"owner": "other", "process": 1, "machine": "far", "beats": 1} | changes
    bucket.Bucket(ADDRESS).write(lease.NAME, json.dumps(found).encode())


def take(wait=lambda seconds: None):
    said = []
    taken = lease.Lease(bucket.Bucket(ADDRESS))
    taken.take(say=said.append, wait=wait)
    return taken, said


def test_a_folder_whose_writer_still_beats_is_refused():
    note()
    with pytest.raises(config_lib.UsageError, match=r"Another run is using .* \(process 1 on far"):
        take(wait=lambda seconds: note(beats=2))


def test_a_writer_without_a_beat_is_followed_after_a_while():
    note()
    waited = []
    _, said = take(wait=waited.append)
    assert sum(waited) >= lease.DEAD_AFTER and "process 1 on far" in said[0]


def test_a_writer_of_this_machine_that_is_dead_is_not_waited_for():
    note(machine=platform.node(), process=2**22 + 1)
    _, said = take(wait=lambda seconds: _raise(AssertionError("waited")))
    assert said == []
    note(machine=platform.node(), process=os.getppid())
    with pytest.raises(AssertionError, match="waited"):
        take(wait=lambda seconds: _raise(AssertionError("waited")))


def test_a_run_whose_folder_was_taken_over_writes_nothing_more():
    opened = open_mirror()
    write(opened.folder, config="ours")
    note()
    with pytest.raises(lease.LostError, match="taken over by process 1 on far"):
        opened.upload()
    assert objects() == {}
    with pytest.raises(bucket.BucketError, match="taken over"):
        opened.close()


# Addresses.


@pytest.mark.parametrize("address", ["gs://lab", "s3://lab/"])
def test_a_whole_bucket_is_no_workdir(address):
    with pytest.raises(config_lib.UsageError, match="name a folder in it"):
        bucket.Bucket(address)


def test_a_bucket_that_is_not_there_is_an_error_and_no_missing_file(monkeypatch):
    found = bucket.Bucket(ADDRESS)
    missing = FileNotFoundError("The specified bucket does not exist")
    monkeypatch.setattr(found._files, "pipe_file", lambda *_: _raise(missing))
    with pytest.raises(bucket.BucketError, match="The specified bucket does not exist"):
        found.write("config.json", b"")
    assert found.read("config.json") is None


def test_a_service_whose_package_is_missing_is_refused_with_what_to_install(monkeypatch):
    def missing(address):
        raise ImportError("Install gcsfs to access Google Cloud Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(config_lib.UsageError, match="pip install gcsfs"):
        bucket.Bucket("gs://lab/runs/a")


def test_a_list_that_names_files_elsewhere_is_refused():
    listed = {"version": "x", "files": {"../../evil": 1}}
    bucket.Bucket(ADDRESS).write(mirror.LIST, json.dumps(listed).encode())
    with pytest.raises(config_lib.UsageError, match="is not below it"):
        open_mirror()


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_damaged_list_is_not_taken_for_an_empty_folder(content):
    bucket.Bucket(ADDRESS).write(mirror.LIST, content)
    with pytest.raises(config_lib.UsageError, match="uploaded.json is damaged"):
        open_mirror()


def test_folders_of_two_addresses_are_two(tmp_path):
    names = {mirror.local_folder(f"gs://lab/{name}") for name in ("a/b", "a_b", "b", "b/")}
    assert len(names) == 3
    assert all(tmp_path in pathlib.Path(name).parents for name in names)
