"""The words and numbers of a report: verdicts, key figures, values of curves, configs; as HTML."""

import json
from collections.abc import Sequence
from typing import Any

from byol_jax.report import charts, metric_curves, run_data
from byol_jax.report import verdicts as report_verdict
from byol_jax.report.markup import Html, escape, facts, folded, table
from byol_jax.report.run_data import Run

MOODS = {
    report_verdict.GOOD: "Good.",
    report_verdict.BAD: "Look here.",
    report_verdict.OPEN: "Undecided.",
}
TABLE_ROWS = 25
TILES = (
    ("probe/knn_top1", "kNN accuracy", True),
    ("probe/linear_top1", "linear accuracy", True),
    ("train/feature_std", "feature std of projections", False),
    ("train/effective_rank", "effective rank of projections", False),
    ("train/images_per_second", "images per second", False),
)


def verdicts(runs: Sequence[Run], *, now: float) -> str:
    """A box for each run."""
    boxes = []
    for run in runs:
        verdict = _judge(run, now)
        name = f"<strong>{escape(run.name)}</strong> " if len(runs) > 1 else ""
        notes = [f"Note: {note}." for note in run.notes]
        text = " ".join(map(escape, [*verdict.sentences, *notes]))
        boxes.append(
            f'<div class="card verdict {verdict.mood}"><p>{name}'
            f'<span class="mood">{MOODS[verdict.mood]}</span> {text}</p></div>'
        )
    return "".join(boxes)


def _judge(run: Run, now: float) -> report_verdict.Verdict:
    try:
        return report_verdict.judge(run, now=now)
    except Exception as error:  # of files that may hold anything
        words = f"Its files are damaged, so that there is no verdict: {error!r}"
        return report_verdict.Verdict(report_verdict.OPEN, [words[:300]])


def tiles(run: Run) -> str:
    """The figures that people ask for first."""
    boxes = []
    for key, title, is_share in TILES:
        found = run_data.first_and_last(run, key)
        if found:
            (first_step, first), (last_step, last) = found
            before = f", from {show(first, is_share)}" if last_step != first_step else ""
            text = f"{title}{before}"
            boxes.append((show(last, is_share), text))
    for name, fraction in _accuracies(run):
        boxes.append((f"{fraction:.2%}", name))
    for name, fraction in _baselines(run):
        boxes.append((f"{fraction:.2%}", f"top-1 of {name}"))
    duration = run_data.seconds(run)
    if duration is not None:
        boxes.append((show_time(duration), "time in all"))
    inside = "".join(
        f'<div class="card tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>'
        for value, text in boxes
    )
    return f'<div class="tiles">{inside}</div>'


def _accuracies(run: Run) -> list[tuple[str, float]]:
    accuracy = run.result.get("accuracy")
    if not isinstance(accuracy, dict):
        return []
    named = [(key.replace("top", "top-"), value) for key, value in accuracy.items()]
    return [(key, value) for key, value in named if isinstance(value, int | float)]


def _baselines(run: Run) -> list[tuple[str, float]]:
    """What an evaluation has to beat, as far as it is known."""
    test = run_data.section(report_verdict.of_first_seed(run.result), "test")
    named = [(name, report_verdict.top1(run.beside.get(weights, {})))
             for weights, name in report_verdict.BESIDE.items()]  # fmt: skip
    named.append(("the most frequent class", metric_curves.number(test.get("most_frequent_top1"))))
    return [(name, value) for name, value in named if value is not None]


