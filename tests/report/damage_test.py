"""Files of a run that are damaged or hostile cost their own part of the page and nothing else."""

import copy
import json
import os

import pytest

from byol_jax.report import cli, run_data
from tests.support.pages import CONFIG, EVIL, Page, make_run, row

ROWS = [
    row(0, **{"probe/knn_top1": 0.3, "train/effective_rank": 9.0}),
    row(100, **{"probe/knn_top1": 0.9}),
]
POINTS = [[0.0, 1.0], [0.5, 1.5]]
IMAGE = {"label": "cat", "name": "1.jpg", "jpeg": "AAAA"}
GALLERY = {
    "atlas": {
        "split": "test",
        "step": 100,
        "method": "t-SNE",
        "labels": [0, -1],
        "classes": ["cat"],
        "names": ["1.jpg", "2.jpg"],
        "tile": 8,
        "columns": 2,
        "sheet": "AAAA",
        "start_title": "random weights",
        "start": POINTS,
        "now": POINTS,
        "purity": {"start": 0.5, "now": 0.9},
    },
    "pairs": {
        "size": 32,
        "images": [{"image": "AAAA", "view1": "AAAA", "view2": "AAAA", "label": "cat"}],
    },
    "neighbours": {
        "images": {"0": IMAGE, "1": IMAGE | {"label": "dog"}},
        "size": 32,
        "num_images": 2,
        "split": "test",
        "step": 100,
        "queries": [{"index": 0, "now": [1], "start": [1], "pixels": [0]}],
    },
    "classes": {
        "k": 20,
        "rows": [{"name": "cat", "count": 50, "start": 0.3, "now": 0.9}],
        "confused": [{"true": "cat", "predicted": "dog", "count": 5, "share": 0.1}],
    },
}
RESULT = {
    "task": "knn",
    "accuracy": {"top1": 0.9, "top5": 1.0},
    "interval_95": {"top1": [0.8, 0.95]},
    "table": [{"k": 10, "top1": 0.9}],
    "num_images": {"evaluated": 50},
    "checkpoint": {"path": "runs/x"},
    "devices": "1 cpu",
    "versions": {"jax": "1"},
    "seconds": 3.5,
}
SESSIONS = [
    {"event": "start", "time": "2026-01-01T00:00:00+00:00", "command": "python", "machine": "x86"},
    {"event": "probe", "num_images": 50},
    {"event": "end", "status": "done", "seconds": 5.0, "peak_memory_bytes": 100, "versions": {}},
]
WHOLE = CONFIG | {
    "batch_size": 8,
    "log_every_steps": 10,
    "collapse": {"patience": 3},
    "data": {"name": "patterns"},
}
FILES = {
    "config.json": WHOLE,
    "data.json": {"num_images": 50, "num_classes": 1},
    "result.json": RESULT,
    **{f"gallery/{name}.json": content for name, content in GALLERY.items()},
}


@pytest.fixture
def folder(tmp_path):
    made = make_run(tmp_path / "run", ROWS)
    make_run(made / "gallery", [])
    for name, content in FILES.items():
        (made / name).write_text(json.dumps(content))
    lines = "".join(json.dumps(session) + "\n" for session in SESSIONS)
    (made / "sessions.jsonl").write_text(lines)
    return made


def render(folder):
    page = cli.write([str(folder)], folder.parent / "page.html")
    return Page(page.read_text(encoding="utf-8"))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "nan": lambda path: path.write_text("NaN"),
    "a list": lambda path: path.write_text("[1, 2]"),
    "a text": lambda path: path.write_text('"text"'),
    "deep": lambda path: path.write_text("[" * 100_000),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a dead link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}
NAMES = (*FILES, "sessions.jsonl", "metrics.jsonl", "lock")


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_costs_its_part_and_is_named(kind, folder):
    (folder / "lock").write_text("process 1 on here\n")
    whole = render(folder)
    assert " is damaged" not in whole.text and "cannot be read" not in whole.text
    for name in NAMES:
        path = folder / name
        before = path.read_bytes()
        DAMAGE[kind](path)
        page = render(folder)
        if name.endswith(".json") and kind not in ("missing", "a dead link"):
            assert path.name in page.text, name
        if name.endswith(".jsonl") and kind in ("binary", "a folder", "a pipe"):
            assert path.name in page.text.split("Views")[0], name
        if name != "metrics.jsonl":
            assert [chart["name"] for chart in page.data["charts"]][:1] == ["loss"], name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(before)
    assert render(folder).text == whole.text


ODD = (None, "x", EVIL, [], {}, [[]], {"x": {}}, -1, 0, 1e300, True, "\udcff")


