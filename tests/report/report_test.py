"""Reports of runs in every state: what they say, what they escape, what they leave out."""

import csv
import html
import json
import pathlib
import re
import shlex

import numpy as np
import pytest

from byol_jax.report import charts, cli, figures, run_data, verdicts
from tests.support import documents
from tests.support.pages import CONFIG, EVIL, PROBES, Page, make_run, row


def render(*folders, tmp_path):
    out = cli.write([str(folder) for folder in folders], tmp_path / "page.html")
    return Page(out.read_text())


def verdict(folder, *, later=0.0):
    run = run_data.load_run(folder, "run")
    return verdicts.judge(run, now=run.changed + later)


def test_a_finished_run_says_what_it_has_learned(tmp_path):
    page = render(make_run(tmp_path / "run", PROBES), tmp_path=tmp_path)
    assert (
        "Finished: all 100 steps" in page.text
        and "from 30.0% (random weights) to 90.0%" in page.text
    )
    assert "raw pixels give 50.0%" in page.text and "No collapse" in page.text


STATES = {
    "going on": ([row(10)], 5, "Going on: 10 of 100"),
    "silent": ([row(10)], 9999, "10 of 100 steps so far, nothing has been written for 3 hours"),
    "one step": ([row(1)], 5, "1 of 100 steps"),
    "no step": ([], 5, "0 of 100 steps"),
    "collapsed": ([row(n, **{"train/feature_std": 0.01}) for n in (98, 99, 100)], 5, "COLLAPSED"),
    "perhaps": ([row(100, **{"train/feature_std": 0.01})], 5, "It may be collapsing"),
    "recovered": (
        [*(row(n, **{"train/feature_std": 0.01}) for n in (1, 2, 3)), row(4)],
        5,
        "It had collapsed at step 3",
    ),
    "worse": ([PROBES[0], row(100, **{"probe/knn_top1": 0.2})], 5, "no better than it began"),
    "below pixels": ([PROBES[0], row(100, **{"probe/knn_top1": 0.4})], 5, "not beat raw pixels"),
}


@pytest.mark.parametrize("state", STATES)
def test_the_verdict_knows_every_state(state, tmp_path):
    rows, later, expected = STATES[state]
    folder = make_run(tmp_path / "run", rows)
    assert expected in " ".join(verdict(folder, later=later).sentences)
    assert render(folder, tmp_path=tmp_path).tags


def test_a_failed_run_says_why_and_a_stopped_one_that_it_resumes(tmp_path):
    folder = make_run(tmp_path / "run", [row(10)])
    for message, expected in (("loss is nan", "loss is nan"), ("", "Stopped and saved after 10")):
        end = {"event": "end", "status": "failed" if message else "done", "message": message}
        (folder / "sessions.jsonl").write_text(json.dumps(end) + "\n")
        assert expected in verdict(folder).sentences[0]


def test_without_labels_there_is_no_accuracy_and_no_error(tmp_path):
    folder = make_run(tmp_path / "run", [row(100)], data={"num_classes": 0})
    assert any("No labels" in sentence for sentence in verdict(folder).sentences)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_a_gap_and_is_said(value, tmp_path):
    folder = make_run(tmp_path / "run", [row(1), row(2, **{"train/loss": value}), row(3)])
    page = render(folder, tmp_path=tmp_path)
    assert page.data["charts"][0]["curves"][0]["y"] == [3.0, None, 3.0]
    assert "1 values are not numbers, first train/loss at step 2" in page.text


def test_a_truncated_last_line_is_left_out_and_a_broken_one_before_is_counted(tmp_path):
    folder = make_run(tmp_path / "run", [row(1), row(2)], tail='{"step": 3, "train/lo')
    run = run_data.load_run(folder, "run")
    assert run.metrics.num_rows == 2 and run_data.last_step(run) == 2 and not run.notes
    (folder / "metrics.jsonl").write_text('{"step": 1}\nrubbish\n{"step": 2}\n')
    run = run_data.load_run(folder, "run")
    assert run.metrics.num_rows == 2 and "1 lines" in run.notes[0]


def test_thousands_of_steps_keep_their_extremes_and_invent_nothing():
    values = np.random.default_rng(0).normal(size=20_000)
    values[7_777], values[12_345] = 50, -50
    points = list(enumerate(values.tolist()))
    points[9_000] = (9_000, None)
    thinned = charts.thin(points)
    assert len(thinned) <= charts.MAX_POINTS + 2 and set(thinned) <= set(points)
    assert {points[0], points[-1], points[7_777], points[12_345], points[9_000]} <= set(thinned)
    for start in range(0, 20_000, 1000):  # in every stretch a screen could show
        whole = [v for _, v in points[start : start + 1000] if v is not None]
        kept = [v for s, v in thinned if start <= s < start + 1000 and v is not None]
        assert np.quantile(whole, 0.99) <= max(kept) <= max(whole)
        assert np.quantile(whole, 0.01) >= min(kept) >= min(whole)


