"""Draws the library's own state tables into the pages that ask for them.

A comment `<!-- states:stream -->` or `<!-- states:session -->` becomes a table, made from
`trio_muxado._protocol.states` while the page is built: what the specification shows is what
the code does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from trio_muxado._protocol import states

if TYPE_CHECKING:
    from sphinx.application import Sphinx

MARK = re.compile(r"^<!-- states:(\w+) -->$", re.MULTILINE)

ERROR = "**error**"

LEGEND = f"""\
The state that follows, by what happens. {ERROR} is one of the peer where the peer does it, and
must not happen where this end does it.
"""

TABLES: Mapping[str, Mapping[Any, Mapping[Any, Any]]] = {
    "stream": states.STREAM_TRANSITIONS,
    "session": states.SESSION_TRANSITIONS,
}


def name_of(state: Enum) -> str:
    """The name that the pages use: "ended, local" or "going away"."""
    between = ", " if isinstance(state, states.StreamState) else " "
    return state.name.lower().replace("_", between)


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |\n"


def draw(kind: str) -> str:
    """The table of ``kind``: states across, what happens down, a missing cell as an error."""
    transitions = TABLES[kind]
    inputs = type(next(iter(next(iter(transitions.values())))))
    text = LEGEND + "\n"
    text += row("", *(name_of(state) for state in transitions))
    text += row("---", *("---" for _ in transitions))
    for happens in inputs:
        cells = (following.get(happens) for following in transitions.values())
        text += row(happens.value, *(name_of(cell) if cell else ERROR for cell in cells))
    return text


def expand(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the marks of a page that is about to be read."""
    page = source[0]
    kinds = MARK.findall(page)
    for kind in kinds:
        if kind not in TABLES:
            raise ValueError(f"{docname}: there is no state table {kind!r}")
        for state in TABLES[kind]:
            if f"| {name_of(state)} |" not in page:
                raise ValueError(f"{docname} does not explain the state {name_of(state)!r}")
    if kinds:
        app.env.note_dependency(states.__file__)
        source[0] = MARK.sub(lambda mark: draw(mark[1]), page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("source-read", expand)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
