"""Opening a stream without a wait, and whether a session opens any."""

import pytest
import trio

from trio_muxado import (
    ErrorCode,
    MuxadoSession,
    OpenStreamError,
    SessionClosedError,
    SessionEndedError,
)

from .helpers import V1, Kind, each_kind, each_wire, raw_session, session_pair, with_types


@each_kind
async def test_a_stream_is_opened_without_a_checkpoint(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        near = client.open_stream_nowait(priority=3)
        far = await server.accept_stream()
        assert (near.id, near.priority) == (far.id, 3)
        await near.send_all(b"x")
        assert await far.receive_some() == b"x"


@each_wire
async def test_without_a_slot_it_would_block(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, _):
        stream = client.open_stream_nowait()
        with pytest.raises(trio.WouldBlock):
            client.open_stream_nowait()
        assert client.can_open
        await stream.reset()
        await client.open_stream_nowait().reset()


async def test_before_the_wire_is_known_it_would_block() -> None:
    async with raw_session(V1, wire="auto") as (session, peer):
        with pytest.raises(trio.WouldBlock):
            session.open_stream_nowait()
        assert session.can_open
        peer.send(peer.syn(3))
        await session.accept_stream()
        assert session.open_stream_nowait()


@with_types
async def test_wrong_choices_take_no_slot(kind: Kind) -> None:
    async with session_pair(kind, max_outbound_streams=1) as (client, _):
        heartbeat = 0xFFFFFEFF if kind.wire == "v1" else 0xFFFFFFFF
        for wrong in {"type": heartbeat}, {"type": -1}, {"priority": -1}:
            with pytest.raises(ValueError, match=r"type|priority"):
                client.open_stream_nowait(**wrong)
        assert client.open_stream_nowait()


@each_wire
@pytest.mark.parametrize("how", ["goes", "closes", "breaks", "closed here"])
async def test_whether_a_session_opens_streams(kind: Kind, how: str) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        assert client.can_open
        assert client.close_reason is None
        stream = await client.open_stream()
        await stream.send_all(b"x")
        await server.accept_stream()
        if how == "goes":
            await server.goaway()
            await (await server.open_stream()).send_all(b"behind it")
            await client.accept_stream()
            error: type[Exception] = OpenStreamError
        elif how == "closed here":
            await client.aclose()
            error = SessionClosedError
        else:
            await (server.aclose() if how == "closes" else shoot(server))
            await client.wait_closed()
            error = SessionEndedError
        assert not client.can_open
        with pytest.raises(error) as caught:
            client.open_stream_nowait()
        assert caught.value.safe_to_retry
        if how == "goes":
            assert client.close_reason is None
        else:
            assert client.close_reason is await client.wait_closed()
            assert client.close_reason is not None
            assert (client.close_reason.code is ErrorCode.NO_ERROR) == (how != "breaks")


async def shoot(session: MuxadoSession) -> None:
    await trio.aclose_forcefully(session)
