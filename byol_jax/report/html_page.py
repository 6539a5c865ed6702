"""Puts a report together: one HTML file that needs nothing but a browser."""

import base64
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence

from byol_jax.report import charts, evaluations, metric_curves, pictures, tables
from byol_jax.report.markup import escape, printable
from byol_jax.report.run_data import Run

FILES = pathlib.Path(__file__).parent / "static"
MOST_BYTES = 4_500_000  # beyond which the pictures of further runs are left out
Section = tuple[str, str, str]  # id, title, HTML


def render(runs: Sequence[Run], *, now: float, version: str = "") -> str:
    """The whole page.

    Args:
      runs: at least one.
      now: seconds since 1970.
      version: of what is shown; given, the page asks its server for newer ones.
    """
    sections, drawn = _sections(runs)
    script, library = (read_file(name) for name in ("page.js", "uPlot.iife.min.js"))
    library = f"/*\n{read_file('uPlot.LICENSE')}*/\n{library}"
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    data = charts.as_data(runs)
    maps = [pictures.atlas_data(runs[i], i) for i in drawn]
    data["atlases"] = [found for found in maps if found]
    slots = {
        "policy": make_policy(script, library, is_live=bool(version)),
        "title": escape(title),
        "lead": escape(_lead(runs)),
        "styles": read_file("uPlot.min.css") + read_file("page.css"),
        "live": f' data-version="{escape(version)}"' if version else "",
        "body": _body(runs, sections, now),
        "data": _json(data),
        "library": library,
        "script": script,
    }
    parts = read_file("page.html").split("{{")
    filled = [parts[0]]
    for part in parts[1:]:
        name, rest = part.split("}}", 1)
        filled += slots[name], rest
    return printable("".join(filled))


def _draw(draw: Callable[..., str], *arguments: object, what: str) -> str:
    """What a part of the page shows; of damaged files it says so, and the other parts stay."""
    try:
        return draw(*arguments)
    except Exception as error:  # of files that may hold anything
        return pictures.damaged(what, error)


def read_file(name: str) -> str:
    """A file of the page: its template, style or script."""
    return (FILES / name).read_text(encoding="utf-8")


def _json(data: object) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def make_policy(*scripts: str, is_live: bool = False) -> str:
    """Tells the browser to run these scripts and no others, and to load nothing.

    Args:
      scripts: as they stand in the page.
      is_live: whether they may ask the page's own server.
    """
    hashes = (hashlib.sha256(script.encode()).digest() for script in scripts)
    listed = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes]
    allowed = " ".join(listed or ["'none'"])
    connect = " connect-src 'self';" if is_live else ""
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline';{connect} "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )


def _lead(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        return ", ".join(run.name for run in runs)
    config, data = runs[0].config, runs[0].data
    words = [str(config.get("task", "")).replace("_", " "), str(config.get("preset") or "")]
    model, source = config.get("model"), config.get("data")
    if isinstance(model, dict) and model.get("encoder"):
        words.append(f"{model['encoder']}")
    if isinstance(source, dict) and source.get("name"):
        count = metric_curves.number(data.get("num_images"))
        words.append(f"{count:,.0f} images of {source['name']}" if count else f"{source['name']}")
    return " · ".join(filter(None, words))


def _sections(runs: Sequence[Run]) -> tuple[list[Section], list[int]]:
    """All sections, and the numbers of the runs whose pictures are among them."""
    sections: list[Section] = []
    if charts.charts_of(runs):
        sections.append(("curves", "Curves", _draw(tables.curves, runs, what="metrics.jsonl")))
    if len(runs) > 1:
        text = _draw(tables.comparison, runs, what="A file of these runs")
        sections.insert(0, ("compare", "Comparison", text))
    drawn, size = [], 0
    for number, run in enumerate(runs):
        made = pictures.pictures(run, number)
        size += sum(len(text) for *_, text in made)
        if size > MOST_BYTES and number:
            words = f'<p class="note">Left out to keep the page small: {escape(run.name)}.</p>'
            made = [(f"left-out-{number}", "More pictures", words)]
        else:
            drawn.append(number)
        sections += [_named(section, run, runs) for section in made]
    for number, run in enumerate(runs):
        sections += [_named(one, run, runs) for one in evaluations.sections(run, number)]
        if run.result:
            text = _draw(tables.result, run, what="result.json")
            sections.append(_named((f"result-{number}", "Result", text), run, runs))
        text = _draw(tables.details, run, what="config.json or sessions.jsonl")
        sections.append(_named((f"details-{number}", "Where it comes from", text), run, runs))
    return sections, drawn


def _named(section: Section, run: Run, runs: Sequence[Run]) -> Section:
    name, title, text = section
    return (name, f"{title}: {run.name}", text) if len(runs) > 1 else section


def _body(runs: Sequence[Run], sections: Sequence[Section], now: float) -> str:
    one = len(runs) == 1
    tiles = _draw(tables.tiles, runs[0], what="result.json") if one else ""
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections)
    whole = [
        f'<div data-part="verdict">{tables.verdicts(runs, now=now)}{tiles}</div>',
        f'<nav aria-label="Sections">{links}</nav>',
    ]
    for name, title, text in sections:
        part = "" if name == "curves" else f' data-part="{escape(name)}"'
        whole.append(
            f'<section id="{escape(name)}" class="long"><h2>{escape(title)}</h2>'
            f"<div{part}>{text}</div></section>"
        )
    return "\n".join(whole)
