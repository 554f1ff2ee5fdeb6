"""Why a session ended, and who is told so."""

import logging
import socket
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    CloseReason,
    ErrorCode,
    MuxadoSession,
    NoMoreStreamsError,
    SessionClosedError,
    SessionEndedError,
    TracedFrame,
    break_stream,
    client_session,
)
from trio_muxado._protocol.frames import GoAway
from trio_muxado._protocol.wire import WIRES
from trio_muxado._transport.peer import lowest

from .helpers import (
    V1,
    V2,
    Failing,
    Kind,
    each_kind,
    each_wire,
    echo,
    number_of,
    outcome_of,
    raw_session,
    session_pair,
    tcp_pair,
)


async def reason_of(session: MuxadoSession) -> tuple[Any, str, bool]:
    with assert_checkpoints():
        reason = await session.wait_closed()
    assert reason is await session.wait_closed()
    return reason.code, reason.initiator, reason.clean


@each_kind
async def test_reason_closed_in_good_order(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        await client.aclose()
        assert await reason_of(client) == (ErrorCode.NO_ERROR, "local", True)
        assert await reason_of(server) == (ErrorCode.NO_ERROR, "remote", True)
        with pytest.raises(SessionClosedError):
            await client.accept_stream()
        with pytest.raises(NoMoreStreamsError):
            await server.accept_stream()
        for name in ("open_stream", "goaway", "drain", "ping"):
            with pytest.raises(SessionClosedError) as closed:
                await getattr(client, name)()
            with pytest.raises(SessionEndedError) as ended:
                await getattr(server, name)()
            for caught in closed, ended:  # nothing was sent for what was to be opened
                assert caught.value.safe_to_retry is (name == "open_stream")


@each_wire
async def test_reason_goaway_with_a_code(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.goaway(0, ErrorCode.INTERNAL_ERROR, b"out of \xffpaper"))
        peer.end()
        assert await reason_of(session) == (ErrorCode.INTERNAL_ERROR, "remote", False)
        reason = await session.wait_closed()
        assert reason.debug == b"out of \xffpaper"
        assert reason.message == "the peer ended the session: INTERNAL_ERROR (out of \ufffdpaper)"
        with pytest.raises(SessionEndedError) as caught:
            await session.open_stream()
        assert caught.value.debug == reason.debug
        assert caught.value.code is reason.code
        assert caught.value.initiator == "remote"
        assert caught.value.safe_to_retry


@pytest.mark.parametrize(
    "debug, shown",
    [
        (b"x\r\nINFO trio_muxado all is well", r"x\r\nINFO trio_muxado all is well"),
        (b"\x1b[2Jgone\x00", r"\x1b[2Jgone\x00"),
        ("\x9b\u2028\u202e".encode(), r"\x9b\u2028\u202e"),
        (rb"not a line: \n", r"not a line: \\n"),
        (b"\xff\xfe\n", "\ufffd\ufffd\\n"),
        ("Kein Papier mehr: für heute'".encode(), "Kein Papier mehr: für heute'"),
        (b"\n" * 10_000, r"\n" * 4096),
    ],
)
@each_wire
async def test_the_peer_s_text_cannot_leave_its_line(
    kind: Kind, debug: bytes, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    details: list[str] = []

    def tracer(frame: TracedFrame) -> None:
        details.append(frame.detail)

    async with raw_session(kind, tracer=tracer) as (session, peer):
        peer.send(peer.syn(3), peer.goaway(0, ErrorCode.INTERNAL_ERROR, debug))
        peer.end()
        reason = await session.wait_closed()
        with pytest.raises(SessionEndedError) as caught:
            await session.open_stream()
        assert reason.message == f"the peer ended the session: INTERNAL_ERROR ({shown})"
        assert str(caught.value) == f"open_stream: {reason.message}"
        assert reason.debug == caught.value.debug == debug[:4096]
        assert details[-1] == shown
        (record,) = caplog.records
        number, transport = number_of(session), session.transport_stream
        assert record.getMessage() == f"session {number} with {transport!r} ended: {reason.message}"


@each_wire
async def test_reason_goaway_with_a_number_nobody_knows(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.goaway(0, 4711))
        peer.end()
        assert await reason_of(session) == (4711, "remote", False)
        assert "error 4711" in (await session.wait_closed()).message


async def test_reason_a_go_v1_peer_that_closes_right_after_its_short_goaway() -> None:
    """Go v1 announces 16 bytes and sends 8; then the transport ends."""
    async with raw_session(V1) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, b"last words"))
        peer.send(peer.wire.header("GOAWAY", 16, 0, 0) + bytes(8))
        peer.end()
        assert await reason_of(session) == (ErrorCode.NO_ERROR, "remote", True)
        stream = await session.accept_stream()
        assert await stream.receive_some() == b"last words"


