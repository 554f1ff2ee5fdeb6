"""The state tables of the specification are those of the code.

A page has them between two comments, where any reader sees them:

    <!-- states:stream -->
    ...
    <!-- end of states:stream -->

Who changes a transition finds the table that the page needs in the failure of the test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from trio_muxado._protocol.states import SESSION_TRANSITIONS, STREAM_TRANSITIONS, StreamState

PAGES = Path(__file__).parents[1] / "docs" / "specification"

TABLES: Mapping[str, Mapping[Any, Mapping[Any, Any]]] = {
    "stream": STREAM_TRANSITIONS,
    "session": SESSION_TRANSITIONS,
}

every_table = pytest.mark.parametrize("kind", TABLES)
every_page = pytest.mark.parametrize("name", ["v1.md", "v2.md"])


def text_of(name: str) -> str:
    return (PAGES / name).read_text("utf-8")


# The states of a stream have the names of RFC 9113 on the pages.
NAMES: dict[Enum, str] = {
    StreamState.HALF_CLOSED_LOCAL: "half-closed (local)",
    StreamState.HALF_CLOSED_REMOTE: "half-closed (remote)",
    StreamState.CLOSED_LOCAL: "closed (local)",
    StreamState.CLOSED: "closed",
}


def name_of(state: Enum) -> str:
    """The name that the pages use: "half-closed (local)" or "going away"."""
    return NAMES.get(state, state.name.lower().replace("_", " "))


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def draw(kind: str) -> str:
    """The table of ``kind``: states across, what happens down, a missing cell as an error."""
    transitions = TABLES[kind]
    inputs = type(next(iter(next(iter(transitions.values())))))
    text = row("", *(name_of(state) for state in transitions))
    text += row("---", *("---" for _ in transitions))
    for happens in inputs:
        cells = (following.get(happens) for following in transitions.values())
        text += row(happens.value, *(name_of(cell) if cell else "**error**" for cell in cells))
    return text


@every_page
@every_table
def test_the_table_of_a_page_is_that_of_the_code(kind: str, name: str) -> None:
    between = rf"<!-- states:{kind} -->\n\n(.*?)\n<!-- end of states:{kind} -->"
    (table,) = re.findall(between, text_of(name), re.DOTALL)
    assert table == draw(kind)


@every_page
@every_table
def test_a_page_explains_every_state(kind: str, name: str) -> None:
    page = text_of(name)
    for state in TABLES[kind]:
        assert f"\n| {name_of(state)} |" in page
