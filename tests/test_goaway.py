"""What MuxadoSession promises of going away and of draining."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoSession,
    MuxadoStream,
    OpenStreamError,
    SessionClosedError,
    SessionEndedError,
    StreamResetError,
)
from trio_muxado._protocol.frames import GoAway, Rst

from .helpers import (
    V1,
    Gated,
    Kind,
    each_kind,
    each_wire,
    outcome_of,
    raw_session,
    read_all,
    session_pair,
    together,
    with_types,
)


@each_wire
async def test_goaway_refuses_new_streams_and_lets_old_ones_go_on(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        with assert_checkpoints():
            await server.goaway(ErrorCode.ENHANCE_YOUR_CALM, b"restarting")
        await wait_all_tasks_blocked()
        with pytest.raises(OpenStreamError) as caught:
            await client.open_stream()
        error = caught.value
        assert isinstance(error, trio.BrokenResourceError)
        assert (error.code, error.initiator) == (ErrorCode.REMOTE_GONE_AWAY, "remote")
        assert error.debug == b"restarting"
        assert error.safe_to_retry
        await near.send_all(b"goes on")
        assert await far.receive_some() == b"goes on"
        # The other direction still opens streams.
        back = await server.open_stream()
        assert (await client.accept_stream()).id == back.id
        await server.goaway()  # again is fine


@each_wire
async def test_a_stream_that_crossed_a_goaway_is_refused_and_safe_to_retry(kind: Kind) -> None:
    async with raw_session(kind, client=True) as (session, peer):
        taken = await session.open_stream()
        missed = await session.open_stream()
        peer.send(peer.goaway(3, ErrorCode.NO_ERROR))
        with pytest.raises(StreamResetError) as caught:
            await missed.receive_some()
        assert caught.value.code is ErrorCode.REMOTE_GONE_AWAY
        assert caught.value.safe_to_retry
        peer.send(peer.data(3, b"goes on"))
        assert await taken.receive_some() == b"goes on"


@with_types
async def test_an_extension_stream_that_crosses_a_goaway_is_safe_to_retry_and_not_handled(
    kind: Kind,
) -> None:
    executed: list[bytes] = []

    async def execute(stream: MuxadoStream) -> None:
        executed.append(await stream.receive_some())
        await stream.send_all(b"done")

    async with session_pair(kind, server={"extensions": {7: execute}}) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        crossing = await client.open_stream(type=7)
        await crossing.send_all(b"pay 100")
        await server.goaway()
        with pytest.raises(StreamResetError) as caught:
            await crossing.receive_some()
        assert caught.value.safe_to_retry
        await wait_all_tasks_blocked()
        assert executed == []
        assert await client.ping() < 5  # the session goes on


@each_wire
async def test_openers_that_wait_are_told_of_a_goaway(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, server):
        await client.open_stream()
        outcomes: list[Any] = []

        async def open_one() -> None:
            outcomes.append(await outcome_of(client.open_stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one)
            nursery.start_soon(open_one)
            await wait_all_tasks_blocked()
            await server.goaway()
        assert [type(outcome) for outcome in outcomes] == [OpenStreamError] * 2
        assert all(outcome.safe_to_retry for outcome in outcomes)
        with pytest.raises(OpenStreamError):
            await client.open_stream()  # although the place is still taken


@pytest.mark.parametrize("end", [MuxadoSession.aclose, trio.aclose_forcefully])
@each_wire
async def test_openers_that_wait_are_told_of_the_end_and_can_try_elsewhere(
    kind: Kind, end: Callable[[MuxadoSession], Awaitable[None]]
) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, server):
        taken = await client.open_stream()
        outcomes: list[Any] = []

        async def open_one() -> None:
            outcomes.append(await outcome_of(client.open_stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one)
            await server.accept_stream()
            await end(server)
        assert type(outcomes[0]) in (SessionEndedError, OpenStreamError)
        assert outcomes[0].safe_to_retry
        with pytest.raises(SessionEndedError) as caught:
            await taken.receive_some()
        assert not caught.value.safe_to_retry


@each_kind
async def test_a_stream_that_never_left_this_end_is_safe_to_retry(kind: Kind) -> None:
    near, far = memory_stream_pair()
    gate = Gated(near)
    async with session_pair(kind, transports=(gate, far), heartbeat=None) as (client, server):
        sent = await client.open_stream()
        await server.accept_stream()
        gate.shut()
        await sent.send_all(b"the writer waits with this")
        await wait_all_tasks_blocked()
        kept = await client.open_stream()
        await kept.send_all(b"and never comes to that")
        await trio.aclose_forcefully(client)
        for stream in sent, kept:
            with pytest.raises(SessionClosedError) as caught:
                await stream.receive_some()
            assert caught.value.safe_to_retry is (stream is kept)


@each_wire
async def test_goaway_is_limited_to_4_kib_of_debug(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        await client.open_stream()
        with pytest.raises(ValueError, match="4096"):
            await server.goaway(ErrorCode.NO_ERROR, bytes(4097))
        await server.goaway(ErrorCode.NO_ERROR, bytes(4096))
        await wait_all_tasks_blocked()
        with pytest.raises(OpenStreamError) as caught:
            await client.open_stream()
        assert caught.value.debug == bytes(4096)


@each_wire
async def test_drain_waits_for_all_streams(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        ours = await client.open_stream()
        await (await server.accept_stream()).aclose()
        theirs = await server.open_stream()
        inbound = await client.accept_stream()
        drained = trio.Event()

        async def drain() -> None:
            await client.drain()
            drained.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await wait_all_tasks_blocked()
            assert not drained.is_set()
            await ours.aclose()
            await wait_all_tasks_blocked()
            assert not drained.is_set()
            await theirs.reset()
            await wait_all_tasks_blocked()
            assert not drained.is_set()  # its handler has not let go of it yet
            await inbound.aclose()
            await drained.wait()


@with_types
async def test_drain_waits_for_extensions_at_both_ends_and_not_for_heartbeats(kind: Kind) -> None:
    finish = trio.Event()
    drained: list[MuxadoSession] = []

    async def execute(stream: MuxadoStream) -> None:
        request = await read_all(stream)
        await finish.wait()
        await stream.send_all(b"done: " + request)

    async def drain(session: MuxadoSession) -> None:
        await session.drain()
        drained.append(session)

    async with session_pair(kind, server={"extensions": {7: execute}}) as (client, server):
        await together(client.ping, server.ping)
        stream = await client.open_stream(type=7)
        await stream.send_all(b"pay 100")
        await stream.send_eof()
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, client)
            nursery.start_soon(drain, server)
            await wait_all_tasks_blocked()
            assert drained == []
            finish.set()
        await server.aclose()
        assert await read_all(stream) == b"done: pay 100"


@each_wire
async def test_a_refused_stream_after_drain_sees_why(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        assert await peer.frames() == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.drain)
            assert GoAway(3, 0) in await peer.frames()
            peer.send(peer.syn(5))
            assert await peer.frames() == [Rst(5, peer.wire.code_to_wire(ErrorCode.STREAM_REFUSED))]
            await (await session.accept_stream()).reset()


async def test_an_undetected_server_goes_away_once_it_knows_how() -> None:
    async with raw_session(V1, wire="auto") as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.goaway)
            assert await peer.frames() == []
            peer.send(peer.syn(3))
            assert GoAway(3, 0) in await peer.frames()


@pytest.mark.parametrize("name", ["goaway", "drain", "open_stream", "ping"])
async def test_an_undetected_server_that_loses_its_client_says_so(name: str) -> None:
    """The wire is not known and never will be: whoever waits for it is told."""
    async with raw_session(V1, wire="auto") as (session, peer):
        outcomes: list[Any] = []

        async def call() -> None:
            outcomes.append(await outcome_of(getattr(session, name)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            assert not outcomes
            peer.end()
        assert type(outcomes[0]) is SessionEndedError


@each_wire
@pytest.mark.parametrize("code", [-1, 1 << 32])
async def test_a_code_that_no_wire_can_carry_is_refused_before_anything_happens(
    kind: Kind, code: int
) -> None:
    async with session_pair(kind) as (client, server):
        stream = await client.open_stream()
        with pytest.raises(ValueError, match="unsigned 32-bit"):
            await stream.reset(code)
        with pytest.raises(ValueError, match="unsigned 32-bit"):
            await client.goaway(code)
        await stream.send_all(b"still open")
        assert await (await server.accept_stream()).receive_some() == b"still open"


@each_wire
async def test_drain_hears_of_the_session_s_end_although_a_handler_goes_on(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        await client.open_stream()
        await server.accept_stream()  # nobody lets go of it
        outcomes: list[Any] = []

        async def drain() -> None:
            outcomes.append(await outcome_of(server.drain))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await wait_all_tasks_blocked()
            assert outcomes == []
            await trio.aclose_forcefully(client)
            await wait_all_tasks_blocked()
            assert [type(outcome) for outcome in outcomes] == [SessionEndedError]
            nursery.cancel_scope.cancel()
