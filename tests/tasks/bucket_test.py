"""Runs whose workdir is in a bucket, killed on one machine and resumed on another."""

import functools
import json
import os
import socket

import fsspec
import pytest

from tests.support import run_process

pytestmark = pytest.mark.slow


def _prepare(variables):
    """In the process of a run: its machine's folder and keys; uploads come at once."""
    from byol_jax.workdir import lease

    os.environ.update(variables)
    lease.BEAT_SECONDS = 0.2


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
def test_killed_on_one_machine_a_run_ends_bit_identical_on_another(service, tmp_path, request):
    variables = request.getfixturevalue("s3") if service == "s3" else {}
    address = "s3://lab/runs/a" if service == "s3" else f"file://{tmp_path}/lab/runs/a"
    files = fsspec.filesystem(service)
    root = address.partition("://")[2]

    def start(machine):
        there = variables | {"BYOL_JAX_WORKDIRS": str(tmp_path / machine)}
        return run_process.RunProcess(
            tmp_path / machine / "log",
            before=functools.partial(_prepare, there),
            own={0: [f"--workdir={address}"]},
            log_every_steps=20,
            checkpoint_every_steps=10,
            total_steps=2000,
        )

    def uploaded():
        files.invalidate_cache()
        return json.loads(files.cat_file(f"{root}/uploaded.json"))["files"]

    for machine in ("first", "second"):
        (tmp_path / machine).mkdir()
    life = start("first")
    for _ in life._poll("an upload of a checkpoint"):
        if files.exists(f"{root}/uploaded.json") and any(
            name.startswith("checkpoints/") for name in uploaded()
        ):
            break
    life.kill()
    life = start("second")
    assert life.finish() == [0], life.text()
    assert "Downloading" in life.text() and "Resuming from step" in life.text()
    (here,) = [path for path in (tmp_path / "second").iterdir() if path.is_dir()]
    rows = [json.loads(line) for line in (here / "metrics.jsonl").read_text().splitlines()]
    trained = [row["step"] for row in rows if "train/loss" in row]
    assert trained == [1, *range(20, 2001, 20)] or trained == list(range(20, 2001, 20))
    assert f"{root}/writer.json" not in files.find(root)
    names = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert names - {"lock"} == set(uploaded())
    assert files.cat_file(f"{root}/metrics.jsonl") == (here / "metrics.jsonl").read_bytes()
