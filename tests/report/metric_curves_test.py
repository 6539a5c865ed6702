"""Metrics are read once, in bounded memory, and nothing that stands out gets lost."""

import json
import random

import pytest

from byol_jax.report import metric_curves


def write(path, rows, mode="w"):
    with path.open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_of_many_lines_few_points_are_kept_and_every_spike(path):
    rng = random.Random(0)
    values = [rng.random() for _ in range(30_000)]
    values[14_321], values[17_777], values[13_333] = 99.0, -99.0, None
    write(path, ({"step": step, "loss": value} for step, value in enumerate(values)))
    (series,) = metric_curves.Metrics(path).update().series.values()
    points = series.points()
    assert len(points) <= 3 * 2 * metric_curves.MOST_STRETCHES
    assert {(14_321, 99.0), (17_777, -99.0), (13_333, None)} <= set(points)
    assert points[0] == (0, values[0]) and points[-1] == (29_999, values[-1])
    assert points == sorted(set(points)) and all(values[step] == v for step, v in points)
    assert (series.count, series.missing, series.first_missing) == (30_000, 1, 13_333)


def test_of_few_lines_every_point_is_kept(path):
    write(path, ({"step": step, "loss": float(step % 7)} for step in range(1000)))
    metrics = metric_curves.Metrics(path).update()
    assert metrics.series["loss"].points() == [(step, float(step % 7)) for step in range(1000)]


def test_what_is_added_is_read_and_nothing_twice(path):
    metrics = metric_curves.Metrics(path).update()
    assert metrics.num_rows == 0
    write(path, [{"step": 1, "loss": 1.0}])
    assert metrics.update().num_rows == 1
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
        file.flush()
        assert metrics.update().num_rows == 1
        file.write('ss": 2.0}\n{"step": 3, "loss": 3.0}')
        file.flush()
        assert metrics.update().num_rows == 3
        file.write("\n")
    write(path, [{"step": 4, "loss": 4.0}], mode="a")
    assert metrics.update().series["loss"].points() == [(n, float(n)) for n in (1, 2, 3, 4)]
    assert metrics.broken == 0


def test_a_file_that_was_replaced_is_read_anew(path):
    write(path, [{"step": n, "loss": 1.0} for n in (1, 2, 3)])
    metrics = metric_curves.Metrics(path).update()
    write(path.with_name("new"), [{"step": 1, "loss": 5.0}])
    path.with_name("new").replace(path)
    assert metrics.update().series["loss"].points() == [(1, 5.0)]
    path.unlink()
    assert metrics.update().series == {}


def test_lines_out_of_order_are_sorted_and_the_later_of_a_step_counts(path):
    write(path, [{"step": 2, "a": 2.0}, {"step": 1, "a": 1.0}, {"step": 2, "a": 3.0, "b": 1.0}])
    metrics = metric_curves.Metrics(path).update()
    assert metrics.series["a"].points() == [(1, 1.0), (2, 3.0)]
    assert metrics.series["b"].points() == [(2, 1.0)]
    write(path, [{"step": 3, "a": 4.0}], mode="a")
    assert metrics.update().series["a"].last == (3, 4.0)


RUBBISH = {
    "binary": bytes(range(256)) * 10,
    "deep": b"[" * 100_000 + b"\n",
    "no object": b'[1]\n"x"\n3\nnull\n',
    "odd steps": b'{"step": "1"}\n{"step": 1.5}\n{"step": true}\n{"step": 1' + b"0" * 30 + b"}\n",
    "odd values": b'{"step": 1, "a": "x", "b": [1], "c": {}, "d": true}\n',
    "no end of line": b"x" * (3 << 20),
    "many metrics": json.dumps({"step": 5} | {f"m{n}": 1.0 for n in range(500)}).encode() + b"\n",
}


@pytest.mark.parametrize("case", RUBBISH)
def test_rubbish_costs_its_own_lines_and_no_others(case, path):
    good = b'{"step": 5, "loss": 1.5}\n'
    path.write_bytes(good + RUBBISH[case] + b"\n" + good.replace(b"5", b"6", 1))
    metrics = metric_curves.Metrics(path).update()
    assert metrics.series["loss"].points() == [(5, 1.5), (6, 1.5)]
    assert len(metrics.series) <= metric_curves.MOST_KEYS


def test_a_number_beyond_all_floats_is_none(path):
    path.write_text('{"step": 1, "a": 1e999, "b": 1' + "0" * 400 + ', "c": NaN}\n')
    metrics = metric_curves.Metrics(path).update()
    assert {key: found.points() for key, found in metrics.series.items()} == {
        key: [(1, None)] for key in "abc"
    }
