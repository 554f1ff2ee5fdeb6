"""The log, down to DEBUG: one line for each thing that went wrong, none for what followed."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    Heartbeat,
    HeartbeatError,
    MuxadoSession,
    MuxadoStream,
    SessionEndedError,
    _heartbeat,
    serve_muxado_listeners,
    server_session,
)

from .helpers import (
    V1,
    Kind,
    MemoryListener,
    RawPeer,
    each_wire,
    echo,
    outcome_of,
    raw_session,
    session_pair,
    tcp_pair,
    with_types,
)

BEAT_TYPE = {"v1": 0xFFFFFEFF, "v2-typed": 0xFFFFFFFF}
EXTENSION = 9


async def hang_up(far: trio.abc.HalfCloseableStream, raw: RawPeer) -> None:
    # What this end has not read makes a reset of it, over TCP.
    await far.aclose()


async def end_without_goaway(far: trio.abc.HalfCloseableStream, raw: RawPeer) -> None:
    await far.send_eof()


async def break_the_protocol(far: trio.abc.HalfCloseableStream, raw: RawPeer) -> None:
    await far.send_all(raw.violation())


async def go_away_in_anger(far: trio.abc.HalfCloseableStream, raw: RawPeer) -> None:
    await far.send_all(raw.goaway(0, ErrorCode.INTERNAL_ERROR))
    await far.aclose()


ENDS = [hang_up, end_without_goaway, break_the_protocol, go_away_in_anger]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("over", ["memory", "tcp"])
@with_types
async def test_what_ends_with_its_session_is_not_logged_again(
    kind: Kind,
    over: str,
    end: Callable[[trio.abc.HalfCloseableStream, RawPeer], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither handlers, nor heartbeats of both sides.  TCP fails in other calls than memory."""
    if over == "memory":
        await check_one_line(kind, memory_stream_pair(), end, caplog)
        return
    async with tcp_pair() as pair:
        await check_one_line(kind, pair, end, caplog)


async def check_one_line(
    kind: Kind, pair: Any, end: Callable[..., Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    near, far = pair
    raw = RawPeer(kind)
    everything_runs = trio.Event()
    streams: list[MuxadoStream] = []

    async def handle(stream: MuxadoStream) -> None:
        streams.append(stream)
        if len(streams) == 6:
            everything_runs.set()
        await stream.receive_some()

    async with server_session(near, config=kind.config(extensions={EXTENSION: handle})) as session:
        types = [BEAT_TYPE[kind.name], EXTENSION, 1, 1, 1, 1, 1]
        await far.send_all(b"".join(raw.syn(3 + 2 * i, kind) for i, kind in enumerate(types)))
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                assert isinstance(
                    await outcome_of(lambda: session.serve_streams(handle)), SessionEndedError
                )

            nursery.start_soon(serve)
            await everything_runs.wait()
            await end(far, raw)
            await session.wait_closed()
            await far.aclose()
    assert [record.levelno for record in caplog.records] == [logging.INFO]


@each_wire
async def test_a_handler_of_a_session_that_ends_with_it(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells of the session, and of a stream by which its handler ended."""
    caplog.set_level(logging.DEBUG)

    async def handle(session: MuxadoSession) -> None:
        await (await session.accept_stream()).receive_some()

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_muxado_listeners, handle, [listener])
        raw = RawPeer(kind)
        for ending in (raw.violation(), raw.rst(3, ErrorCode.INTERNAL_ERROR)):
            far = await listener.connect()
            await far.send_all(raw.syn(3, 1 if kind is V1 else None) + ending)
            await wait_all_tasks_blocked()
            await far.aclose()
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    ended, broke = caplog.records
    assert (ended.levelno, broke.levelno) == (logging.INFO, logging.DEBUG)
    assert "StreamResetError" in broke.getMessage()


@with_types
async def test_heartbeats_that_cross_the_goaway_are_not_logged(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """A short session: the peer leaves before it has seen this end's heartbeat."""
    caplog.set_level(logging.DEBUG)
    async with raw_session(kind, client=True, heartbeat=Heartbeat()) as (session, peer):
        await wait_all_tasks_blocked()
        refused = [] if kind is V1 else [peer.rst(3, ErrorCode.STREAM_REFUSED)]
        peer.send(peer.goaway(0, ErrorCode.NO_ERROR), *refused)
        await wait_all_tasks_blocked()
        assert isinstance(await outcome_of(session.ping), HeartbeatError)
    assert not caplog.records


@with_types
async def test_short_sessions_over_tcp_are_not_logged(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """Over memory, what crosses there arrives in time."""
    caplog.set_level(logging.DEBUG)
    for _ in range(20):
        async with tcp_pair() as pair, session_pair(kind, transports=pair) as (client, server):
            stream = await client.open_stream()
            await stream.send_all(b"x")
            await (await server.accept_stream()).receive_some()
    assert not caplog.records


@with_types
async def test_what_ends_by_itself_is_logged_once(
    kind: Kind, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(_heartbeat, "OPEN_AFTER", 0.0)
    choices: dict[str, Any] = {"heartbeat": Heartbeat(), "extensions": {EXTENSION: echo}}
    async with raw_session(kind, **choices) as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.serve_streams, echo)
        peer.send(peer.syn(3, 1), peer.syn(5, 1), peer.syn(7, EXTENSION))
        await wait_all_tasks_blocked()
        for stream_id in (2, 3, 7):
            peer.send(peer.rst(stream_id, ErrorCode.INTERNAL_ERROR))
            await wait_all_tasks_blocked()
        peer.send(peer.goaway(0, ErrorCode.NO_ERROR))
        peer.end()
    ends = [(record.levelno, record.getMessage().split(":")[0]) for record in caplog.records]
    assert ends == [
        (logging.DEBUG, "heartbeats end"),
        (logging.DEBUG, "a handler ended with its stream"),
        (logging.DEBUG, "a handler ended with its stream"),
    ]