def show(value: float | None, is_share: bool = False) -> str:
    """A number for people."""
    if value is None:
        return "not a number"
    if is_share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show_time(duration: float) -> str:
    """Seconds as people say them."""
    if duration < 120:
        return f"{duration:.0f} s"
    minutes = duration / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def curves(runs: Sequence[Run]) -> str:
    """A figure for each chart: where the script draws it, what it says in words, its values."""
    found = sorted(charts.charts_of(runs), key=lambda chart: not chart.is_main)
    count = sum(chart.is_main for chart in found) or len(found)
    drawn = [_figure(chart, runs) for chart in found]
    legend = '<div id="runs-legend" class="keys" role="group" aria-label="Show or hide runs"></div>'
    shown, rest = (f'<div class="grid">{"".join(p)}</div>' for p in (drawn[:count], drawn[count:]))
    return legend + shown + (folded("More curves", rest) if drawn[count:] else "")


def _figure(chart: charts.Chart, runs: Sequence[Run]) -> str:
    return (
        f'<figure class="card"><h3>{escape(chart.title)}</h3>'
        '<div class="keys legend" role="group" aria-label="Show or hide curves"></div>'
        f'<div class="plot" data-chart="{escape(chart.name)}" role="img" '
        f'aria-label="{escape(chart.title)} by step; arrow keys read values"></div>'
        f'<figcaption data-part="words-{escape(chart.name)}">{_words(chart, runs)}</figcaption>'
        "</figure>"
    )


def _words(chart: charts.Chart, runs: Sequence[Run]) -> str:
    counts = [
        run_data.series(run, key).count
        for run in runs
        for key, _ in chart.series
        if run_data.series(run, key) and key not in charts.CONSTANT
    ]
    few = "Two measurements are no curve." if counts and max(counts) == 2 else ""
    note = f"<p>{escape(' '.join(filter(None, (chart.note, few))))}</p>"
    rows = []
    for run in runs:
        for key, label in chart.series:
            if run_data.series(run, key):
                name = f"{run.name} · {label}" if len(runs) > 1 else label
                rows.append([name, *_extent(run_data.series(run, key), chart.percent)])
    ends = table(["", "first", "last", "least", "greatest"], rows)
    values = _values(chart, runs)
    inside = f'<div class="scroll">{ends}<br>{values}</div>'
    return f"{note}<details><summary>Values</summary>{inside}</details>"


def _extent(series: run_data.Series, percent: bool) -> list[str]:
    finite = [value for _, value in series.points() if value is not None]
    ends = [series.first[1], series.last[1]]
    edges = [min(finite), max(finite)] if finite else [None, None]
    return [show(value, percent) for value in ends + edges]


