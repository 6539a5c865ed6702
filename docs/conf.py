"""Sphinx: the guides, the tutorials, which are executed, and the API reference from docstrings."""

import functools
import pathlib
import re
import sys

from myst_nb.core.execute import direct

DOCS = pathlib.Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

import byol_jax  # noqa: E402

project = "byol_jax"
author = "The byol_jax authors"
version = release = byol_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = f"byol_jax {release}"
html_theme_options = {"show_navbar_depth": 2, "home_page_in_toc": True}
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Docstrings name code and arguments in single backticks.
default_role = "literal"

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 900  # of a cell
nb_execution_raise_on_error = True
# The output of a command comes in pieces of a hundred characters, which belong together.
direct.single_nb_execution = functools.partial(direct.single_nb_execution, coalesce_streams=True)


def link_files_outside(app, name, source):
    """Files of the repository that are no pages here become downloads, which Sphinx checks.

    Pictures stay what they are.
    """
    above = re.escape("../" * (name.count("/") + 1))
    source[0] = re.sub(rf"(?<!!)(\[[^\]]*\])\(({above})", r"\1(path:\2", source[0])


def leave_out_fields(app, what, name, obj, skip, options):
    """Fields of a NamedTuple are described by its docstring."""
    return skip or type(obj).__name__ == "_tuplegetter"


def setup(app):
    app.connect("source-read", link_files_outside)
    app.connect("autodoc-skip-member", leave_out_fields)
