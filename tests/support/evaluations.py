"""What the tests of all evaluations have in common."""

import json

import pytest

from byol_jax.checkpoints import encoders
from byol_jax.config import UsageError
from tests.support.samples import drawn_picture, encode


def measure(task, config, workdir):
    """Runs a task, and gives what it has written."""
    task.run(config, workdir)
    return json.loads((workdir / "result.json").read_text())


def assert_frozen(run, run_folder, monkeypatch):
    """Bit for bit: parameters and batch-norm statistics, in memory and in the checkpoint.

    Args:
      run: evaluates the run and gives the result.
      run_folder: of the run.
      monkeypatch: to get hold of the encoder.
    """
    held = []
    load = encoders.load_encoder
    before = load(str(run_folder)).identity
    monkeypatch.setattr(encoders, "load_encoder", lambda path: held.append(load(path)) or held[0])
    assert run()["checkpoint"] == before
    assert encoders.fingerprint(held[0].params, held[0].state) == before["sha256"]
    assert load(str(run_folder)).identity == before


def assert_refused(run, workdir, message):
    """A mistake ends in a message, before anything is written.

    Args:
      run: evaluates with the mistake, into the workdir.
      workdir: which does not exist.
      message: pattern of what is said.
    """
    with pytest.raises(UsageError, match=f"(?s){message}"):
        run(workdir)
    assert not workdir.exists()


def write_pictures(folder, height=20, width=24):
    """A folder of two classes, each of twenty images."""
    for number in range(40):
        path = folder / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(drawn_picture(height, width, seed=number)))
    return folder
