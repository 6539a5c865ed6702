"""Folders of runs, and what a browser makes of a page."""

import html.parser
import json

EVIL = "</script><script>alert('\"1\"')</script>"
CONFIG = {"task": "pretrain", "preset": "x", "total_steps": 100, "model": {"encoder": "tiny"}}


def row(step, **more):
    return {"step": step, "train/loss": 3.0, "train/feature_std": 0.9, **more}


def make_run(folder, rows, *, config=CONFIG, tail="", **files):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    text = "".join(json.dumps(r) + "\n" for r in rows)
    (folder / "metrics.jsonl").write_text(text + tail)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


class Elements(html.parser.HTMLParser):
    """What a browser makes of a page: its elements, its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._open, self.blocks = [], "", "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open = tag

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open == "script":
            self.blocks.append(data)
        elif self._open != "style":
            self.text += data


class Page(Elements):
    """A report, with its data block."""

    def __init__(self, text):
        super().__init__(text)
        self.data = json.loads(self.blocks[0])


PROBES = [
    row(0, **{"probe/knn_top1": 0.3, "probe/raw_pixels_knn_top1": 0.5}),
    row(100, **{"probe/knn_top1": 0.9}),
]
