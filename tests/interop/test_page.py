"""The table in docs/interoperability.md is what a run prints, and nobody's memory of it."""

from __future__ import annotations

import pytest

from .build import HERE
from .matrix import COLUMNS, Matrix

pytestmark = pytest.mark.interop

PAGE = (HERE.parents[1] / "docs" / "interoperability.md").read_text(encoding="utf-8")


def table_of(markdown: str) -> list[list[str]]:
    """The cells of the one table that has peers for its columns."""
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    lines = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    first = next(i for i, line in enumerate(lines) if COLUMNS[0].title in line)
    width = len(lines[first])
    return [line for line in lines[first:] if len(line) == width and set(line[0]) != {"-"}]


def is_whole(session: pytest.Session) -> bool:
    """Whether all of these tests run, and not some that somebody asked for."""
    modules = {item.path for item in session.items}
    chosen = session.config.option.keyword or any("::" in arg for arg in session.config.args)
    return modules >= set(HERE.glob("test_*.py")) and not chosen


def test_the_page_has_what_was_seen(matrix: Matrix, request: pytest.FixtureRequest) -> None:
    titles, *rows = table_of(PAGE)
    promised = {row[0]: dict(zip(titles[1:], row[1:], strict=True)) for row in rows}
    for name, cells in matrix.cells.items():
        for column, seen in cells.items():
            assert promised[name][column.title] == seen, (name, column.title)
    if is_whole(request.session):
        assert [titles, *rows] == matrix.table()
        assert all(note in " ".join(PAGE.split()) for note in matrix.notes())
