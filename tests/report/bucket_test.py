"""Reports of runs in buckets, whose files are copied here."""

import json

import fsspec
import pytest

from byol_jax.report import bucket, cli, live_server
from byol_jax.report.run_data import ReportError

ADDRESS = "memory://lab/runs/a"


@pytest.fixture(autouse=True)
def _store():
    fsspec.filesystem("memory").store.clear()
    yield
    fsspec.filesystem("memory").store.clear()


def put(name, text):
    fsspec.filesystem("memory").pipe_file(f"/lab/runs/a/{name}", text.encode())


def put_run(steps):
    put("config.json", json.dumps({"task": "pretrain", "preset": "patterns", "total_steps": 9}))
    rows = [{"step": step, "train/loss": 1.0 / step} for step in range(1, steps + 1)]
    put("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def test_the_page_of_a_run_in_a_bucket_is_written_here(tmp_path, monkeypatch, capsys):
    put_run(3)
    put("checkpoints/3/state/d/numbers", "x" * 1000)
    monkeypatch.chdir(tmp_path)
    cli.main([ADDRESS])
    assert capsys.readouterr().out == "report.html\n"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "of 9 steps" in (tmp_path / "report.html").read_text()


def test_a_page_that_follows_a_run_copies_what_is_new_and_no_checkpoints(monkeypatch):
    put_run(3)
    put("checkpoints/3/state/d/numbers", "x")
    copy = bucket.Copy(ADDRESS)
    live = live_server.Live([str(copy.folder)], [copy.refresh])
    first = live.version()
    put_run(5)
    assert live.version() == first  # not asked again so soon
    monkeypatch.setattr(bucket, "SECONDS", -1)
    assert live.version() != first
    assert len((copy.folder / "metrics.jsonl").read_text().splitlines()) == 5
    assert not (copy.folder / "checkpoints").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["memory://lab/none"], "There is no run at memory://lab/none"),
        (["nonsense://lab/run"], "Cannot read nonsense://lab/run"),
        ([ADDRESS, "--out=s3://lab/page.html"], "give --out=report.html"),
    ],
)
def test_addresses_that_cannot_be_used_are_named(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_bucket_that_cannot_be_reached_leaves_the_last_page(monkeypatch):
    put_run(3)
    copy = bucket.Copy(ADDRESS)
    live = live_server.Live([str(copy.folder)], [copy.refresh])
    first = live.page()
    monkeypatch.setattr(bucket, "SECONDS", -1)
    monkeypatch.setattr(copy._files, "find", lambda *_, **__: 1 / 0)
    assert live.page() == first
    with pytest.raises(ReportError, match="Cannot read memory://lab/runs/a: division by zero"):
        copy.refresh()