def places(content, path=()):
    """The paths of everything in a JSON value."""
    yield path
    items = content.items() if isinstance(content, dict) else ()
    items = enumerate(content) if isinstance(content, list) else items
    for key, value in items:
        yield from places(value, (*path, key))


def put(content, path, value):
    content = copy.deepcopy(content)
    if not path:
        return value
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


@pytest.mark.parametrize("name", [*FILES, "sessions.jsonl"])
def test_any_value_of_any_type_anywhere_leaves_the_rest_of_the_page(name, folder, monkeypatch):
    """Every value of every file, one at a time, becomes a fourth of the odd ones."""
    monkeypatch.setattr(cli.html_page, "read_file", lambda name: SHORT.get(name, ""))
    path, whole = folder / name, FILES.get(name, SESSIONS)
    for number, place in enumerate(places(whole)):
        for odd in ODD[number % 4 :: 4]:
            content = put(whole, place, odd)
            if name == "sessions.jsonl":
                content = content if isinstance(content, list) else [content]
                path.write_text("".join(json.dumps(session) + "\n" for session in content))
            else:
                path.write_text(json.dumps(content).replace("1e+300", "1e999"))
            text = cli.html_page.render(run_data.load_runs([str(folder)]), now=0.0)
            text.encode()
            assert "<script>alert" not in text and 'id="loss"' not in text, (place, odd)
            assert 'data-chart="loss"' in text, (place, odd)


SHORT = {"page.html": "{{title}}{{lead}}{{body}}{{data}}"}


HOSTILE = (EVIL, "\"><img src=x onerror='x'>", "&lt;b&gt;", "\udcff\ud800", "{{body}}", "</style>")


@pytest.mark.parametrize("evil", HOSTILE)
def test_hostile_names_are_text_wherever_they_come_from(evil, folder):
    """Class and file names, keys and values of every file."""

    def spoil(content):
        if isinstance(content, dict):
            return {key: spoil(value) for key, value in content.items()} | {evil: evil}
        if isinstance(content, list):
            return [spoil(value) for value in content]
        return evil if isinstance(content, str) else content

    for name, content in FILES.items():
        kept = {"task": content["task"]} if name == "config.json" else {}
        accuracy = {"accuracy": {evil: 0.5, "top1": 0.9}} if name == "result.json" else {}
        (folder / name).write_text(json.dumps(spoil(content) | kept | accuracy))
    lines = [json.dumps(spoil(session)) + "\n" for session in SESSIONS]
    (folder / "sessions.jsonl").write_text("".join(lines))
    other = make_run(folder.parent / "b", [row(1, **{evil: 1.0})])
    (other / "result.json").write_text(json.dumps({"accuracy": {evil: 0.5}}))
    for runs in ([folder], [folder, other]):
        page = cli.write([str(run) for run in runs], folder.parent / "page.html")
        found = Page(page.read_text(encoding="utf-8"))
        assert sum(tag == "script" for tag, _ in found.tags) == 3  # data, library, ours
        assert not any(key.startswith("on") for _, attributes in found.tags for key in attributes)
        assert all(a["src"].startswith("data:") for tag, a in found.tags if tag == "img")
        assert run_data.printable(evil) in found.text


def test_a_run_without_its_config_says_so(folder):
    (folder / "config.json").unlink()
    assert "config.json is missing" in render(folder).text


def test_two_metrics_whose_names_look_alike_have_a_chart_each(tmp_path):
    folder = make_run(tmp_path / "run", [row(1, **{"a/b": 1.0, "a_b": 2.0, "loss": 3.0})])
    charts = [chart["name"] for chart in render(folder).data["charts"]]
    assert len(set(charts)) == len(charts) and {"a_b", "a_b_2", "loss_2"} <= set(charts)


BAD_ARGUMENTS = {
    "": "required: RUN",
    "x --frobnicate": "unrecognized arguments: --frobnicate",
    "x --port=many": "invalid int value: 'many'",
    "x --format=gif": "Unknown --format 'gif'. Valid: html, png",
    "x --format=": "Unknown --format ''",
    "x --watch --out=page.html": "leave out --out",
    "x --watch --port=99999": "Cannot listen on port 99999",
    "nowhere": "There is no folder nowhere",
    "x --out": "--out: expected one argument",
}


@pytest.mark.parametrize("words", BAD_ARGUMENTS)
def test_bad_arguments_of_the_report_are_one_line_and_status_2(
    words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "x", ROWS)
    with pytest.raises(SystemExit) as stopped:
        cli.main(words.split())
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and BAD_ARGUMENTS[words] in error
    assert error.startswith("Error: ") and len(error.splitlines()) == 1
