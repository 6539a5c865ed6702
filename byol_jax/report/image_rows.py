"""Sections of a report that are rows of pictures with words: what was curated, what was found."""

from collections.abc import Mapping, Sequence
from typing import Any

from byol_jax.report import metric_curves
from byol_jax.report.markup import Html, escape, folded

OPEN = 4  # rows that are open on a phone, too
WIDTH, HEIGHT = 640, 200  # of the histogram, in its own units
SERIES = (
    ("same", "an image and itself, resized, recompressed or cropped", "var(--series-0)"),
    ("other", "an image and the most similar other one", "var(--series-1)"),
)


def draw(content: Mapping[str, Any], number: int) -> str:
    """A section: its note, perhaps a histogram, and its rows of pictures."""
    del number
    chart = _histogram(content["histogram"]) if "histogram" in content else ""
    drawn = [_row(row, content["size"]) for row in content["rows"]]
    are_pairs = all(len(row["images"]) == 2 for row in content["rows"])
    kind = "grid twos" if are_pairs else ""
    parts = [f'<div class="{kind}">{"".join(some)}</div>' for some in (drawn[:OPEN], drawn[OPEN:])]
    rows = parts[0]
    if len(drawn) > OPEN:
        rows += str(folded(f"{len(drawn) - OPEN} more", parts[1]))
    return f'<p class="note">{escape(content["note"])}</p>{chart}{rows}'


def _row(row: Mapping[str, Any], size: int) -> str:
    figures = "".join(
        f'<figure class="hit"><img alt="{escape(image["words"])}" width="{int(size)}" '
        f'src="data:image/jpeg;base64,{escape(image["jpeg"])}">'
        f"<figcaption>{escape(image['words'])}</figcaption></figure>"
        for image in row["images"]
    )
    title = f"<h3>{escape(row['title'])}</h3>" if row["title"] else ""
    return f'<div class="strip">{title}<div class="cells small">{figures}</div></div>'


def _histogram(content: Mapping[str, Any]) -> Html:
    """Both distributions, each as shares of its own images, and the threshold."""
    values = [metric_curves.number(content[key]) for key in ("low", "threshold", "found", "near")]
    low, threshold, found, near = values
    most = max(*content["same"], *content["other"], 1e-9)
    bars = "".join(_bars(content[name], most, color) for name, _, color in SERIES)
    at = WIDTH * min(max((threshold - low) / (1 - low), 0), 1)
    legend = "".join(
        f'<span class="key"><i class="swatch" style="--line:{color}"></i>{escape(words)}</span>'
        for _, words, color in SERIES
    )
    words = (
        f"From a similarity of {threshold:.3f} on (the line), images count as near-duplicates: "
        f"{found:.1%} of those that were made are found, and {near:.1%} of the images have another "
        f"one as near. The axis goes from {low:.2f} to 1; what is below is in the first bar."
    )
    return Html(
        f'<figure class="card"><div class="keys">{legend}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 4}" role="img" aria-label="{escape(words)}" '
        f'style="width:100%;max-height:240px" preserveAspectRatio="none">{bars}'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT}" stroke="var(--text)" '
        f'stroke-width="2" stroke-dasharray="6 4"/></svg>'
        f"<figcaption>{escape(words)}</figcaption></figure>"
    )


def _bars(shares: Sequence[float], most: float, color: str) -> str:
    width = WIDTH / len(shares)
    parts = []
    for i, share in enumerate(shares):
        height = HEIGHT * float(share) / most
        parts.append(
            f'<rect x="{i * width:.1f}" y="{HEIGHT - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" fill="{color}" fill-opacity="0.55"/>'
        )
    return "".join(parts)
