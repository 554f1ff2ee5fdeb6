"""GOAWAY with streams still running: where each of the known peers has its own defect."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from trio_muxado import ErrorCode, MuxadoSession, SessionEndedError

from . import scenarios as our
from .matrix import COLUMNS, ENDS_THE_SESSION, Column
from .ours import exchange
from .stream_protocol import STREAM_ENDED, Host, request

pytestmark = pytest.mark.interop

in_every_column = pytest.mark.parametrize("column", COLUMNS, ids=str)
with_go = pytest.mark.parametrize(
    "column", [column for column in COLUMNS if column.peer.name != "rust"], ids=str
)
with_go_v2 = pytest.mark.parametrize(
    "column", [column for column in COLUMNS if column.peer.name.startswith("go_v2")], ids=str
)
with_rust = pytest.mark.parametrize(
    "column", [column for column in COLUMNS if column.peer.name == "rust"], ids=str
)

# With the empty frame that we send behind a GOAWAY: 2.0.1 reads it into the debug text.
TEXT_AT_2_0_1 = "going away\0\0\0\x11\x7f\ufffd\ufffd\ufffd"

THEIRS = "the peer's GOAWAY while streams run"
OURS = "our GOAWAY while streams run"
DRAIN = "our drain() while streams run"


@pytest.mark.row(THEIRS)
@with_go
async def test_the_peers_goaway_lets_our_streams_and_its_own_end(
    column: Column, program: Path
) -> None:
    """Although Go v1 announces more bytes than it sends."""
    # Whoever answers "goaway" sends it: the peer where it serves, and where it dials itself.
    seen = await exchange(program, column, our.goaway_running, "self-goaway 10")
    if not column.serves:
        refused = "bad: ['refused REMOTE_GONE_AWAY, safe to retry']"
        assert seen.outcome == {"streams": 10, "answer": refused}


@pytest.mark.row(OURS)
@with_go
async def test_our_goaway_lets_the_peers_streams_and_our_own_end(
    column: Column, program: Path
) -> None:
    """Although Go v2 before 2.0.2 reads it 8 bytes too far."""
    seen = await exchange(program, column, our.self_goaway, "goaway-running 10")
    text = TEXT_AT_2_0_1 if column.peer.name == "go_v2_old" else "going away"
    assert seen.theirs["debug"] == text
    if not column.serves:
        assert "gone away" in seen.outcome["refused"]


async def drain_when_asked(host: Host) -> None:
    # The other end closes the session, not we: a Go v1 reader that finds it closed loses what
    # had already arrived, since the WNDINC for it cannot be written any more.
    await host.asked_to_drain.wait()
    await host.session.drain()
    host.story.append("drained")


@pytest.mark.row(DRAIN)
@with_go
async def test_drain_lasts_as_long_as_the_streams(column: Column, program: Path) -> None:
    seen = await exchange(
        program,
        column,
        our.drain_running,
        "goaway-running 10",
        drain=True,
        beside=drain_when_asked,
    )
    if not column.serves:
        assert "gone away" in seen.outcome["refused"]
        # Ten streams, and the one that asked for it.
        assert seen.host.story == ["stream"] * 11 + ["drained"]


@pytest.mark.row("the peer's GOAWAY code in wait_closed()")
@in_every_column
async def test_the_peers_code_is_why_the_session_ended(column: Column, program: Path) -> None:
    seen = await exchange(program, column, our.leave, "leave 2", clean=False)
    assert seen.ours.code is ErrorCode.INTERNAL_ERROR
    assert seen.ours.initiator == "remote"
    assert not seen.ours.clean
    # Go v1 announces its text and doesn't send it; Rust's length lacks the last 8 bytes of it.
    said = {"go_v1": b"", "rust": b"closed by the R"}
    assert seen.ours.debug == said.get(column.peer.name, b"going away")


@pytest.mark.row("our GOAWAY code, as the peer reports it")
@with_go_v2  # Go v1 tells its user the text and no code, Rust neither
async def test_our_code_reaches_the_peer(column: Column, program: Path) -> None:
    # No stream runs: it is not about those.
    theirs = "goaway-running 0 10"
    seen = await exchange(program, column, our.self_leave, theirs, clean=False)
    assert seen.theirs["goaway"], seen.theirs
    assert seen.theirs["remote"] == 10


async def all_end(halves: list[our.Half]) -> None:
    """Every stream ends or breaks, in bounded time and with an error that says so."""
    for half in halves:
        with pytest.raises((*STREAM_ENDED, EOFError, AssertionError)):
            await half.finish()


@pytest.mark.row(THEIRS, ENDS_THE_SESSION)
@with_rust
async def test_rusts_goaway_is_the_end_and_a_clean_one(column: Column, program: Path) -> None:
    """Its frame is 8 bytes longer than announced, and behind it comes nothing more."""

    async def goaway_running(session: MuxadoSession) -> dict[str, Any]:
        halves = await our.start_halves(session)
        with contextlib.suppress(*STREAM_ENDED):
            await request(session, "goaway 0")
        await session.wait_closed()
        await all_end(halves)
        return {}

    seen = await exchange(program, column, goaway_running, "self-goaway 10")
    assert seen.ours.initiator == "remote"


@pytest.mark.row(OURS, ENDS_THE_SESSION)
@with_rust
async def test_our_goaway_ends_a_rust_session_cleanly(column: Column, program: Path) -> None:
    """Clean on its side.  Ours sees a transport that ends under running streams, and says so."""

    async def self_goaway(session: MuxadoSession) -> dict[str, Any]:
        halves = await our.start_halves(session)
        await session.goaway(ErrorCode.NO_ERROR, b"going away")
        await all_end(halves)
        await session.wait_closed()
        return {}

    seen = await exchange(program, column, self_goaway, "goaway-running 10", clean=False)
    assert seen.theirs["clean"], seen.theirs
    assert seen.theirs["goaway"], seen.theirs
    assert seen.ours.initiator == "transport"
    if not column.serves:
        assert seen.outcome["survived"] == 0


@pytest.mark.row(DRAIN, ENDS_THE_SESSION)
@with_rust
async def test_drain_ends_with_a_rust_session(column: Column, program: Path) -> None:
    """Rust ends its session at our GOAWAY, so there is nothing left to wait for."""

    async def drain_running(session: MuxadoSession) -> dict[str, Any]:
        halves = await our.start_halves(session)
        with pytest.raises(SessionEndedError):
            await session.drain()
        await all_end(halves)
        return {}

    async def drain_when_asked(host: Host) -> None:
        await host.asked_to_drain.wait()
        with pytest.raises(SessionEndedError):
            await host.session.drain()
        host.story.append("broke")

    seen = await exchange(
        program,
        column,
        drain_running,
        "goaway-running 10",
        clean=False,
        drain=True,
        beside=drain_when_asked,
    )
    assert seen.theirs["clean"], seen.theirs
    assert seen.ours.initiator == "transport"
    if not column.serves:
        assert seen.host.story[-1] == "broke"
