"""The peers as fixtures, and the matrix of what was seen to work."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from .build import PEERS, Peer, binary_of
from .matrix import Column, Matrix

MATRIX = pytest.StashKey[Matrix]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MATRIX] = Matrix()
    config.addinivalue_line(
        "markers", "row(name, says): the row of the interop matrix a test fills, and what with"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks at the matrix runs when it is filled."""
    items.sort(key=lambda item: "matrix" in getattr(item, "fixturenames", ()))


@pytest.fixture
def matrix(request: pytest.FixtureRequest) -> Matrix:
    """What was seen so far."""
    return request.config.stash[MATRIX]


@pytest.fixture
def program(column: Column) -> Path:
    """The built peer of a column."""
    return binary_of(column.peer)


@pytest.fixture
def programs() -> dict[Peer, Path]:
    """All peers, built."""
    return {peer: binary_of(peer) for peer in PEERS}


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, Column, str], None]:
    """Fills a cell by hand, for a test that fills several."""
    return request.config.stash[MATRIX].record


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or report.outcome != "passed":
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        marker = item.get_closest_marker("row")
        column = parameters.get("column")
        if marker is not None and isinstance(column, Column):
            name, *says = marker.args
            outcome = says[0] if says and report.outcome == "passed" else report.outcome
            item.config.stash[MATRIX].record(name, column, outcome)
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    matrix = config.stash[MATRIX]
    if not matrix:
        return
    lines = matrix.as_markdown().splitlines()
    terminalreporter.section("interop matrix")
    for line in lines:
        terminalreporter.write_line(line)
    if target := os.environ.get("INTEROP_MATRIX"):
        Path(target).write_text("\n".join(lines) + "\n", encoding="utf-8")
