"""GOAWAY with streams still running: where each of the known peers has its own defect."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import trio

from trio_muxado import ErrorCode, MuxadoSession, SessionEndedError, open_muxado_session

from . import scenarios as our
from .matrix import COLUMNS, Column
from .ours import TEST_TIMEOUT, config_for, exchange, our_client, our_server
from .peers import dial_from_peer, serving_peer
from .stream_protocol import STREAM_ENDED, request

pytestmark = pytest.mark.interop

GO_COLUMNS = [column for column in COLUMNS if column.peer.name != "rust"]
RUST_COLUMNS = [column for column in COLUMNS if column.peer.name == "rust"]

with_go = pytest.mark.parametrize("column", GO_COLUMNS, ids=str)
with_rust = pytest.mark.parametrize("column", RUST_COLUMNS, ids=str)

THEIRS = "the peer's GOAWAY while streams run (defects 1, 3)"
OURS = "our GOAWAY while streams run (defect 2)"
DRAIN = "our drain() while streams run (defect 2)"


@pytest.mark.row(THEIRS)
@with_go
async def test_the_peers_goaway_lets_our_streams_and_its_own_end(
    column: Column, program: Path
) -> None:
    # Whoever answers "goaway" sends it: the peer where it serves, and where it dials itself.
    await exchange(program, column, our.goaway_running, "self-goaway 10")


@pytest.mark.row(OURS)
@with_go
async def test_our_goaway_lets_the_peers_streams_and_our_own_end(
    column: Column, program: Path
) -> None:
    outcome = await exchange(program, column, our.self_goaway, "goaway-running 10")
    if not column.serves:
        assert outcome["refused"]


@pytest.mark.row(DRAIN)
@with_go
async def test_drain_lasts_as_long_as_the_streams(column: Column, program: Path) -> None:
    await exchange(program, column, our.drain_running, "goaway-running 10", drain=True)


async def all_end(session: MuxadoSession, halves: list[our.Half]) -> None:
    """Every stream ends or breaks, in bounded time and with an error that says so."""
    for half in halves:
        with pytest.raises((*STREAM_ENDED, EOFError, AssertionError)):
            await half.finish()


@pytest.mark.row(THEIRS)
@with_rust
async def test_rusts_goaway_is_the_end_and_a_clean_one(column: Column, program: Path) -> None:
    """Its frame is 8 bytes longer than announced, and behind it comes nothing more."""
    peer = column.peer
    with trio.fail_after(TEST_TIMEOUT):
        if column.serves:
            async with serving_peer(program) as serving:
                async with our_client(serving.port, config_for(peer)) as session:
                    halves = await our.start_halves(session)
                    with contextlib.suppress(*STREAM_ENDED):
                        await request(session, "goaway 0")
                    reason = await session.wait_closed()
                    await all_end(session, halves)
        else:
            async with our_server(config_for(peer)) as server:
                await dial_from_peer(program, server.port, "self-goaway 10")
                reason = await server.next_ending()
    assert reason.clean, reason


@pytest.mark.row(OURS)
@with_rust
async def test_our_goaway_ends_a_rust_session_cleanly(column: Column, program: Path) -> None:
    """Clean on its side.  Ours sees a transport that ends under running streams, and says so."""
    peer = column.peer
    with trio.fail_after(TEST_TIMEOUT):
        if column.serves:
            async with serving_peer(program) as serving:
                async with open_muxado_session(
                    "127.0.0.1", serving.port, config=config_for(peer)
                ) as session:
                    halves = await our.start_halves(session)
                    await session.goaway(ErrorCode.NO_ERROR, b"going away")
                    ending = await serving.next_ending()
                    await all_end(session, halves)
                    reason = await session.wait_closed()
        else:
            async with our_server(config_for(peer)) as server:
                outcome = await dial_from_peer(program, server.port, "goaway-running 10")
                ending = outcome["ending"]
                reason = await server.next_ending()
    assert ending["clean"], ending
    assert ending["goaway"], ending
    assert not reason.clean, reason


@pytest.mark.row(DRAIN)
@with_rust
async def test_drain_ends_with_a_rust_session(column: Column, program: Path) -> None:
    """Rust ends its session at our GOAWAY, so there is nothing left to wait for."""
    peer = column.peer
    with trio.fail_after(TEST_TIMEOUT):
        if column.serves:
            async with serving_peer(program) as serving:
                async with open_muxado_session(
                    "127.0.0.1", serving.port, config=config_for(peer)
                ) as session:
                    halves = await our.start_halves(session)
                    with pytest.raises(SessionEndedError):
                        await session.drain()
                    await all_end(session, halves)
                ending = await serving.next_ending()
        else:
            async with our_server(config_for(peer), drain=True) as server:
                outcome = await dial_from_peer(program, server.port, "goaway-running 10")
                ending = outcome["ending"]
                await server.next_ending()
    assert ending["clean"], ending
