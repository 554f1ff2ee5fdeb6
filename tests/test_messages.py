"""What messages and log lines say: who the peer is, and what caused it."""

import logging
import ssl
from functools import partial

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    MuxadoConfig,
    MuxadoError,
    client_session,
    open_muxado_session,
    serve_muxado,
    server_session,
)

from .helpers import each_wire, outcome_of, session_pair, tcp_pair
from .helpers.kinds import V1, V2, V2_TYPED, Kind


@pytest.mark.parametrize("client, server", [("v1", "v2"), ("v2", "v1")])
@pytest.mark.parametrize("server_speaks", [False, True])
async def test_two_versions_say_that_they_differ_and_what_to_set(
    client: str, server: str, server_speaks: bool
) -> None:
    near, far = memory_stream_pair()
    messages = []

    async def run(make: object, transport: trio.abc.Stream, wire: str, speaks: bool) -> None:
        config = MuxadoConfig(wire=wire, heartbeat=None)  # type: ignore[arg-type]
        async with make(transport, config=config) as session:  # type: ignore[operator]
            if speaks:
                stream = await session.open_stream()
                await stream.send_all(b"hello")
            messages.append((await session.wait_closed()).message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, client_session, near, client, not server_speaks)
        nursery.start_soon(run, server_session, far, server, server_speaks)
    spoken, other = (server, client) if server_speaks else (client, server)
    assert any(
        f"speak muxado {spoken}" in message and f'MuxadoConfig(wire="{spoken}")' in message
        for message in messages
    )
    assert other in "".join(messages)


async def test_lines_of_the_log_and_sessions_name_the_peer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with tcp_pair() as (near, far):
        assert isinstance(far, trio.SocketStream)
        address = far.socket.getsockname()
        async with client_session(near) as session:
            assert session.peer_address == address
            assert session.peer_certificate is None
            await trio.aclose_forcefully(far)
            await session.wait_closed()
            assert session.peer_address == address
    (record,) = caplog.records
    assert f"with {address[0]}:{address[1]} ended" in record.getMessage()


async def test_a_session_over_memory_has_no_address() -> None:
    async with session_pair(V1) as (client, _):
        assert client.peer_address is None


async def test_the_certificate_of_a_peer(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(
                serve_muxado,
                lambda session: session.wait_closed(),
                0,
                host="127.0.0.1",
                ssl_context=server_context,
            )
        )
        port = listener.transport_listener.socket.getsockname()[1]
        async with open_muxado_session("localhost", port, ssl_context=client_context) as session:
            certificate = session.peer_certificate
            assert certificate is not None
            assert ("DNS", "localhost") in certificate["subjectAltName"]
        nursery.cancel_scope.cancel()


@each_wire
async def test_a_transport_that_says_nothing_of_itself_is_named_by_its_cause(kind: Kind) -> None:

    near, _ = memory_stream_pair()

    async def broken(max_bytes: int | None = None) -> bytearray:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError from ssl.SSLError(1, "[SSL: ALERT] certificate required")

    near.receive_stream.receive_some = broken  # type: ignore[method-assign]
    async with client_session(near, config=kind.config(heartbeat=None)) as session:
        reason = await session.wait_closed()
        assert "SSL" in reason.message
        assert "certificate required" in reason.message
        error = await outcome_of(session.open_stream)
        assert isinstance(error, MuxadoError)
        assert "certificate required" in str(error)
        assert isinstance(error.__cause__, trio.BrokenResourceError)


@each_wire
async def test_waiting_long_for_a_slot_is_logged_once(
    kind: Kind, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    limits = {"max_outbound_streams": 2, "heartbeat": None}
    async with session_pair(kind, client=limits, server={"heartbeat": None}) as (client, server):
        held = [await client.open_stream() for _ in range(2)]
        for _ in range(2):
            with trio.move_on_after(5):
                await client.open_stream()
        assert not caplog.records
        for _ in range(3):
            with trio.move_on_after(60):
                await client.open_stream()
        (record,) = caplog.records
        assert "open_stream waits" in record.getMessage()
        assert "max_outbound_streams (2)" in record.getMessage()
        for stream in held:
            await stream.reset()
        del server


async def test_untyped_v2_over_tcp_is_watched_by_the_system() -> None:
    import socket

    for kind, watched in ((V2, True), (V2_TYPED, False), (V1, False)):
        async with tcp_pair() as (near, far):
            async with session_pair(kind, transports=(near, far)) as (client, _):
                await (await client.open_stream()).aclose()
                await wait_all_tasks_blocked(0.01)
                for end in near, far:
                    assert isinstance(end, trio.SocketStream)
                    on = end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    assert bool(on) is watched
