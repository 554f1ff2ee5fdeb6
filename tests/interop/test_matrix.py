"""What every peer can do, in both roles: the body of the matrix."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_muxado import MuxadoSession

from . import scenarios as our
from .matrix import COLUMNS, Column
from .ours import (
    TEST_TIMEOUT,
    config_for,
    exchange,
    our_client,
    our_server,
)
from .peers import dial_from_peer, serving_peer
from .stream_protocol import STREAM_ENDED, request

pytestmark = pytest.mark.interop

in_every_column = pytest.mark.parametrize("column", COLUMNS, ids=str)

STREAMS: dict[str, tuple[Callable[[MuxadoSession], Any], str]] = {
    "500 echo streams at once": (our.echo_500, "echo 500"),
    "20 MiB up one stream": (our.upload, "upload"),
    "20 MiB down one stream": (our.download, "download"),
    "half-close from either end": (our.half_close, "halfclose"),
    "streams opened by the serving end": (our.open_back, "openback 20"),
}


@in_every_column
@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.row(row)) for row in STREAMS])
async def test_streams(row: str, column: Column, program: Path) -> None:
    ours, theirs = STREAMS[row]
    await exchange(program, column, ours, theirs)


@pytest.mark.row("answer on a stream half-closed at once (defect 4)")
@in_every_column
async def test_a_stream_half_closed_at_once_is_answered(column: Column, program: Path) -> None:
    await exchange(program, column, our.half_close_at_once, "download 5")


@pytest.mark.row("typed streams")
@in_every_column
async def test_types_arrive(column: Column, program: Path) -> None:
    await exchange(program, column, our.typed, "typed 305419896", typed=True)


@pytest.mark.row("typed streams")
@in_every_column
async def test_typed_sessions_carry_what_others_do(column: Column, program: Path) -> None:
    await exchange(program, column, our.echo_500, "echo 500", typed=True)


@pytest.mark.row("closed by the dialling end")
@in_every_column
async def test_a_close_by_the_dialling_end_is_clean(column: Column, program: Path) -> None:
    peer = column.peer
    with trio.fail_after(TEST_TIMEOUT):
        if column.serves:
            async with serving_peer(program) as serving:
                async with our_client(serving.port, config_for(peer)) as session:
                    await our.must_echo(session)
                ending = await serving.next_ending()
            assert ending["clean"], ending
            assert ending["goaway"], ending
        else:
            async with our_server(config_for(peer)) as server:
                await dial_from_peer(program, server.port, "close")
                reason = await server.next_ending()
            assert reason.clean, reason


@pytest.mark.row("closed by the serving end")
@in_every_column
async def test_a_close_by_the_serving_end_is_clean(column: Column, program: Path) -> None:
    peer = column.peer
    with trio.fail_after(TEST_TIMEOUT):
        if column.serves:
            async with serving_peer(program) as serving:
                async with our_client(serving.port, config_for(peer)) as session:
                    await our.must_echo(session)
                    # The stream may end or break: the session goes away under it.
                    with contextlib.suppress(*STREAM_ENDED):
                        await request(session, "close")
                    reason = await session.wait_closed()
            assert reason.clean, reason
        else:
            async with our_server(config_for(peer)) as server:
                result = await dial_from_peer(program, server.port, "peer-close")
                assert result["ending"]["clean"]
                assert result["ending"]["goaway"]
                reason = await server.next_ending()
            assert reason.clean, reason


@pytest.mark.row("accept backlog overrun, the session lives")
@in_every_column
async def test_a_backlog_overrun_costs_streams_at_most(column: Column, program: Path) -> None:
    peer = column.peer
    outcome = await exchange(program, column, our.overrun, "overrun 300 1000", pauses=True)
    if not column.serves:
        # Ours refuses what passes its backlog.  In Rust a reader never learns of an RST, or takes
        # it for the end of an empty stream.
        refused = sum(outcome["refused"].values())
        assert outcome["served"] + refused == 300
        assert 128 <= outcome["served"] < 300
        code = {"v1": "6", "v2": "9"}[peer.wire]
        assert set(outcome["refused"]) <= {code} | (
            {"silent", "empty"} if peer.name == "rust" else set()
        )
    elif peer.name.startswith("go_v2"):
        assert outcome["served"] >= 128
        assert set(outcome) == {"served", "reset ACCEPT_QUEUE_FULL"}
    else:
        # These stop reading until they accept again: everything is served in the end.
        assert outcome == {"served": 300}


@pytest.mark.row("resets both ways, with their codes")
@in_every_column
async def test_resets_carry_their_codes(column: Column, program: Path) -> None:
    peer = column.peer
    outcome = await exchange(program, column, our.resets, "reset")
    # No peer can be told to send a code of our choice: a closed stream answers with this one.
    theirs = "STREAM_CLOSED"
    cancelled = {"v1": "reset 7", "v2": "reset 6"}[peer.wire]
    if column.serves:
        assert outcome["received"] == f"reset {theirs}"
        assert outcome["reset"] == cancelled
        assert outcome["aclose"] == "reset 4"
    else:
        assert outcome["received"] == cancelled
        assert outcome["sent"] == f"reset {theirs}"
