"""This process stands still for longer than a timeout: nothing that goes on afterwards is given up.

The clock jumps while all tasks wait, or in the middle of a turn, as it does for a laptop that
slept.  What is really over is still noticed.
"""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    Heartbeat,
    MuxadoConfig,
    MuxadoSession,
    StreamResetError,
    client_session,
    dial_muxado,
    forward_streams,
    serve_muxado_listeners,
    server_session,
)
from trio_muxado import _forward_streams as forward_streams_module
from trio_muxado.testing import Link

from .helpers import (
    Deaf,
    Failing,
    Gated,
    Kind,
    MemoryListener,
    each_wire,
    outcome_of,
    read_all,
    session_pair,
    with_types,
)

LONG = 1000.0
"""Seconds; more than any timeout here."""


async def accept_and_stay(transport: trio.abc.Stream) -> None:
    async with server_session(transport, config=MuxadoConfig(heartbeat=None)) as session:
        await session.wait_closed()


@pytest.mark.parametrize("tls", [False, True])
async def test_dialling_goes_on(
    tls: bool,
    autojump_clock: MockClock,
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
) -> None:
    heard: list[object] = []

    async def standing_still() -> None:
        await trio.sleep(0.5)
        autojump_clock.jump(LONG)

    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            if not tls:
                nursery.start_soon(standing_still)
                await trio.sleep(1)
                near, far = memory_stream_pair()
                nursery.start_soon(accept_and_stay, far)
                return near
            nursery.start_soon(standing_still)
            link = Link(latency=1)
            over_tls = trio.SSLStream(link.server, server_context, server_side=True)
            nursery.start_soon(accept_and_stay, over_tls)
            return link.client

        async def handle(session: MuxadoSession) -> None:
            await trio.lowlevel.checkpoint()

        await dial_muxado(
            handle,
            "localhost",
            1,
            ssl_context=client_context if tls else None,
            config=MuxadoConfig(heartbeat=None),
            connect=connect,
            on_state=lambda state, loss: heard.append(state if loss is None else loss.message),
        )
        nursery.cancel_scope.cancel()
    assert heard == ["connecting", "connected"]


async def test_a_connection_that_is_dialled_is_given_up_in_the_end(
    autojump_clock: MockClock,
) -> None:
    lost = trio.Event()

    async def connect() -> trio.abc.Stream:
        autojump_clock.jump(LONG)
        await trio.sleep_forever()
        raise AssertionError

    def on_state(state: str, loss: object) -> None:
        if loss is not None:
            lost.set()

    async with trio.open_nursery() as nursery:
        dial: Any = partial(dial_muxado, connect=connect, on_state=on_state)
        nursery.start_soon(dial, accept_and_stay, "localhost", 1)
        await lost.wait()
        nursery.cancel_scope.cancel()
    assert trio.current_time() < LONG + 100


@each_wire
async def test_the_peer_hears_why_its_session_ended(kind: Kind, mock_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    gated = Gated(far)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            config = kind.config(heartbeat=None, send_timeout=10 * LONG)
            async with server_session(gated, config=config) as session:
                assert not (await session.wait_closed()).clean

        gated.shut()
        nursery.start_soon(serve)
        await near.send_all(bytes(8))
        await wait_all_tasks_blocked()
        mock_clock.jump(LONG)
        await wait_all_tasks_blocked()
        gated.open()
        assert await near.receive_some()
        await near.aclose()


@each_wire
async def test_what_came_before_the_transport_broke_is_read(
    kind: Kind, autojump_clock: MockClock
) -> None:
    link = Link(latency=1)
    failing = Failing(link.client)
    content = bytes(200_000)
    content = content[: kind.window]
    async with session_pair(kind, transports=(failing, link.server), heartbeat=None) as (near, far):
        asking = await near.open_stream()
        await asking.send_all(b"request")
        answering = await far.accept_stream()
        failing.fail("send_all", trio.BrokenResourceError("the peer listens no more"))
        await answering.send_all(content)
        await answering.aclose()
        await near.open_stream()
        await trio.sleep(0.5)  # it is on its way, in pieces
        autojump_clock.jump(LONG)
        assert await outcome_of(partial(read_all, asking)) == content


async def test_a_forwarded_connection_is_made(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect_tcp(host: str, port: int) -> trio.abc.Stream:
        await trio.sleep(0.5)
        autojump_clock.jump(LONG)
        await trio.sleep(0.5)
        near, far = memory_stream_pair()
        await far.send_all(b"hello")
        await far.send_eof()
        return near

    monkeypatch.setattr(forward_streams_module, "connect_tcp", connect_tcp)
    kind = Kind("v1", "v1")
    async with session_pair(kind, heartbeat=None) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(forward_streams, server, "localhost", 1))
            stream = await client.open_stream()
            assert await read_all(stream) == b"hello"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("times", [1, 2, 3])
@each_wire
async def test_closing_goes_on(kind: Kind, times: int, autojump_clock: MockClock) -> None:
    """Whoever closes stands still for longer than the deadline, and again after some progress."""
    link = Link(latency=0.01, bandwidth=20_000)
    content = bytes(200_000)[: kind.window]
    async with session_pair(
        kind, transports=(link.client, link.server), heartbeat=None, close_timeout=4
    ) as (near, far):
        sending = await near.open_stream()
        await sending.send_all(content)
        await sending.aclose()
        receiving = await far.accept_stream()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.aclose)
            for _ in range(times):
                await trio.sleep(2)
                autojump_clock.jump(LONG)
                # What was to arrive meanwhile has: of this much more is left.
            assert await read_all(receiving) == content


