"""Runs whose workdir is in a bucket, killed on one machine and resumed on another."""

import functools
import json
import os
import signal
import socket

import fsspec
import pytest

from tests.support import run_process

pytestmark = pytest.mark.slow


def _prepare(variables, is_killed):
    """In the process of a run: its machine's folder and keys; perhaps it dies after an upload."""
    from byol_jax.workdir import lease, mirror

    os.environ.update(variables)
    lease.BEAT_SECONDS = 0.2
    upload = mirror.Mirror.upload

    def upload_and_die(self):
        upload(self)
        if any(name.startswith("checkpoints/") for name in self._listed):
            os.kill(os.getpid(), signal.SIGKILL)

    if is_killed:
        mirror.Mirror.upload = upload_and_die


@pytest.fixture
def s3(monkeypatch):
    """A server that speaks S3, with a bucket; variables for those who use it."""
    moto_server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = moto_server.ThreadedMotoServer(port=port)
    server.start()
    variables = {name: "x" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    variables |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").mkdir("lab")
    yield variables
    server.stop()


@pytest.mark.parametrize("service", ["file", "s3"])
def test_killed_on_one_machine_a_run_is_finished_on_another(service, tmp_path, request):
    variables = request.getfixturevalue("s3") if service == "s3" else {}
    address = "s3://lab/runs/a" if service == "s3" else f"file://{tmp_path}/lab/runs/a"
    files = fsspec.filesystem(service)
    root = address.partition("://")[2]

    def run(machine, *, is_killed):
        (tmp_path / machine).mkdir()
        there = variables | {"BYOL_JAX_WORKDIRS": str(tmp_path / machine)}
        life = run_process.RunProcess(
            tmp_path / machine / "log",
            before=functools.partial(_prepare, there, is_killed),
            own={0: [f"--workdir={address}"]},
        )
        expected = [run_process.KILLED if is_killed else 0]
        assert life.finish(seconds=600) == expected, life.text()
        return life.text()

    run("first", is_killed=True)
    text = run("second", is_killed=False)
    assert "Downloading" in text and "Resuming from step" in text
    files.invalidate_cache()
    listed = json.loads(files.cat_file(f"{root}/uploaded.json"))["files"]
    (here,) = [path for path in (tmp_path / "second").iterdir() if path.is_dir()]
    rows = [json.loads(line) for line in (here / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 61))
    assert f"{root}/writer.json" not in files.find(root)
    names = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert names - {"lock"} == set(listed)
    assert files.cat_file(f"{root}/metrics.jsonl") == (here / "metrics.jsonl").read_bytes()
