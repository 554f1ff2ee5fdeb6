"""How Sphinx builds these pages: `nox -s docs`, with every warning an error."""

import os
from importlib.metadata import version as installed_version

project = "trio_muxado"
author = "The trio_muxado developers"
copyright = f"2026, {author}"
release = version = installed_version("trio_muxado")

# napoleon: docstrings have sections, "Args:" and "Raises:".
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# Links to trio's and Python's pages need the network, and a build that fails without it would
# be a check of the network. The published pages have them.
if os.environ.get("DOCS_WITH_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "trio": ("https://trio.readthedocs.io/en/stable/", None),
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
python_display_short_literal_types = True

html_theme = "furo"
html_title = "trio_muxado"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
# Named by a page's own HTML, which Sphinx does not look into: the picture for each width.
html_extra_path = ["benchmarks.svg", "benchmarks-narrow.svg"]