@pytest.mark.parametrize("debug", [b"shutdown", b"bye\x00bye!"])
async def test_reason_a_rust_peer_whose_goaway_is_too_short(debug: bytes) -> None:
    """Rust leaves eight bytes out of the length; what is left over is an unknown frame, or none."""
    async with raw_session(V2) as (session, peer):
        peer.send(peer.syn(3), peer.wire.header("GOAWAY", len(debug), 0, 0), bytes(8), debug)
        if debug == b"shutdown":
            peer.end()
        assert await reason_of(session) == (ErrorCode.NO_ERROR, "remote", True)


@each_wire
async def test_reason_the_transport_just_ended(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        peer.end()
        assert await reason_of(session) == (ErrorCode.PEER_EOF, "transport", False)


@each_wire
async def test_reason_the_peer_broke_the_protocol(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.violation())
        assert await reason_of(session) == (ErrorCode.PROTOCOL_ERROR, "local", False)
        with pytest.raises(SessionEndedError) as caught:
            await session.accept_stream()
            await session.accept_stream()
        assert caught.value.code is ErrorCode.PROTOCOL_ERROR
        frames = await peer.frames()
        assert GoAway(3, 1) in frames
        assert peer.has_ended


@each_kind
async def test_nothing_is_logged_of_a_session_that_ends_in_order(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of its heartbeats nor of a handler whose stream was still open."""
    caplog.set_level(logging.DEBUG)
    async with session_pair(kind) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_streams, echo)
        stream = await client.open_stream()
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        if kind is not V2:
            for session in (client, server):
                await session.ping()
        await client.aclose()
    assert not caplog.records


@each_wire
async def test_another_end_is_logged_once(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with raw_session(kind) as (_, peer):
        peer.send(peer.violation())
        await wait_all_tasks_blocked()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_muxado", logging.INFO)


@each_wire
async def test_one_calm_end_for_a_flood(kind: Kind) -> None:
    async with raw_session(kind, empty_frames=10) as (session, peer):
        peer.send(peer.syn(3), *[peer.data(3)] * 11)
        reason = await session.wait_closed()
        assert reason.code is ErrorCode.ENHANCE_YOUR_CALM
        number = {"v1": 1, "v2": 10}[kind.wire]
        assert [f.error_code for f in await peer.frames() if isinstance(f, GoAway)] == [number]


def test_a_close_reason_is_clean_without_an_error() -> None:
    assert CloseReason(ErrorCode.NO_ERROR, "local", "bye").clean
    assert not CloseReason(ErrorCode.PEER_EOF, "transport", "gone").clean


@each_wire
async def test_the_reason_of_a_goaway_is_not_lost_when_the_session_then_closes(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        await client.goaway(ErrorCode.INTERNAL_ERROR, b"sorry")
        await client.aclose()
        reason = await server.wait_closed()
        assert (reason.code, reason.debug) == (ErrorCode.INTERNAL_ERROR, b"sorry")


@each_wire
async def test_reason_a_break_behind_the_peer_s_goaway_while_this_side_sends(kind: Kind) -> None:
    """Sending takes the only error of a socket that was reset, and the reader is left with an end.

    Which of them runs first is chance, so there are several rounds.
    """
    wire = WIRES[kind.wire]
    for _ in range(6):
        async with tcp_pair() as (near, far):
            lowest(near).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            lowest(far).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            async with client_session(near, config=kind.config(heartbeat=None)) as client:
                stream = await client.open_stream()
                await far.send_all(wire.wndinc(stream.id, 10_000_000))
                await far.send_all(wire.goaway(stream.id, ErrorCode.NO_ERROR, b""))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(outcome_of, partial(stream.send_all, bytes(1_000_000)))
                    await wait_all_tasks_blocked(0.01)
                    await break_stream(far)
                reason = await client.wait_closed()
                assert not reason.clean
                assert isinstance(reason.error, ConnectionResetError)


@pytest.mark.parametrize("cut", [False, True])
@each_wire
async def test_reason_a_break_behind_the_peer_s_goaway(kind: Kind, cut: bool) -> None:
    """It is how some systems end a connection, unless a stream was cut by it."""
    near, far = memory_stream_pair()
    failing = Failing(near)
    async with session_pair(kind, transports=(failing, far), heartbeat=None) as (client, server):
        stream = await client.open_stream()
        await (await server.accept_stream()).send_all(b"answered")
        assert await stream.receive_some() == b"answered"
        if not cut:
            await stream.reset()
        await server.goaway()
        await wait_all_tasks_blocked()
        failing.fail("receive_some", ConnectionResetError())
        reason = await client.wait_closed()
        assert reason.clean is not cut
        assert reason.initiator == ("transport" if cut else "remote")
