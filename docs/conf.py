"""The site: `make docs` builds it from these pages and the docstrings, without a network."""

from importlib import import_module
from pathlib import Path

import monai_medmerge

project = "monai_medmerge"
author = "The monai_medmerge developers"
version = release = monai_medmerge.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# Pages link to files of the repository (README, bundles); the tests check those links. Errors stand on two pages;
# docstrings say `*args` and `a`s as Python does.
suppress_warnings = ["myst.xref_missing", "ref.python", "docutils"]
html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False
autodoc_typehints = "description"
autodoc_member_order = "alphabetical"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
exclude_patterns = ["_build"]

ROOMS = {
    "monai_medmerge": "What most programs need",
    "monai_medmerge.sources": "Checkpoints, matching and filling",
    "monai_medmerge.networks": "Merge, fold, recalibrate, align",
    "monai_medmerge.methods": "Merging methods",
    "monai_medmerge.ranking.order": "Ranking of sources",
    "monai_medmerge.engines": "Training phases",
    "monai_medmerge.handlers": "Handlers for ignite",
    "monai_medmerge.evaluation": "Measures, comparison, gate, report",
    "monai_medmerge.data": "Data sets",
    "monai_medmerge.transforms": "Images in and out",
    "monai_medmerge.errors": "Errors",
    "monai_medmerge.files": "Files: whole or not at all",
    "monai_medmerge.inspection": "Looking at a network",
}


def write_reference(app) -> None:
    """Write one page a room, of what it exports; its own functions where it exports nothing."""
    folder = Path(app.srcdir) / "api"
    for name, title in ROOMS.items():
        imported = "   :imported-members:\n" if hasattr(import_module(name), "__all__") else ""
        # What the first page shows has its place in a room.
        imported += "   :no-index:\n" if name == "monai_medmerge" else ""
        text = f"{name}\n{'=' * len(name)}\n\n{title}.\n\n.. automodule:: {name}\n   :members:\n{imported}"
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_reference)
