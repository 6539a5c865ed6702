"""The page that shows augmentations before training: one HTML file without scripts."""

from collections.abc import Sequence

from byol_jax.report import html_page
from byol_jax.report.markup import escape

Row = tuple[str, Sequence[tuple[str, str]]]  # title, (words, JPEG in base64)

_PAGE = """<!doctype html>
<html lang="en" data-theme="auto">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{styles}</style>
</head>
<body>
<header class="top"><h1>{title}</h1></header>
<main>
<section class="long"><h2>Views</h2>
<p class="note">Each image and two views of it, which the network is told to see as the same. What
matters to you about an image should be there in both.</p>
<div class="preview">{views}</div></section>
<section class="long"><h2>Each augmentation alone</h2>
<p class="note">At its weakest, middle and strongest; training draws a strength between them, and
applies the augmentation with probability p.</p>
{alone}</section>
</main>
</body>
</html>
"""


def render(title: str, views: Sequence[Row], alone: Sequence[Row]) -> str:
    """The whole page.

    Args:
      title: on top.
      views: a row for each image.
      alone: a row for each augmentation.
    """
    return _PAGE.format(
        policy=html_page.make_policy(),
        title=escape(title),
        styles=html_page.read_file("page.css"),
        views="".join(map(_row, views)),
        alone="".join(map(_row, alone)),
    )


def _row(row: Row) -> str:
    title, cells = row
    figures = "".join(
        f'<figure class="hit"><img class="large" alt="{escape(title)}: {escape(words)}" '
        f'src="data:image/jpeg;base64,{jpeg}"><figcaption>{escape(words)}</figcaption></figure>'
        for words, jpeg in cells
    )
    return f'<div class="strip"><h3>{escape(title)}</h3><div class="cells">{figures}</div></div>'
