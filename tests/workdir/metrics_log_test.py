"""Lines of metrics: read without holding them, cut where a run goes on, damaged ones left alone."""

import json
import tracemalloc

import pytest

from byol_jax.workdir import metrics_log


def write(folder, *lines):
    (folder / "metrics.jsonl").write_bytes(b"".join(lines))


def line(step, **values):
    return json.dumps({"step": step, **values}).encode() + b"\n"


def content(folder):
    return (folder / "metrics.jsonl").read_bytes()


def test_a_damaged_line_is_left_where_it_is_and_said(tmp_path):
    damaged = line(2).replace(b"2", b"2\xff")
    unnumbered = b"\xff\xfe\n"
    lines = [line(0), unnumbered, line(1), damaged, line(3)]
    write(tmp_path, *lines, line(4))
    (note,) = metrics_log.cut(tmp_path, 3)
    assert note.endswith("leaves out damaged lines, 2 in all: line 2, 4")
    assert content(tmp_path) == b"".join(lines)
    assert [row["step"] for row in metrics_log.rows(tmp_path)] == [0, 1, 3]
    assert metrics_log.last_row(tmp_path)["step"] == 3


def test_a_damaged_line_among_what_is_dropped_is_kept_in_another_file(tmp_path):
    write(tmp_path, line(1), line(2), b"\xff\xff\n", line(3))
    (note,) = metrics_log.cut(tmp_path, 2)
    assert content(tmp_path) == line(1) + line(2)
    aside = tmp_path / "metrics-dropped-1.jsonl"
    assert str(aside) in note and aside.read_bytes() == b"\xff\xff\n" + line(3)


@pytest.mark.parametrize("end", [b'{"step": 2, "probe/x": 0.', b'{"step": 3', b'{"st', b"\x00" * 9])
def test_a_last_line_cut_off_by_a_kill_goes_without_a_word(end, tmp_path):
    write(tmp_path, line(1), line(2, x=1), end)
    assert metrics_log.cut(tmp_path, 2) == []
    assert content(tmp_path) == line(1) + line(2, x=1)


def test_a_whole_last_line_that_lacks_its_newline_gets_it(tmp_path):
    write(tmp_path, line(1), line(2).strip())
    assert metrics_log.cut(tmp_path, 2) == [] and content(tmp_path) == line(1) + line(2)


def test_rows_and_the_last_one_can_be_had_by_a_key(tmp_path):
    write(tmp_path, line(0, a=1), line(1, b=1), line(2, a=2), line(3, b=2), b'{"step": 4, "a')
    assert [row["step"] for row in metrics_log.rows(tmp_path, having="a")] == [0, 2]
    assert metrics_log.last_row(tmp_path, having="a") == {"step": 2, "a": 2}
    assert metrics_log.last_row(tmp_path, having="c") is None
    assert metrics_log.last_row(tmp_path / "nowhere") is None


def test_a_log_of_weeks_is_cut_in_place_and_never_held(tmp_path, monkeypatch):
    """More lines than fit into many blocks, read from the end across their borders."""
    monkeypatch.setattr(metrics_log, "_BLOCK", 1000)
    lines = [line(step, loss="x" * (step % 37)) for step in range(3000)]
    write(tmp_path, *lines)
    inode = (tmp_path / "metrics.jsonl").stat().st_ino
    tracemalloc.start()
    assert metrics_log.cut(tmp_path, 2500) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert content(tmp_path) == b"".join(lines[:2501])
    assert (tmp_path / "metrics.jsonl").stat().st_ino == inode and peak < 64 << 10
