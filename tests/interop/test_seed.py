"""The exchange of client.go and server.go in the README of muxado v1."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import scenarios as our
from .matrix import COLUMNS, Column
from .ours import exchange

pytestmark = pytest.mark.interop

V1_COLUMNS = [column for column in COLUMNS if column.peer.wire == "v1"]


@pytest.mark.row("the example in muxado v1's README")
@pytest.mark.parametrize("column", V1_COLUMNS, ids=str)
async def test_the_exchange_of_the_seeds_readme(column: Column, program: Path) -> None:
    await exchange(
        program,
        column,
        our.seed_exchange,
        "seed-exchange",
        serve_options=("--seed",),
        seed=True,
    )