def test_a_page_of_thousands_of_steps_stays_small_and_true(tmp_path):
    losses = np.random.default_rng(0).normal(size=20_000).tolist()
    rows = [row(step, **{"train/loss": loss}) for step, loss in enumerate(losses)]
    folder = make_run(tmp_path / "run", rows)
    page = render(folder, tmp_path=tmp_path)
    (curve,) = page.data["charts"][0]["curves"]
    assert (min(curve["y"]), max(curve["y"])) == (min(losses), max(losses))
    assert all(losses[x] == y for x, y in zip(curve["x"], curve["y"], strict=True))
    assert (tmp_path / "page.html").stat().st_size < 500_000
    assert "25 of 20,000 steps" in page.text


def test_a_run_of_one_step_has_curves_of_one_point(tmp_path):
    folder = make_run(tmp_path / "run", [row(1)], config=CONFIG | {"total_steps": 1})
    page = render(folder, tmp_path=tmp_path)
    assert "Finished: all 1 steps" in page.text
    assert {tuple(c["x"]) for chart in page.data["charts"] for c in chart["curves"]} == {(1,)}
    cli.main([str(folder), "--format=png", f"--out={tmp_path / 'plots'}"])
    assert (tmp_path / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_names_and_values_are_escaped_wherever_they_appear(tmp_path):
    rows = [row(1, **{f"train/{EVIL}": 1.0})]
    config = CONFIG | {"preset": EVIL, EVIL: EVIL}
    atlas = {"split": EVIL, "step": 1, "method": EVIL, "labels": [0, 0], "classes": [EVIL]}
    atlas |= {"names": [EVIL, EVIL], "tile": 1, "columns": 2, "sheet": EVIL, "start_title": EVIL}
    atlas |= {"now": [[0, 1], [0, 1]], "purity": {"now": None}}
    pair = {"image": EVIL, "view1": EVIL, "view2": EVIL, "name": EVIL, "label": EVIL}
    folders = []
    for name in ("one <b>", "two \"'>"):
        folder = make_run(tmp_path / name, rows, config=config | {"name": name})
        make_run(folder / "gallery", [], atlas=atlas, pairs={"size": 9, "images": [pair]})
        folders.append(folder)
    page = render(*folders, tmp_path=tmp_path)
    assert sum(tag == "script" for tag, _ in page.tags) == 3  # data, library, ours
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert EVIL in page.text and page.data["atlases"][0]["classes"] == [EVIL]
    assert "damaged" not in page.text


ODD = ("\udcff.png", "$\\bad$", "_hidden", "\u2028", 'a,"b"')


@pytest.mark.parametrize("name", ODD)
def test_names_of_any_characters_reach_page_and_plots(name, tmp_path):
    """Bytes that are no UTF-8, TeX, what legends leave out, ends of lines, commas."""
    folder = make_run(tmp_path / "run", PROBES, config=CONFIG | {"preset": name})
    atlas = {"split": "test", "step": 1, "method": "m", "labels": [0, 0], "classes": [name]}
    atlas |= {"names": [name, name], "tile": 1, "columns": 2, "sheet": "", "start_title": ""}
    atlas |= {"now": [[0, 1], [0, 1]], "purity": {"now": None}}
    make_run(folder / "gallery", [], atlas=atlas)
    page = render(folder, tmp_path=tmp_path)
    printable = run_data.printable(name)
    assert printable in page.text and page.data["atlases"][0]["names"] == [name, name]
    cli.main([str(folder), "--format=svg,png", f"--out={tmp_path / 'plots'}"])
    with (tmp_path / "plots" / "map.csv").open(encoding="utf-8", newline="") as file:
        assert [line[:2] for line in csv.reader(file)][1:] == 2 * [[printable, printable]]
    svg = (tmp_path / "plots" / "map.svg").read_text(encoding="utf-8")
    assert html.escape(printable, quote=False) in svg


def test_a_page_asks_for_nothing_and_runs_only_its_own_scripts(tmp_path):
    page = render(make_run(tmp_path / "run", PROBES), tmp_path=tmp_path)
    for tag, attributes in page.tags:
        for key in ("src", "href"):
            assert attributes.get(key, "#")[0] == "#" or attributes[key].startswith("data:"), tag
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy
    assert "connect-src" not in policy


def test_a_missing_folder_and_one_of_no_run_are_told_from_each_other(tmp_path, capsys):
    make_run(tmp_path / "run", PROBES)
    (tmp_path / "empty").mkdir()
    for name, words in (("rnu", "no folder"), ("empty", "not the folder of a run")):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(tmp_path / name)])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and words in error and str(tmp_path / "run") in error


