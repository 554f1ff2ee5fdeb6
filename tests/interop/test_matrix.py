"""What every peer can do, in both roles: the body of the matrix."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from trio_muxado import MuxadoSession

from . import scenarios as our
from .matrix import COLUMNS, Column
from .ours import exchange
from .stream_protocol import STREAM_ENDED, Host, request

pytestmark = pytest.mark.interop

in_every_column = pytest.mark.parametrize("column", COLUMNS, ids=str)

UP, DOWN = "20 MiB up one stream", "20 MiB down one stream"
INITIAL_WINDOWS = {"v1": 65_536, "v2": 262_144}

STREAMS: dict[str, tuple[Callable[[MuxadoSession], Any], str]] = {
    "500 echo streams at once": (our.echo_500, "echo 500"),
    UP: (our.upload, "upload"),
    DOWN: (our.download, "download"),
    "half-close from either side": (our.half_close, "halfclose"),
    "streams opened by the server": (our.open_back, "openback 20"),
}


@in_every_column
@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.row(row)) for row in STREAMS])
async def test_streams(row: str, column: Column, program: Path) -> None:
    ours, theirs = STREAMS[row]
    seen = await exchange(program, column, ours, theirs)
    if row == (DOWN if column.serves else UP):
        # We receive.  Rust forgets credit above its own 262,144, and still sends to the end.
        largest = seen.outcome["largest_window"] if column.serves else seen.host.largest_window
        assert largest > INITIAL_WINDOWS[column.peer.wire]


@pytest.mark.row("answer on a stream half-closed at once")
@in_every_column
async def test_a_stream_half_closed_at_once_is_answered(column: Column, program: Path) -> None:
    """SYN and FIN together would end the wrong half at both generations of Go."""
    await exchange(program, column, our.half_close_at_once, "download 5")


@pytest.mark.row("typed streams")
@in_every_column
async def test_types_arrive(column: Column, program: Path) -> None:
    await exchange(program, column, our.typed, "typed 305419896", typed=True)


@pytest.mark.row("typed streams")
@in_every_column
async def test_typed_sessions_carry_what_others_do(column: Column, program: Path) -> None:
    await exchange(program, column, our.echo_500, "echo 500", typed=True)


async def echo_once(session: MuxadoSession) -> dict[str, Any]:
    await our.must_echo(session)
    return {}


@pytest.mark.row("closed by the client")
@in_every_column
async def test_a_close_by_the_dialling_end_is_clean(column: Column, program: Path) -> None:
    seen = await exchange(program, column, echo_once, "close")
    assert seen.ours.initiator == ("local" if column.serves else "remote")
    if column.serves:
        assert seen.theirs["goaway"], seen.theirs


async def ask_to_close(session: MuxadoSession) -> dict[str, Any]:
    await our.must_echo(session)
    # The stream may end or break: the session goes away under it.
    with contextlib.suppress(*STREAM_ENDED):
        await request(session, "close")
    await session.wait_closed()
    return {}


@pytest.mark.row("closed by the server")
@in_every_column
async def test_a_close_by_the_serving_end_is_clean(column: Column, program: Path) -> None:
    seen = await exchange(program, column, ask_to_close, "peer-close")
    assert seen.ours.initiator == ("remote" if column.serves else "local")
    if not column.serves:
        assert seen.theirs["clean"], seen.theirs
        assert seen.theirs["goaway"], seen.theirs


@pytest.mark.row("accept backlog overrun, the session lives")
@in_every_column
async def test_a_backlog_overrun_costs_streams_at_most(column: Column, program: Path) -> None:
    peer = column.peer
    seen = await exchange(program, column, our.overrun, "overrun 300 1000", pauses=True)
    outcome = seen.outcome
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


@pytest.mark.row("max_outbound_streams keeps within the peer's backlog")
@in_every_column
@pytest.mark.parametrize("scenario", [our.within_backlog, our.forgotten])
async def test_an_opener_that_keeps_within_the_backlog_is_never_refused(
    scenario: Callable[[MuxadoSession, int], Awaitable[Any]], column: Column, program: Path
) -> None:
    limit = column.peer.backlog

    async def ours(session: MuxadoSession) -> Any:
        return await scenario(session, limit)

    async def beside(host: Host) -> None:
        await ours(host.session)
        host.note("done", "all served")

    seen = await exchange(program, column, ours, "await", limit=limit, beside=beside)
    if not column.serves:
        assert seen.outcome == {"noted": "all served"}


@pytest.mark.row("resets both ways, with their codes")
@in_every_column
async def test_resets_carry_their_codes(column: Column, program: Path) -> None:
    peer = column.peer
    seen = await exchange(program, column, our.resets, "reset 7 2 4242")
    # Go v1 and Rust can't be told to send a code: a closed stream answers with this one.
    theirs = ["reset STREAM_CLOSED"] * 3
    if peer.name.startswith("go_v2"):
        theirs = ["reset STREAM_RESET", "reset INTERNAL_ERROR", "reset 4242"]
    # Rust knows no number but those with a name.
    unnamed = f"reset {2**32 - 1 if peer.name == 'rust' else 4242}"
    if column.serves:
        numbers = {"v1": (7, 2, 6), "v2": (6, 2, 5)}[peer.wire]
        names = ("STREAM_CANCELLED", "INTERNAL_ERROR", "STREAM_REFUSED")
        assert seen.outcome == {
            "received": theirs,
            **{name: f"reset {number}" for name, number in zip(names, numbers, strict=True)},
            "4242": unnamed,
            "aclose": "reset 4",
        }
    else:
        assert seen.outcome == {"received": ["reset 7", "reset 2", unnamed], "sent": theirs}
