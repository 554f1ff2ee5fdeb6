"""What MuxadoStream shows of itself, and what it says when its session has ended."""

import pytest

from trio_muxado import ErrorCode, MuxadoError, SessionEndedError

from .helpers import (
    CALLS,
    V1,
    Kind,
    each_kind,
    each_wire,
    number_of,
    outcome_of,
    raw_session,
    read_all,
    session_pair,
    stream_pair,
)

# ---- what it shows of itself


@each_kind
async def test_a_stream_knows_its_id_and_session(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        back = await server.open_stream()
        assert (near.id, far.id, back.id) == (3, 3, 2)
        assert (near.session, far.session) == (client, server)
        number = number_of(client)
        session = f"<MuxadoSession {number} client {kind.wire} active>"
        assert repr(near) == f"<MuxadoStream 3 of {session}>"


async def test_v1_carries_type_and_priority() -> None:
    async with session_pair(V1, heartbeat=None) as (client, server):
        near = await client.open_stream(type=7, priority=2**31 - 1)
        far = await server.accept_stream()
        assert (near.type, near.priority) == (far.type, far.priority) == (7, 2**31 - 1)


@each_wire
async def test_an_end_can_set_the_priority_of_what_it_sends(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        stream = await session.accept_stream()
        assert stream.priority == 0
        stream.priority = 2**31 - 1
        assert stream.priority == 2**31 - 1
        assert await peer.frames() == []  # the peer is not told


@each_wire
@pytest.mark.parametrize("wrong", [-1, 2**31])
async def test_a_priority_is_a_number_of_31_bits(kind: Kind, wrong: int) -> None:
    async with stream_pair(kind, heartbeat=None) as (near, _):
        near.priority = 5
        with pytest.raises(ValueError, match="priority"):
            near.priority = wrong
        assert near.priority == 5


@each_wire
async def test_a_priority_that_comes_too_late_changes_nothing(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        closed, broken = await client.open_stream(), await client.open_stream()
        await closed.aclose()
        for _ in range(2):
            await (await server.accept_stream()).reset()
        await outcome_of(broken.receive_some)
        for stream in (closed, broken):
            stream.priority = 5
        near = await client.open_stream()
        await near.send_all(b"goes on")
        assert await (await server.accept_stream()).receive_some() == b"goes on"


# ---- the session ends under a stream


@each_wire
async def test_the_sessions_end_is_no_end_of_the_stream(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, b"data"), peer.syn(5), peer.data(5, b"all", fin=True))
        cut = await session.accept_stream()
        whole = await session.accept_stream()
        peer.end()
        await session.wait_closed()
        assert await cut.receive_some() == b"data"
        for name in ("receive", "send_all", "wait", "send_eof"):
            with pytest.raises(SessionEndedError) as caught:
                await CALLS[name](cut)
            assert caught.value.initiator == "transport"
            assert caught.value.code is ErrorCode.PEER_EOF
        assert await read_all(whole) == b"all"
        await cut.aclose()
        await whole.aclose()


@each_wire
async def test_every_error_is_new(kind: Kind) -> None:
    """An exception that is raised twice would collect both tracebacks, and anger both catchers."""
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        stream = await session.accept_stream()
        peer.end()
        await session.wait_closed()
        errors: list[MuxadoError] = []
        for name in ("receive", "receive", "send_all", "send_all"):
            with pytest.raises(MuxadoError) as caught:
                await CALLS[name](stream)
            errors.append(caught.value)
        assert len(set(map(id, errors))) == 4
