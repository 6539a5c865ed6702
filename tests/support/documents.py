"""The texts that tell people what to type: the README and the guides."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    """All blocks of a language, each with the lines that end in a backslash joined."""
    for path in TEXTS:
        for block in re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL):
            yield block.replace("\\\n", " ")


def commands():
    """The lines of all bash blocks, each once."""
    return list(dict.fromkeys(line for block in blocks("bash") for line in block.splitlines()))
