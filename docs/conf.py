"""How Sphinx builds these pages: `nox -s docs`, with every warning an error."""

import sys
import zlib
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

project = "trio_muxado"
author = "The trio_muxado developers"
copyright = f"2026, {author}"
release = version = installed_version("trio_muxado")

# napoleon: docstrings have sections, "Args:" and "Raises:".
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# The names that these pages link to stand in inventories/, so that a build needs no network. A name
# of trio's or Python's that is not there is an error.
extensions.append("sphinx.ext.intersphinx")
HERE = Path(__file__).parent


def inventory(name: str) -> str:
    """Make an inventory as Sphinx reads it; gives where it is, from here."""
    lines = (HERE / "inventories" / f"{name}.txt").read_text("utf-8").splitlines()
    rows = "".join(
        f"{full} {role} 1 {page}#$ -\n" for full, role, page in (line.split() for line in lines)
    )
    made = HERE / "_build" / f"{name}.inv"
    made.parent.mkdir(exist_ok=True)
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    made.write_bytes(head.encode() + zlib.compress(rows.encode()))
    return str(made.relative_to(HERE))


intersphinx_mapping = {
    "python": ("https://docs.python.org/3", inventory("python")),
    "trio": ("https://trio.readthedocs.io/en/stable/", inventory("trio")),
}
nitpicky = True
# Our own private names, and other libraries'.
nitpick_ignore_regex = [(".*", r"(?!(trio|ssl|collections|contextlib|pathlib)\.).*")]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = False
add_module_names = False
python_display_short_literal_types = True

html_theme = "furo"
html_title = "trio_muxado"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
# Named by a page's own HTML, which Sphinx does not look into: the picture for each width.
html_extra_path = ["benchmarks.svg", "benchmarks-narrow.svg"]


def find_docstrings_of_attributes() -> None:
    """Let Sphinx find them where they stand.

    Public names show the package that users import them from as their module, and Sphinx would
    look there for what only the source of a private module has.
    """
    for public in ("http", "testing", "tunnel"):
        import_module(f"trio_muxado.{public}")
    # By name, since the type checkers' environment has no Sphinx.
    analyzer = import_module("sphinx.pycode").ModuleAnalyzer
    for name in [name for name in sys.modules if name.startswith("trio_muxado.")]:
        package, _, _ = name.partition("._")
        source, shown = map(analyzer.for_module, (name, package))
        source.analyze()
        shown.analyze()
        shown.attr_docs.update(source.attr_docs)


def miss_no_docstring(app: object, page: Any) -> None:
    """Warn where a page names an attribute and does not say what it is."""
    logger = import_module("sphinx.util.logging").getLogger(__name__)
    for node in page.findall(import_module("sphinx.addnodes").desc):
        signature, content = node[0], node[-1]
        if node["objtype"] == "attribute" and not content.children:
            logger.warning("%s has no docstring", signature["fullname"], location=node)


def setup(app: Any) -> None:
    """Sphinx calls this."""
    find_docstrings_of_attributes()
    app.connect("doctree-read", miss_no_docstring)
