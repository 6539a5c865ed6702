"""The page that follows a run: what it serves, to whom, and how it ends."""

import fcntl
import functools
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from byol_jax.report import live_server, run_data, run_state
from tests.support.pages import Page, make_run, row

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def served(tmp_path):
    folder = make_run(tmp_path / "run", [row(1)])
    server = live_server.make_server([str(folder)], port=0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    assert server.server_address[0] == "127.0.0.1"  # not 0.0.0.0
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def get(address, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=5) as a:
        return a.read().decode()


def test_a_live_page_follows_a_run_and_survives_its_restart(served):
    folder, address = served
    before = get(f"{address}/version")
    assert Page(get(address)).data["last"] == 1
    make_run(folder, [row(1), row(50)])
    assert get(f"{address}/version") != before and Page(get(address)).data["last"] == 50
    moved = folder.rename(folder.with_name("gone"))
    assert Page(get(address)).data["last"] == 50
    moved.rename(folder)
    make_run(folder, [row(2)])
    assert Page(get(address)).data["last"] == 2


def test_a_live_page_answers_many_at_once_and_no_other_names(served):
    _, address = served
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(get(address))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and len(set(answers)) == 1
    for path, headers in (("/", {"Host": "evil.example"}), ("/etc/passwd", {})):
        with pytest.raises(urllib.error.HTTPError):
            get(address + path, **headers)


def test_looking_for_changes_reads_no_file(served, monkeypatch):
    folder, address = served
    before = get(f"{address}/version")
    monkeypatch.setattr(run_data, "load_runs", None)
    assert get(f"{address}/version") == before


def test_a_line_half_written_is_there_when_it_is_whole(served):
    folder, address = served
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "train/')
        file.flush()
        assert Page(get(address)).data["last"] == 1
        file.write('loss": 2.0}\n')
    assert Page(get(address)).data["last"] == 7


def test_a_run_that_falls_silent_or_is_gone_is_told_from_one_that_goes_on(served):
    folder, address = served
    assert "Going on" in get(address)
    for path in folder.iterdir():
        os.utime(path, (0, run_data.now() - run_state.QUIET_SECONDS - 1))
    assert "cannot be told from here" in get(address)
    with (folder / "lock").open("w") as file:
        file.write(f"process 1 on {platform.node()}\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "its process is at work" in get(address)
    assert "its process is gone" in get(address)


def watch(folder):
    command = [sys.executable, "-m", "byol_jax.report", str(folder), "--watch", "--port=0"]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen(command, preexec_fn=heed, **options)  # tests in a background ignore it


def test_ctrl_c_ends_it_also_while_a_browser_is_connected(tmp_path):
    process = watch(make_run(tmp_path / "run", [row(1)]))
    address = process.stdout.readline().split()[0]
    with urllib.request.urlopen(address, timeout=5) as answer:
        assert answer.status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0 and not errors


def test_a_taken_port_and_a_missing_run_are_said(served, tmp_path):
    folder, address = served
    for path, port, words in (
        (folder, int(address.rsplit(":", 1)[1]), "another --port"),
        (tmp_path / "nothing", 0, "no folder"),
    ):
        with pytest.raises(run_data.ReportError, match=words):
            live_server.make_server([str(path)], port=port)