def _values(chart: charts.Chart, runs: Sequence[Run]) -> str:
    """Some of the steps, evenly spread, with the first and the last."""
    found = [
        (f"{run.name} · {label}" if len(runs) > 1 else label, run_data.series(run, key))
        for run in runs
        for key, label in chart.series
    ]
    columns = [(name, dict(series.points())) for name, series in found if series]
    steps = sorted({step for _, points in columns for step in points})
    total = max([len(steps), *(series.count for _, series in found if series)])
    count = min(TABLE_ROWS, len(steps))
    chosen = [steps[i * (len(steps) - 1) // max(count - 1, 1)] for i in range(count)]
    rows = [
        [f"{step:,}"]
        + [show(points[step], chart.percent) if step in points else "" for _, points in columns]
        for step in chosen
    ]
    title = f"{len(chosen)} of {total:,} steps" if len(chosen) < total else "all steps"
    return table(["step", *(name for name, _ in columns)], rows, title)


def comparison(runs: Sequence[Run]) -> str:
    """What came out of each run, and the keys of their configs that differ, and no others."""
    heads = ["run", *(run.name for run in runs)]
    rows = [["steps", *(f"{run_data.last_step(run):,}" for run in runs)]]
    for key, title, is_share in TILES:
        found = [run_data.first_and_last(run, key) for run in runs]
        if any(found):
            rows.append([title, *(show(f[1][1], is_share) if f else "–" for f in found)])
    results = [dict(_accuracies(run)) for run in runs]
    for name in sorted(set().union(*results)):
        fractions = [result.get(name) for result in results]
        rows.append([f"result: {name}", *("–" if s is None else f"{s:.2%}" for s in fractions)])
    times = [run_data.seconds(run) for run in runs]
    rows.append(["time in all", *("–" if t is None else show_time(t) for t in times)])
    outcome = table(heads, rows, "Last values")
    differing = differences(runs)
    keys = [[_key(key), *map(_plain, values)] for key, values in differing]
    config = (
        table(heads, keys, "Keys of the config that differ")
        if keys
        else ('<p class="note">Their configs are equal.</p>')
    )
    cards = "".join(f'<div class="card scroll">{part}</div>' for part in (outcome, config))
    return f'<div class="grid">{cards}</div>'


def differences(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Keys whose values are not the same in all runs, with the values; None for an absent key."""
    flat = [run_data.flatten(run.config) for run in runs]
    keys = sorted(set().union(*flat))
    found = [(key, [config.get(key) for config in flat]) for key in keys]
    return [(key, values) for key, values in found if any(v != values[0] for v in values)]


def _key(name: str) -> Html:
    """A dotted key, which may go on in the next line after a dot."""
    return Html(f"<code>{escape(name).replace('.', '.<wbr>')}</code>")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def result(run: Run) -> str:
    """What an evaluation wrote, as tables; without the config, which has a place of its own."""
    rows, tables = [], []
    skipped = ("config", "versions", "test", "table", "classes")
    for key, value in run_data.flatten(
        {key: value for key, value in run.result.items() if key not in skipped}
    ).items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            tables.append(_records(key, value))
        else:
            rows.append((_key(key), _plain(value)))
    inside = "<br>".join([*tables, facts(rows)])
    return folded("All of result.json", f'<div class="card scroll">{inside}</div>')


def _records(title: str, records: Sequence[dict[str, Any]]) -> str:
    """Rows of a table in a result; nested ones are left to the file itself."""
    keys = [key for key, value in records[0].items() if not isinstance(value, dict | list)]
    rows = [
        [
            show(row[key]) if isinstance(row.get(key), float) else _plain(row.get(key))
            for key in keys
        ]
        for row in records
    ]
    return table(keys, rows, title)


def details(run: Run) -> str:
    """Where the numbers come from: command, versions, devices, time, memory, config."""
    begin, end = run_data.start(run), run_data.end(run)
    known = {
        "folder": run.path,
        "command": begin.get("command"),
        "started": _time(run_data.started(run)),
        "ended": _time(end.get("time")),
        "end": end.get("message") or end.get("status"),
        "time in all": _maybe(show_time, run_data.seconds(run)),
        "sessions": sum(row.get("event") == "start" for row in run.sessions) or None,
        "devices": begin.get("devices") or run.result.get("devices"),
        "machine": begin.get("machine"),
        "peak memory of the process": _maybe(_gigabytes, end.get("peak_memory_bytes")),
        "peak memory of a device": _maybe(_gigabytes, end.get("peak_device_memory_bytes")),
        "training images": run.data.get("num_images"),
        "versions": _versions(begin.get("versions") or run.result.get("versions")),
    }
    rows = [(key, value) for key, value in known.items() if value is not None]
    config = json.dumps(run.config, indent=2, sort_keys=True)
    inside = f"{facts(rows)}<details><summary>Config</summary><pre>{escape(config)}</pre></details>"
    return folded("Command, machine, versions", f'<div class="card scroll">{inside}</div>')


def _time(text: Any) -> str | None:
    """A moment of `sessions`, which are noted in UTC, as people write it."""
    return text.replace("T", " ").replace("+00:00", " UTC") if isinstance(text, str) else None


def _maybe(show_it: Any, value: Any) -> str | None:
    return show_it(value) if isinstance(value, int | float) else None


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"


def _versions(versions: Any) -> str | None:
    if not isinstance(versions, dict):
        return None
    return ", ".join(f"{package} {version}" for package, version in versions.items())