@each_wire
async def test_closing_starts_to_wait_once_more(kind: Kind, autojump_clock: MockClock) -> None:
    config = kind.config(heartbeat=None, close_timeout=4)
    async with client_session(Deaf(), config=config) as session, trio.open_nursery() as nursery:
        await session.open_stream()
        nursery.start_soon(session.aclose)
        await trio.sleep(3.5)
        autojump_clock.jump(LONG)
        await trio.sleep(3.5)
        assert session.close_reason is None
        await trio.sleep(1)
        assert session.close_reason is not None


@each_wire
async def test_a_half_open_stream_lives_on(kind: Kind, autojump_clock: MockClock) -> None:
    config = {"half_open_timeout": 10}
    async with session_pair(kind, server=config, heartbeat=None) as (client, server):
        await client.open_stream()
        far = await server.accept_stream()
        await far.send_eof()
        await trio.sleep(5)
        autojump_clock.jump(LONG)
        await trio.sleep(2)
        assert not far.is_readable()
        with pytest.raises(StreamResetError):
            await far.receive_some()
        assert trio.current_time() < LONG + 15


async def wait_closed(session: MuxadoSession) -> None:
    await session.wait_closed()


@asynccontextmanager
async def client_without_a_stream(
    kind: Kind, first_stream_timeout: float
) -> AsyncGenerator[MuxadoSession, None]:
    """A client's session with a server that waits so long for a stream."""
    listener = MemoryListener()
    config = kind.config(heartbeat=None)
    serve = partial(serve_muxado_listeners, wait_closed, [listener], config=config)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, first_stream_timeout=first_stream_timeout))
        async with client_session(await listener.connect(), config=config) as session:
            yield session
        nursery.cancel_scope.cancel()


@each_wire
async def test_a_client_gets_its_time_for_a_first_stream(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with client_without_a_stream(kind, 5) as session:
        await trio.sleep(3)
        autojump_clock.jump(LONG)
        await trio.sleep(3)
        assert session.close_reason is None
        await session.wait_closed()
    assert trio.current_time() < LONG + 10


async def stand_still_now_and_then(clock: MockClock) -> None:
    for _ in range(12):
        await trio.sleep(0.5)
        clock.jump(3)  # more than a timeout is late at most
        await wait_all_tasks_blocked()


@with_types
@pytest.mark.parametrize("asleep", [0.0, 1.0])
async def test_a_peer_that_was_last_heard_when_the_clock_began_is_not_silent(
    kind: Kind, asleep: float, autojump_clock: MockClock
) -> None:
    """Whatever trio's clock shows: a mocked one begins at 0."""
    heartbeat = Heartbeat(interval=3, tolerance=2)
    async with session_pair(kind, client={"heartbeat": heartbeat}) as (client, server):
        await trio.sleep(asleep)
        autojump_clock.jump(LONG)
        await trio.sleep(4)
        assert (client.close_reason, server.close_reason) == (None, None)


@each_wire
async def test_who_stands_still_now_and_then_gives_a_transport_up(
    kind: Kind, autojump_clock: MockClock
) -> None:
    config = kind.config(heartbeat=None, send_timeout=2)
    async with client_session(Deaf(), config=config) as session:
        await session.open_stream()
        await stand_still_now_and_then(autojump_clock)
        reason = session.close_reason
        assert reason is not None
        assert reason.code is ErrorCode.WRITE_TIMEOUT


@each_wire
async def test_who_stands_still_now_and_then_ends_closing(
    kind: Kind, autojump_clock: MockClock
) -> None:
    config = kind.config(heartbeat=None, close_timeout=4)
    async with client_session(Deaf(), config=config) as session, trio.open_nursery() as nursery:
        await session.open_stream()
        nursery.start_soon(session.aclose)
        await stand_still_now_and_then(autojump_clock)
        assert session.close_reason is not None
        nursery.cancel_scope.cancel()


@each_wire
async def test_who_stands_still_now_and_then_ends_a_client_without_a_stream(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with client_without_a_stream(kind, 2) as session:
        await stand_still_now_and_then(autojump_clock)
        assert session.close_reason is not None
