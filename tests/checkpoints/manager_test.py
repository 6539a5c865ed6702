"""Checkpoints that are damaged, that cannot be read at the moment, and that do not fit."""

import errno
import json
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.checkpoints import manager, orbax_reader
from byol_jax.config import UsageError
from byol_jax.training import train_step

ABOUT = {"config": {"seed": 0}, "data": {"num_images": 3}}
ITERATOR = {"images": 8, "bad": []}


def make_state(opt_state=None):
    network = {"encoder": {"w": np.arange(6.0).reshape(2, 3)}}
    fields = dict.fromkeys(train_step.TrainState._fields, network)
    fields["step"] = np.int32(1)
    return train_step.TrainState(**fields | {"opt_state": opt_state or [{"trace": network}]})


def save(workdir, *steps, about=ABOUT):
    checkpoints = manager.Checkpoints(workdir, keep=5, about=about)
    for step in steps:
        checkpoints.save(step, make_state(), ITERATOR)
    checkpoints.finish()
    checkpoints.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A workdir with two checkpoints, not to be changed."""
    workdir = tmp_path_factory.mktemp("whole")
    save(workdir, 1, 2)
    return workdir


@pytest.fixture
def workdir(whole, tmp_path):
    """A copy."""

    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def names(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def files(workdir):
    return [p for p in (workdir / "checkpoints" / "2").rglob("*") if p.is_file()]


def find(workdir, part):
    """A file of the newest checkpoint; of the arrays, the largest."""
    if part == "arrays":
        return max(files(workdir), key=lambda path: path.stat().st_size)
    return workdir / "checkpoints" / "2" / part


PARTS = ["arrays", "state/_METADATA", "state/manifest.ocdbt", "iterator/metadata"]
PARTS += ["digests/metadata"]


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_that_cannot_be_read_at_the_moment_stops_the_run(part, workdir):
    """Nothing says that it is damaged."""
    path = find(workdir, part)
    path.unlink()
    path.symlink_to(path.name)  # even root cannot read a link to itself
    with pytest.raises(UsageError, match="checkpoints/2 cannot be read at the moment.*Too many l"):
        manager.restore_newest(workdir, make_state(), warn=pytest.fail)
    assert names(workdir) == ["1", "2"]


TROUBLE = [
    MemoryError(),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ESTALE, "Stale file handle"),
    RuntimeError("can't start new thread"),
    ValueError("UNKNOWN: Error reading [os_error_code='5']"),
    ValueError("PERMISSION_DENIED: Error reading"),
]


@pytest.mark.parametrize("error", TROUBLE, ids=repr)
def test_trouble_of_the_system_is_not_taken_for_damage(error, workdir, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(orbax_reader.Reader, "read", fail)
    with pytest.raises(UsageError, match="may be sound, so nothing was changed"):
        manager.restore_newest(workdir, make_state(), warn=pytest.fail)
    with pytest.raises(UsageError, match="may be sound, so nothing was changed"):
        orbax_reader.load_network(
            workdir / "checkpoints" / "2", make_state().online_params, "online"
        )
    assert names(workdir) == ["1", "2"]


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("part", PARTS)
def test_damage_is_named_and_the_checkpoint_before_is_used(part, kind, workdir):
    DAMAGE[kind](find(workdir, part))
    warnings = []
    assert manager.restore_newest(workdir, make_state(), warn=warnings.append).step == 1
    assert "skipped the damaged" in warnings[0] and names(workdir) == ["1", "2.damaged"]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_a_folder_of_checkpoints_that_cannot_be_listed_is_not_taken_for_empty(
    error, workdir, monkeypatch
):
    def fail(_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(UsageError, match=f"Cannot read .*checkpoints: {os.strerror(error)}"):
        manager.restore_newest(workdir, make_state(), warn=pytest.fail)


def test_a_checkpoint_of_another_optimizer_is_refused_and_not_called_damaged(workdir):
    other = make_state(opt_state=[{"mu": np.zeros(3)}, {"nu": np.zeros(3)}])
    with pytest.raises(UsageError, match="of another optimizer.*opt_state.0"):
        manager.restore_newest(workdir, other, warn=pytest.fail)
    assert names(workdir) == ["1", "2"]


def test_every_checkpoint_has_a_copy_of_config_and_data_card(workdir):
    found = manager.read_about(workdir)
    assert found.content == ABOUT and found.folder.name == "2"
    path = workdir / "checkpoints" / "2" / "about" / "metadata"
    stored = json.loads(path.read_text())
    stored["content"]["config"]["seed"] = 1
    path.write_text(json.dumps(stored))
    assert manager.read_about(workdir).folder.name == "1"
    assert manager.restore_newest(workdir, make_state(), warn=pytest.fail).step == 2


def test_a_checkpoint_of_an_earlier_version_without_a_copy_is_as_good(tmp_path):
    save(tmp_path, 1)

    folder = tmp_path / "checkpoints" / "1"
    shutil.rmtree(folder / "about")
    digests = json.loads((folder / "digests" / "metadata").read_text())
    del digests["layout"]
    (folder / "digests" / "metadata").write_text(json.dumps(digests))
    assert manager.restore_newest(tmp_path, make_state(), warn=pytest.fail).step == 1
    assert manager.read_about(tmp_path) is None


def test_a_first_checkpoint_that_cannot_be_written_promises_nothing(tmp_path, monkeypatch):
    checkpoints = manager.Checkpoints(tmp_path, keep=1)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints._manager, "save", fail)
    checkpoints.save(1, make_state(), ITERATOR)
    with pytest.raises(manager.SaveError, match="No space left on device; there is none yet"):
        checkpoints.finish()
    checkpoints.close()


def test_training_goes_on_while_a_checkpoint_is_digested_and_changes_nothing_of_it(
    tmp_path, monkeypatch
):
    go_on, digests = threading.Event(), manager._digests

    def wait(*arguments):
        assert go_on.wait(10), "save waits for digests"
        return digests(*arguments)

    monkeypatch.setattr(manager, "_digests", wait)
    checkpoints = manager.Checkpoints(tmp_path, keep=5, about=ABOUT)
    state = jax.tree.map(jnp.asarray, make_state())
    expected = jax.tree.map(np.array, state)
    checkpoints.save(1, state, ITERATOR)
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    jax.block_until_ready(step(state))
    go_on.set()
    checkpoints.finish()
    checkpoints.close()
    restored = manager.restore_newest(tmp_path, expected, warn=pytest.fail)
    jax.tree.map(np.testing.assert_array_equal, restored.state, expected)
