"""What an evaluation found, for its page: classes, confusions, surest mistakes, sweep, baselines.

All of it comes from ``result.json`` and ``gallery/mistakes.json``; whatever was a name in them is
escaped here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from byol_jax.report import pictures, verdicts
from byol_jax.report.markup import Html, escape, folded, table
from byol_jax.report.run_data import Run, section

MATRIX_CLASSES = 20  # up to which the matrix is drawn; of more, the most frequent confusions are
ROWS = 20  # of a table before the rest is folded


def sections(run: Run, number: int) -> list[tuple[str, str, str]]:
    """Sections (id, title, HTML) of an evaluation; none of what it does not have."""
    test = section(verdicts.of_first_seed(run.result), "test")
    made = []
    for name, title, draw, is_there in (
        ("of-classes", "Classes", _classes, test.get("confusion")),
        ("mistakes", "Surely wrong", _mistakes, run.gallery.get("mistakes")),
        ("sweep", "What was tried", _sweep, verdicts.of_first_seed(run.result).get("table")),
    ):
        if not is_there:
            continue
        try:
            made.append((f"{name}-{number}", title, draw(run)))
        except Exception as error:  # of files that may hold anything
            made.append((f"{name}-{number}", title, pictures.damaged("result.json", error)))
    return made


def _names(run: Run, count: int) -> list[str]:
    names = run.result.get("classes")
    return (
        names if isinstance(names, list) and len(names) == count else list(map(str, range(count)))
    )


def _classes(run: Run) -> str:
    """A row for each class, the worst first, and which class was taken for which."""
    confusion = verdicts.of_first_seed(run.result)["test"]["confusion"]
    names = _names(run, len(confusion))
    rows = sorted(
        (_row(names, confusion, i) for i in range(len(names)) if sum(confusion[i])),
        key=lambda row: row[0],
    )
    heads = ["class", "images", "right", "95 % interval", "most often taken for"]
    cells = [row[1] for row in rows]
    parts = [table(heads, cells[:ROWS], "The worst first")]
    if len(cells) > ROWS:
        parts.append(folded(f"{len(cells) - ROWS} classes more", table(heads, cells[ROWS:])))
    draw = _matrix if len(names) <= MATRIX_CLASSES else _most_confused
    cards = "".join(
        f'<div class="card scroll">{part}</div>'
        for part in ("".join(parts), draw(names, confusion))
    )
    return (
        '<p class="note">Of the evaluated images. An interval is Wilson\'s; of few images it is '
        f'wide.</p><div class="grid">{cards}</div>'
    )


def _row(
    names: Sequence[str], confusion: Sequence[Sequence[int]], i: int
) -> tuple[float, list[str]]:
    counts = confusion[i]
    total = sum(counts)
    right = counts[i] / total
    low, high = verdicts.wilson_interval(right, total)
    others = [(count, j) for j, count in enumerate(counts) if j != i and count]
    most = max(others, key=lambda other: (other[0], -other[1]), default=None)
    taken = f"{names[most[1]]} ({most[0]:,})" if most else "–"
    interval = f"{low:.1%} to {high:.1%}"
    return right, [names[i], f"{total:,}", f"{right:.1%}", interval, taken]


def _matrix(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> Html:
    """Rows are the true classes; the more of a row, the darker a cell."""
    heads = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in names)
    body = ""
    for name, counts in zip(names, confusion, strict=True):
        total = max(sum(counts), 1)
        cells = "".join(
            f'<td style="--part:{100 * count / total:.0f}%">{count or ""}</td>' for count in counts
        )
        body += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    return Html(
        '<table class="matrix"><caption>Rows: what images are; columns: what they were taken for'
        f"</caption><thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table>"
    )


def _most_confused(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> Html:
    pairs = [
        (count, names[i], names[j], count / sum(counts))
        for i, counts in enumerate(confusion)
        for j, count in enumerate(counts)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [[name, other, f"{n:,}", f"{part:.1%}"] for n, name, other, part in pairs[:ROWS]]
    return table(
        ["class", "taken for", "images", "of its images"], rows, "Most frequent confusions"
    )


def _mistakes(run: Run) -> str:
    content = run.gallery["mistakes"]
    images = content["images"]
    if not images:
        return '<p class="note">None of the evaluated images was wrong.</p>'
    names = run.result.get("classes") or []
    figures = []
    for image in images:
        truth, taken = (_name(names, image[key]) for key in ("label", "predicted"))
        words = f"{truth}, taken for {taken} ({image['probability']:.1%}) · {image['file']}"
        picture = pictures.thumbnail(image["image"], words, content["size"])
        figures.append(f'<div>{picture}<div class="words">{escape(words)}</div></div>')
    return (
        '<p class="note">The wrong answers with the highest probabilities: a label that is wrong, '
        "a class that means two things, or what the encoder cannot see.</p>"
        f"{pictures.first_few(figures, 8, 'singles', 'More mistakes')}"
    )


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def _sweep(run: Run) -> str:
    """The settings that were tried, the chosen one marked."""
    mine = verdicts.of_first_seed(run.result)
    rows, selected = mine["table"], section(mine, "selected")
    keys = [key for key, value in rows[0].items() if not isinstance(value, dict | list)]
    cells = [
        ["chosen" if _is(row, selected) else "", *(_show(key, row.get(key)) for key in keys)]
        for row in rows
    ]
    heads = [key.replace("_", " ") for key in keys]
    on = f"Chosen on {selected.get('on')}" if selected.get("on") else ""
    return f'<div class="card scroll">{table(["", *heads], cells, on)}</div>'


def _is(row: Mapping[str, Any], selected: Mapping[str, Any]) -> bool:
    return all(selected.get(key) == value for key, value in row.items())


def _show(key: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2%}" if "top" in key or "mean_per_class" in key else f"{value:.4g}"
    return "–" if value is None else str(value)
