"""Settings of the documentation site; `make docs` builds the site and treats warnings as errors.

The source folder of Sphinx is the root of the repository. Links such as ../benchmarks/README.md therefore work on the
site as they do on a code host, and a link to a file that is not a document becomes a download.
"""

import posixpath
import re
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

project = "fedvtc"
copyright = "the fedvtc authors"
version = release = version_of("fedvtc")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "jobs/*.md", "benchmarks/*.md"]
# Sphinx walks the source folder: these folders are large, or hold no documents.
exclude_patterns = [".*", "outputs", "data", "wandb", "dist", "conf", "src", "tests", "docs/_build", "**/__pycache__"]

html_theme = "furo"
html_title = f"fedvtc {version}"
html_show_sourcelink = False
highlight_language = "text"

# html_image: `<img>` in Markdown is an image of the site too. Anchors have the form of code hosts.
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3

# Docstrings write code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_type_comments = False
autodoc_default_options = {"members": True, "show-inheritance": True}


def add_sidebar(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turns each section of docs/index.md into one part of the sidebar, with the pages that the section links to."""
    if docname != root_doc:
        return
    for section in source[0].split("\n## ")[1:]:
        caption, _, text = section.partition("\n")
        targets = re.findall(r"\]\(([^)#]+\.md)\)", text)
        pages = ["/" + posixpath.normpath(f"docs/{target}").removesuffix(".md") for target in targets]
        source[0] += "\n".join(["\n\n```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```\n"])


def add_front_page(app: Sphinx, error: Exception | None) -> None:
    """Leads from the top folder of the site to docs/index.html."""
    if error is None:
        page = '<!doctype html><title>fedvtc</title><meta http-equiv="refresh" content="0; url=docs/index.html">\n'
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Connects the two functions to Sphinx."""
    app.connect("source-read", add_sidebar)
    app.connect("build-finished", add_front_page)
