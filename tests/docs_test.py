"""The texts: their links, their lengths, and that they name every module."""

import re

import pytest

from tests.support import documents

PAGES = [*documents.TEXTS, *sorted((documents.ROOT / "docs" / "tutorials").glob("*.md"))]


def names(pages):
    return [str(page.relative_to(documents.ROOT)) for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_local_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_lines_are_short_but_for_tables(page):
    lines = [line for line in page.read_text().splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > 100] == []


def test_the_readme_is_read_in_five_minutes():
    assert len((documents.ROOT / "README.md").read_text().split()) <= 1200


def test_every_guide_is_found_from_the_readme_and_the_index():
    guides = set(names((documents.ROOT / "docs").glob("*.md"))) - {"docs/index.md"}
    readme = (documents.ROOT / "README.md").read_text()
    index = (documents.ROOT / "docs" / "index.md").read_text().splitlines()
    built = {"docs/api.md", "docs/modules.md"}  # empty until they are built
    assert [guide for guide in guides - built if f"({guide})" not in readme] == []
    assert [guide for guide in guides if guide[5:-3] not in index] == []


def test_the_design_names_every_module_in_its_room():
    text = (documents.ROOT / "docs" / "design.md").read_text().split("\n## Modules\n")[1]
    package = documents.ROOT / "byol_jax"
    for section in text.split("\n### ")[1:]:
        room = section.split("\n", 1)[0]
        if room != "Dependencies":
            rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
            named = re.findall(r"`(\w+)`", " ".join(rows))
            modules = {path.stem for path in (package / room).glob("*.py")}
            assert sorted(named) == sorted(m for m in modules if not m.startswith("__")), room
