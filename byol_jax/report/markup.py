"""The one place where text becomes HTML: whatever is not marked as HTML already is escaped."""

import html
from collections.abc import Sequence
from typing import Any


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def printable(value: Any) -> str:
    """As text that any file takes: bytes of a file name that are no UTF-8 become escapes."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def escape(value: Any) -> Html:
    """Text that may have come from anywhere, fit for HTML and its attributes."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(printable(value), quote=True))


def folded(summary: str, content: str) -> Html:
    """What stands open on a wide screen, and is folded on a phone."""
    return Html(
        f'<details class="fold" open><summary>{escape(summary)}</summary>{content}</details>'
    )


def table(heads: Sequence[Any], rows: Sequence[Sequence[Any]], caption: str = "") -> Html:
    """A table; numbers, and what is above them, flush right."""
    name = f"<caption>{escape(caption)}</caption>" if caption else ""
    kinds = [_kind([str(row[i]) for row in rows]) for i in range(len(heads))]
    top = "".join(
        f'<th scope="col" class="{kind}">{escape(head)}</th>'
        for kind, head in zip(kinds, heads, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}">{escape(cell)}</td>' for kind, cell in zip(kinds, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return Html(f"<table>{name}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")


def _kind(cells: Sequence[str]) -> str:
    """ "n" if all that is there are numbers, else "wide"."""
    filled = [text for text in cells if text]
    are_numbers = all(
        text[:1].isdigit() or text[:1] in ("–", "-") and len(text) < 12 for text in filled
    )
    return "n" if filled and are_numbers else "wide"


def facts(rows: Sequence[tuple[Any, Any]]) -> Html:
    """A table of names and values."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="wide">{escape(text)}</td></tr>'
        for name, text in rows
    )
    return Html(f'<table class="facts"><tbody>{body}</tbody></table>')
