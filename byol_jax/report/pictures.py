"""The pictures of a report: pairs of views, nearest neighbors, maps, classes; as HTML.

All of it comes from the JSON files of a run's folder ``gallery``. Whatever was a name in them is
escaped here; images are JPEGs in base64.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from byol_jax.report import image_rows, metric_curves, run_data
from byol_jax.report.markup import Html, escape, folded, table
from byol_jax.report.run_data import Run

SPACES = (("now", "features now"), ("start", "features at the start"), ("pixels", "raw pixels"))
LATER = "python -m byol_jax.main_loop --config=configs/gallery.py --config.checkpoint="


def pictures(run: Run, number: int) -> list[tuple[str, str, str]]:
    """Sections (id, title, HTML) of one run; a damaged part says so instead of the page failing."""
    made = []
    for part, title, draw in _SECTIONS:
        if part not in run.gallery:
            continue
        try:
            text = draw(run.gallery[part], number)
        except Exception as error:  # of a file that may hold anything
            text = damaged(f"gallery/{part}.json", error)
        made.append((f"{part}-{number}", title, text))
    if run_data.is_pretraining(run) and "atlas" not in run.gallery:
        command = escape(f"{LATER}{shlex.quote(str(run.path))}")
        text = (
            '<p class="note">Neighbors, map and classes are made when a run has finished. '
            f"To make them now from its newest checkpoint:</p><pre>{command}</pre>"
        )
        made.append((f"later-{number}", "More pictures", text))
    return made


def damaged(name: str, error: Exception) -> Html:
    """In place of what a damaged file would have shown."""
    return Html(f'<p class="note">{escape(name)} is damaged: {escape(repr(error)[:200])}</p>')


def thumbnail(jpeg: str, words: str, size: int) -> Html:
    crisp = ' class="pixel"' if size <= 48 else ""
    return Html(f'<img{crisp} alt="{escape(words)}" src="data:image/jpeg;base64,{escape(jpeg)}">')


def _pairs(content: Mapping[str, Any], number: int) -> str:
    del number
    figures = []
    for image in content["images"]:
        words = _title(image)
        parts = [
            thumbnail(image["image"], f"{words}, as it is", content["size"]),
            thumbnail(image["view1"], f"{words}, view 1", content["size"]),
            thumbnail(image["view2"], f"{words}, view 2", content["size"]),
        ]
        figures.append(
            f'<div class="pair">{"".join(parts)}<div class="words">{escape(words)}</div></div>'
        )
    return (
        '<p class="note">Each image and the two views that the first training step made of it: '
        "what the network is told to see as the same. Nothing that matters to you should be lost "
        f"in both.</p>{first_few(figures, 3, 'pairs', 'More views')}"
    )


def first_few(items: Sequence[str], count: int, kind: str, summary: str) -> str:
    """The first few, and the others where a phone folds them."""
    shown, rest = (
        f'<div class="{kind}">{"".join(p)}</div>' for p in (items[:count], items[count:])
    )
    return shown + (folded(summary, rest) if items[count:] else "")


def _title(image: Mapping[str, Any]) -> str:
    return " · ".join(str(image[key]) for key in ("label", "name") if image.get(key) is not None)


def _neighbors(content: Mapping[str, Any], number: int) -> str:
    del number
    images, size = content["images"], content["size"]
    blocks = []
    for query in content["queries"]:
        image = images[str(query["index"])]
        spaces = "".join(
            f'<div class="space"><h4>{title}</h4><div class="five">'
            + "".join(_hit(images[str(index)], image, size) for index in query[space])
            + "</div></div>"
            for space, title in SPACES
            if space in query
        )
        own = f'<figure class="hit">{thumbnail(image["jpeg"], f"query: {_title(image)}", size)}'
        blocks.append(
            f'<div class="query">{own}<figcaption>{escape(_title(image))}</figcaption></figure>'
            f'<div class="spaces">{spaces}</div></div>'
        )
    return (
        f'<p class="note">{_score(content)} Left: the query, the first image of a class. Then its '
        f"five nearest among the {content['num_images']:,} images of the split "
        f"“{escape(content['split'])}”, the nearest first, after step {content['step']:,}, before "
        "training, and by the pixels themselves. Dashed and named in color: another class."
        f"</p>{first_few(blocks, 2, 'queries', 'More neighbors')}"
    )


def _score(content: Mapping[str, Any]) -> str:
    """How many of the neighbors shown are of the right class, in words."""
    images, fractions = content["images"], []
    for space, title in SPACES:
        pairs = [
            (images[str(query["index"])]["label"], images[str(index)]["label"])
            for query in content["queries"]
            for index in query.get(space, ())
        ]
        if pairs and all(label is not None for pair in pairs for label in pair):
            fractions.append(f"{sum(a == b for a, b in pairs)} of {len(pairs)} by {title}")
    return f"Of the query's class are {', '.join(fractions)}." if fractions else ""


def _hit(image: Mapping[str, Any], query: Mapping[str, Any], size: int) -> str:
    is_wrong = image["label"] is not None and image["label"] != query["label"]
    mark = "wrong class: " if is_wrong else ""
    words = escape(image["label"]) if is_wrong else ""
    text = thumbnail(image["jpeg"], f"{mark}{_title(image)}", size)
    name = f'<figcaption title="{words}">{words}</figcaption>' if is_wrong else ""
    return f'<figure class="hit{" wrong" if is_wrong else ""}">{text}{name}</figure>'


def _atlas(content: Mapping[str, Any], number: int) -> str:
    if not is_sound_map(content):
        raise ValueError("its points, labels and names do not fit each other")
    figures = "".join(
        f'<figure class="card"><h3>{escape(title)}</h3><div class="plot map" data-atlas="{number}" '
        f'data-when="{when}" role="img" aria-label="Map of the embeddings, {escape(title)}; '
        f'arrow keys show images"></div>'
        "</figure>"
        for when, title in (
            ("start", f"before training: {content['start_title']}"),
            ("now", f"after step {content['step']:,}"),
        )
        if when in content
    )
    return (
        f'<p class="note">Each point is one of {len(content["labels"]):,} images of the split '
        f"“{escape(content['split'])}” ({escape(content['method'])}). Near each other: alike to "
        "the network. Distances between far groups mean nothing, and axes have no unit. Point at "
        "one, or go from left to right with the arrow keys, to see its image; press a class to set "
        "it apart. In numbers: the fraction of an image's five nearest points that have its class "
        f"is {_purity(content)}.</p>"
        f'<div class="keys classes" id="classes-{number}"></div><div class="grid">{figures}</div>'
        f'<img id="sheet-{number}" alt="" hidden '
        f'src="data:image/jpeg;base64,{escape(content["sheet"])}">'
    )


def _purity(content: Mapping[str, Any]) -> str:
    fractions = [
        f"{content['purity'][when]:.1%} {title}"
        for when, title in (("start", "before training"), ("now", "now"))
        if content["purity"].get(when) is not None
    ]
    return ", ".join(fractions) or "unknown without labels"


def _classes(content: Mapping[str, Any], number: int) -> str:
    del number
    rows = [
        [
            row["name"],
            f"{row['count']:,}",
            _fraction(row["start"]),
            _fraction(row["now"]),
            _bar(row["now"]),
        ]
        for row in sorted(content["rows"], key=lambda row: row["now"])
    ]
    heads = ["class", "images", "at the start", "now", Html('<span class="hidden">bar</span>')]
    confused = [
        [row["true"], row["predicted"], f"{row['count']:,}", _fraction(row["share"])]
        for row in content["confused"]
    ]
    return (
        f'<p class="note">By a vote of the {escape(content["k"])} nearest training images; the '
        f'hardest classes first.</p><div class="grid">'
        '<div class="card scroll tall" tabindex="0" role="region" aria-label="Accuracy by class">'
        f"{table(heads, rows, 'Accuracy by class')}</div>"
        '<div class="card scroll">'
        + table(["is", "taken for", "images", "of its class"], confused, "Most confused")
        + "</div></div>"
    )


def _bar(fraction: float) -> Html:
    return Html(f'<span class="bar" aria-hidden="true"><i style="width:{fraction:.1%}"></i></span>')


def _fraction(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.1%}"


def atlas_data(run: Run, number: int) -> dict[str, Any] | None:
    """What the page's script draws of a run's map; None if it has none, or a damaged one."""
    content = run.gallery.get("atlas")
    if not content or not is_sound_map(content):
        return None
    from byol_jax.report import map_colors  # and NumPy, which --help and --version do without

    keys = ("labels", "classes", "names", "tile", "columns", "start", "now")
    kept = {key: content[key] for key in keys if key in content}
    return {"run": number, "looks": map_colors.choose(content)} | kept


def is_sound_map(content: Mapping[str, Any]) -> bool:
    """Whether a map has as many points as images, and numbers where numbers are drawn."""
    labels, names, classes = (content.get(key) for key in ("labels", "names", "classes"))
    if not all(isinstance(part, list) for part in (labels, names, classes)):
        return False
    maps = [content[when] for when in ("start", "now") if when in content]
    sizes = [content.get("tile"), content.get("columns")]
    are_labels = all(type(label) is int and label < len(classes) for label in labels)
    return (
        are_labels
        and len(names) == len(labels)
        and all(metric_curves.number(size) for size in sizes)
        and all(_are_points(points, len(labels)) for points in maps)
    )


def _are_points(points: Any, count: int) -> bool:
    return (
        isinstance(points, list)
        and len(points) == 2
        and all(isinstance(axis, list) and len(axis) == count for axis in points)
        and all(metric_curves.number(value) is not None for axis in points for value in axis)
    )


def _predictions(content: Mapping[str, Any], number: int) -> str:
    del number
    figures = []
    for image in content["images"]:
        parts = [
            thumbnail(image[part], f"{words}: {image['words']}", content["size"])
            for part, words in (
                ("image", "image"),
                ("truth", "truth"),
                ("predicted", "prediction"),
            )
        ]
        words = escape(str(image["words"]))
        figures.append(f'<div class="pair">{"".join(parts)}<div class="words">{words}</div></div>')
    legend = "".join(
        f'<span style="color:{escape(color)}">&#9632;</span> {escape(name)} '
        for name, color in content["legend"]
    )
    shown = first_few(figures, 3, "pairs", "More predictions")
    return (
        '<p class="note">Tested images, the truth, and what was predicted; light gray is not '
        f'counted.</p><p class="note">{legend}</p>{shown}'
    )


_SECTIONS: tuple[tuple[str, str, Callable[[Mapping[str, Any], int], str]], ...] = (
    ("pairs", "Views", _pairs),
    ("neighbours", "Nearest neighbors", _neighbors),
    ("atlas", "Map of the embeddings", _atlas),
    ("classes", "Classes", _classes),
    ("predictions", "Predictions", _predictions),
    ("search", "What was found", image_rows.draw),
    ("duplicates", "Near-duplicates", image_rows.draw),
    ("label_errors", "Suspected labels", image_rows.draw),
    ("outliers", "Outliers", image_rows.draw),
    ("clusters", "Clusters", image_rows.draw),
    ("subset", "Subset", image_rows.draw),
)
