"""Sessions that idle past interval and tolerance of their heartbeat: all of them at once.

Real time, for once: what is proved is that two processes keep each other's session alive.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_muxado import MuxadoSession

from . import scenarios as our
from .build import Peer
from .matrix import COLUMNS, Column
from .ours import INTERVAL, TOLERANCE, exchange
from .stream_protocol import Host

pytestmark = pytest.mark.interop

ROW = "idle past the heartbeat's interval and tolerance"
IDLE = INTERVAL + TOLERANCE + 1


async def answered(session: MuxadoSession) -> None:
    """The peer answers our beats."""
    assert session.latency is not None
    assert 0 < session.latency < TOLERANCE
    assert 0 < await session.ping() < TOLERANCE


async def idle(session: MuxadoSession) -> dict[str, Any]:
    await our.must_echo(session, b"before")
    await trio.sleep(IDLE)
    await our.must_echo(session, b"after")
    await answered(session)
    return {}


async def idle_beside(host: Host) -> None:
    await trio.sleep(IDLE - 1)
    await answered(host.session)


async def test_idle_sessions_stay_alive(
    programs: dict[Peer, Path], record: Callable[[str, Column, str], None]
) -> None:
    failures: list[str] = []

    async def one(column: Column, program: Path) -> None:
        try:
            seen = await exchange(
                program,
                column,
                idle,
                f"idle {IDLE * 1000}",
                heartbeat=True,
                beside=idle_beside,
            )
            if column.peer.typed_sessions:
                # Go v1 counts no beats; it would have ended the session.
                theirs = seen.theirs if column.serves else seen.outcome
                assert theirs["missed"] == 0
                assert theirs["beats"] >= 3
        except Exception as error:
            record(ROW, column, "failed")
            failures.append(f"{column}: {error!r}")
        else:
            record(ROW, column, "passed")

    async with trio.open_nursery() as nursery:
        for column in COLUMNS:
            nursery.start_soon(one, column, programs[column.peer])
    assert not failures