def documented_commands():
    for line in documents.commands():
        words = shlex.split(line, comments=True) if "-m byol_jax.report " in line else []
        if words and "--watch" not in words:  # report_watch_test
            yield words[words.index("byol_jax.report") + 1 :]


@pytest.mark.parametrize("arguments", list(documented_commands()), ids=" ".join)
def test_commands_of_readme_and_guides_run(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("pretrain-patterns", "short"):
        make_run(pathlib.Path("runs") / name, PROBES)
    cli.main(arguments)
    written = [pathlib.Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written and all(path.stat().st_size for path in written)


def test_it_says_when_a_run_was_started_first_and_how_often(tmp_path):
    folder = make_run(tmp_path / "run", PROBES)
    times = [f"2026-01-0{day}T12:00:00+00:00" for day in (1, 2, 3)]
    events = [("start", times[0]), ("start", times[1]), ("end", times[2])]
    rows = [{"event": event, "time": time, "command": f"at {time}"} for event, time in events]
    (folder / "sessions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = render(folder, tmp_path=tmp_path).text
    assert re.search(r"started\s*2026-01-01 12:00:00 UTC", text)
    assert re.search(r"ended\s*2026-01-03 12:00:00 UTC", text)
    assert re.search(r"sessions\s*2", text)


def test_a_damaged_gallery_or_result_is_said_and_the_rest_is_shown(tmp_path):
    folder = make_run(tmp_path / "run", PROBES)
    make_run(folder / "gallery", [], atlas={"labels": [1]})
    (folder / "result.json").write_text("{")
    page = render(folder, tmp_path=tmp_path)
    assert "atlas.json is damaged" in page.text and "result.json cannot be read" in page.text
    assert "Finished" in page.text
    with pytest.raises(run_data.ReportError, match=r"atlas\.json is damaged"):
        figures.write(run_data.load_runs([str(folder)]), tmp_path / "plots", ["svg"])
    assert (tmp_path / "plots" / "loss.svg").exists()


def test_a_report_never_fails_a_run(tmp_path, capsys):
    assert cli.write_for(tmp_path / "nothing") is None
    assert "To make it later: python -m byol_jax.report" in capsys.readouterr().err


def test_runs_are_compared_by_what_differs_only(tmp_path):
    other = CONFIG | {"model": {"encoder": "large"}}
    folders = [make_run(tmp_path / "a" / "run", PROBES)]
    folders.append(make_run(tmp_path / "b" / "run", PROBES, config=other))
    page = render(*folders, tmp_path=tmp_path)
    assert page.data["runs"] == ["a/run", "b/run"]
    keys = page.text.split("Keys of the config that differ")[1].split("Curves")[0]
    assert "model.encoder" in keys and "large" in keys and "total_steps" not in keys


def test_an_evaluation_shows_its_accuracy_with_its_interval(tmp_path):
    result = {"task": "knn", "accuracy": {"top1": 0.925}, "interval_95": {"top1": [0.91, 0.94]}}
    result |= {"table": [{"k": 10, "top1": 0.9}], "num_images": {"evaluated": 2000}}
    folder = tmp_path / "knn"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))
    page = render(folder, tmp_path=tmp_path)
    assert "top-1 92.50% (95 % interval 91.00% to 94.00%)" in page.text
    assert "Measured on 2,000 images" in page.text


def test_plots_come_with_all_their_data(tmp_path):
    folder = make_run(tmp_path / "run", [row(1, **{"train/loss": 1 / 3}), row(2)])
    runs = run_data.load_runs([str(folder)])
    files = figures.write(runs, tmp_path / "plots", ["svg"])
    assert {f.suffix for f in files} == {".svg", ".csv"} and all(f.stat().st_size for f in files)
    lines = (tmp_path / "plots" / "loss.csv").read_text().splitlines()
    assert float(lines[1].split(",")[-1]) == 1 / 3 and len(lines) == 3


def test_images_without_labels_are_of_no_class_on_the_map():
    content = {"labels": [-1, 0, 1, -1], "classes": ["cat", "dog"], "step": 1}
    figure = figures._draw_map(content | {"now": [[0, 1, 2, 3], [0, 1, 2, 3]]})
    (axes,) = figure.axes
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["no label", "cat", "dog"]
    colors = {tuple(points.get_facecolor()[0]) for points in axes.collections}
    assert len(colors) == 3
