"""A deadline for streams that are half-open, for servers that want one."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import ErrorCode, MuxadoSession, MuxadoStream, StreamResetError
from trio_muxado._protocol.frames import Rst

from .helpers import (
    SEND_BUFFER,
    STEADY,
    V2_TYPED,
    Kind,
    each_wire,
    outcome_of,
    raw_session,
    read_all,
    session_pair,
)

TIMEOUT = 10
JUST_BEFORE = 9.9
SURELY = 12.6  # it looks four times within the timeout

CHOICES: dict[str, Any] = {"heartbeat": None, "half_open_timeout": TIMEOUT}


def places(session: MuxadoSession) -> tuple[int, int]:
    """How many streams of the peer live, and how many of this end."""
    streams = session._engine.connection.streams
    return streams.inbound.used, streams.outbound.used


def assert_expired(outcome: object, initiator: str) -> None:
    assert isinstance(outcome, StreamResetError)
    assert (outcome.code, outcome.initiator) == (ErrorCode.STREAM_CANCELLED, initiator)
    assert ("half-open for 10 s" in str(outcome)) == (initiator == "local")


async def test_a_stream_whose_type_does_not_come(autojump_clock: MockClock) -> None:
    async with raw_session(V2_TYPED, max_inbound_streams=2, **CHOICES) as (session, peer):
        # More than may live: any of them could still turn out to be an extension.
        peer.send(*(peer.syn(stream_id) for stream_id in range(3, 3 + 2 * 18, 2)))
        peer.send(peer.data(3, b"\0\0\0"))
        await trio.sleep(JUST_BEFORE)
        assert await peer.frames() == []
        peer.send(peer.syn(99))
        assert [f.stream_id for f in await peer.frames() if isinstance(f, Rst)] == [99]
        assert places(session) == (18, 0)
        await trio.sleep(SURELY - JUST_BEFORE)
        code = peer.wire.code_to_wire(ErrorCode.STREAM_CANCELLED)
        assert await peer.frames() == [Rst(i, code) for i in range(3, 3 + 2 * 18, 2)]
        assert places(session) == (0, 0)
        peer.send(peer.syn(101, 7))
        assert (await session.accept_stream()).type == 7


async def test_a_type_that_comes_in_time_begins_another_wait(autojump_clock: MockClock) -> None:
    async with raw_session(V2_TYPED, **CHOICES) as (session, peer):
        peer.send(peer.syn(3))
        await trio.sleep(JUST_BEFORE)
        peer.send(peer.data(3, bytes(4), fin=True))
        stream = await session.accept_stream()
        await trio.sleep(JUST_BEFORE)
        await stream.send_all(b"late, and in time")
        await trio.sleep(SURELY - JUST_BEFORE)
        assert_expired(await outcome_of(lambda: stream.send_all(b"too late")), "local")


@each_wire
async def test_a_peer_that_does_not_end_its_half(kind: Kind, autojump_clock: MockClock) -> None:
    """Bytes that it sends do not help it, and what came before can still be read."""
    async with session_pair(kind, server=CHOICES, heartbeat=None) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        await trio.sleep(100)  # open for long, which is no matter
        await far.send_eof()
        for _ in range(9):
            await near.send_all(b"!")
            await trio.sleep(1)
        assert places(server) == (1, 0)
        await trio.sleep(SURELY - 9)
        assert await far.receive_some() == b"!" * 9
        assert_expired(await outcome_of(far.receive_some), "local")
        assert await near.receive_some() == b""
        assert_expired(await outcome_of(lambda: near.send_all(b"?")), "remote")
        assert places(server) == (0, 0)
        assert places(client) == (0, 0)


@each_wire
async def test_a_peer_that_does_not_take_the_rest_of_a_closed_stream(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with session_pair(kind, server=CHOICES, heartbeat=None, **STEADY) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        await far.send_all(bytes(kind.window + SEND_BUFFER))
        await far.aclose()
        await trio.sleep(JUST_BEFORE)
        assert places(server) == (1, 0)
        await trio.sleep(SURELY - JUST_BEFORE)
        assert places(server) == (0, 0)
        received = await near.receive_some(kind.window)
        assert len(received) <= kind.window
        assert_expired(await outcome_of(lambda: read_all(near)), "remote")


@each_wire
async def test_a_peer_that_never_answers_a_closed_stream(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """Its place is free in the end, and the peer is told."""
    choices = {**CHOICES, "max_outbound_streams": 1}
    async with session_pair(kind, client=choices) as (client, server):
        await (await client.open_stream()).aclose()
        far = await server.accept_stream()
        assert await far.receive_some() == b""
        await trio.sleep(JUST_BEFORE)
        assert places(client) == (0, 1)
        with trio.move_on_after(SURELY - JUST_BEFORE) as patience:
            await client.open_stream()
        assert not patience.cancelled_caught
        await wait_all_tasks_blocked()
        assert_expired(await outcome_of(lambda: far.send_all(b"?")), "remote")


@each_wire
async def test_an_application_that_does_not_end_its_half(
    kind: Kind, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds the stream and does nothing; the place is free all the same."""
    caplog.set_level(logging.DEBUG)
    async with session_pair(kind, server=CHOICES, heartbeat=None) as (client, server):
        near = await client.open_stream()
        await near.send_all(b"request")
        await near.send_eof()
        far = await server.accept_stream()
        await trio.sleep(JUST_BEFORE)
        assert places(server) == (1, 0)
        await trio.sleep(SURELY - JUST_BEFORE)
        assert places(server) == (0, 0)
        assert places(client) == (0, 0)
        assert_expired(await outcome_of(near.receive_some), "remote")
        assert await read_all(far) == b"request"
        assert_expired(await outcome_of(lambda: far.send_all(b"answer")), "local")
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "half-open for 10 s" in record.getMessage()


@each_wire
async def test_a_handler_keeps_the_place_of_its_stream_until_it_returns(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """Else more handlers could run than streams may live."""
    go_home = trio.Event()

    async def handler(stream: MuxadoStream) -> None:
        await go_home.wait()

    async with session_pair(kind, server=CHOICES, heartbeat=None) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_streams, handler)
            near = await client.open_stream()
            await near.send_eof()
            await trio.sleep(SURELY)
            assert_expired(await outcome_of(near.receive_some), "remote")
            assert server.statistics().streams == {}
            assert places(server) == (1, 0)
            go_home.set()
            await wait_all_tasks_blocked()
            assert places(server) == (0, 0)
            await client.aclose()


@each_wire
async def test_streams_that_end_in_time_are_left_alone(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with session_pair(kind, **CHOICES) as (client, server):
        for _ in range(5):
            near = await client.open_stream()
            await near.send_eof()
            far = await server.accept_stream()
            await trio.sleep(JUST_BEFORE)
            await far.send_all(b"answer")
            await far.aclose()
            assert await read_all(near) == b"answer"
        # One that is open on both sides may be so forever.
        near = await client.open_stream()
        far = await server.accept_stream()
        await trio.sleep(1000)
        await near.send_all(b"still there")
        assert await far.receive_some() == b"still there"
        for session in (client, server):
            assert session.statistics().reset_by_us == 0


@each_wire
async def test_there_is_no_deadline_unless_it_is_asked_for(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        near = await client.open_stream()
        await near.send_eof()
        far = await server.accept_stream()
        await trio.sleep(80_000)
        await far.send_all(b"at last")
        await far.send_eof()
        assert await read_all(near) == b"at last"
