"""What becomes of a session, and of those who wait on it, when its transport fails."""

import errno
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoSession,
    MuxadoStream,
    SessionEndedError,
    break_stream,
    client_session,
    open_muxado_session,
    server_session,
)

from .helpers import (
    STEADY,
    V1,
    V2,
    V2_TYPED,
    Deaf,
    Failing,
    FailingWhenCancelled,
    HalfCloseable,
    Kind,
    RawPeer,
    Transport,
    each_wire,
    echo,
    fill,
    outcome_of,
    read_all,
    session_pair,
    socket_pair,
    tcp_pair,
)

CLOSE_TIMEOUT = 5.0


WAITING: dict[str, Callable[[MuxadoSession, MuxadoStream], Awaitable[Any]]] = {
    "open_stream": lambda session, stream: session.open_stream(),
    "accept_stream": lambda session, stream: session.accept_stream(),
    "accept": lambda session, stream: session.accept(),
    "serve_streams": lambda session, stream: session.serve_streams(echo),
    "anext": lambda session, stream: session.__anext__(),
    "drain": lambda session, stream: session.drain(),
    "ping": lambda session, stream: session.ping(),
    "send_all": lambda session, stream: stream.send_all(b"x"),
    "send_bytearray": lambda session, stream: stream.send_all(bytearray(300_000)),
    "wait": lambda session, stream: stream.wait_send_all_might_not_block(),
    "receive_some": lambda session, stream: stream.receive_some(),
}


class Oddity(Exception):
    """Nothing that a trio stream should raise."""


@pytest.mark.parametrize("death", ["end", "receive_some", "send_all"])
@pytest.mark.parametrize("name", WAITING)
@each_wire
async def test_whoever_waits_is_told_when_the_transport_dies(
    kind: Kind, name: str, death: str, autojump_clock: MockClock
) -> None:
    """Failure 7, for every public call that can wait."""
    if name == "ping" and kind is not V1:
        kind = V2_TYPED
    outcomes: list[Any] = []
    near, far = memory_stream_pair()
    transport = Failing(near)
    peer = RawPeer(kind)  # for its frames only
    config = kind.config(max_outbound_streams=1, heartbeat=None, **STEADY)
    async with client_session(transport, config=config) as session:
        await (await session.open_stream()).aclose()
        await far.send_all(peer.data(3, fin=True))  # an answer, which frees its place
        stream = await session.open_stream()
        await fill(stream)

        async def wait() -> None:
            outcomes.append(await outcome_of(lambda: WAITING[name](session, stream)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not outcomes
            if death == "end":
                await trio.aclose_forcefully(far)
            else:
                transport.fail(death, Oddity("the cable is out"))
            if death == "send_all":
                await far.send_all(peer.data(3, b"must be answered"))
        (error,) = outcomes
        assert isinstance(error, SessionEndedError)
        assert isinstance(error, trio.BrokenResourceError)
        assert error.initiator == "transport"
        if death == "end":
            assert error.__cause__ is None
            assert error.code is ErrorCode.PEER_EOF
        else:
            assert isinstance(error.__cause__, Oddity)
            assert error.code is ErrorCode.INTERNAL_ERROR
        reason = await session.wait_closed()
        assert not reason.clean
        assert reason.error is error.__cause__


@each_wire
async def test_what_has_come_can_be_read_although_nothing_can_be_written(
    kind: Kind, autojump_clock: MockClock
) -> None:
    near, far = memory_stream_pair()
    transport = Failing(near)
    peer = RawPeer(kind)
    async with client_session(transport, config=kind.config(heartbeat=None)) as session:
        stream = await session.open_stream()
        await wait_all_tasks_blocked()
        transport.fail("send_all", Oddity("nobody listens"))
        await stream.send_all(b"question")
        await wait_all_tasks_blocked()
        await far.send_all(peer.data(3, b"the answer came before", fin=True))
        await far.send_all(peer.goaway(3, ErrorCode.NO_ERROR))
        await far.send_eof()
        assert await read_all(stream) == b"the answer came before"
        assert (await session.wait_closed()).clean


@each_wire
async def test_a_transport_that_cannot_be_written_ends_the_session_in_time(
    kind: Kind, autojump_clock: MockClock
) -> None:
    near, far = memory_stream_pair()
    transport = Failing(near)
    error = Oddity("nobody listens")
    transport.fail("send_all", error)
    start = trio.current_time()
    async with client_session(transport, config=kind.config(heartbeat=None)) as session:
        stream = await session.open_stream()
        with pytest.raises(SessionEndedError) as caught:
            await stream.receive_some()
        assert caught.value.__cause__ is error
        assert (await session.wait_closed()).error is error
        assert trio.current_time() - start == CLOSE_TIMEOUT
    await far.aclose()


@each_wire
async def test_closing_after_writing_has_failed(kind: Kind, autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    transport = Failing(near)
    transport.fail("send_all", Oddity("nobody listens"))
    async with client_session(transport, config=kind.config(heartbeat=None)) as session:
        await session.open_stream()
        await wait_all_tasks_blocked()
        start = trio.current_time()
        transport.fail("send_eof", Oddity("nor here"))
    assert trio.current_time() == start
    assert transport.closed
    await far.aclose()


@pytest.mark.parametrize("method", ["send_eof", "aclose"])
@each_wire
async def test_odd_errors_while_closing_are_swallowed(
    kind: Kind, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    near, far = memory_stream_pair()
    transport = Failing(near)
    transport.fail(method, Oddity("no"))
    async with session_pair(kind, transports=(transport, far)) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        await client.aclose()
    assert transport.closed
    assert any("Oddity" in record.getMessage() for record in caplog.records)


async def test_odd_errors_while_closing_what_cannot_be_half_closed() -> None:
    class FailsToClose(Transport):
        async def aclose(self) -> None:
            await super().aclose()
            raise Oddity("no")

    near, far = memory_stream_pair()
    async with session_pair(V1, transports=(FailsToClose(near), far)) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        await client.aclose()


@each_wire
async def test_an_odd_error_while_lingering_is_swallowed(kind: Kind) -> None:
    near, far = memory_stream_pair()
    transport = Failing(near)
    peer = RawPeer(kind)
    async with server_session(transport, config=kind.config(heartbeat=None)) as session:
        await far.send_all(peer.violation())
        await session.wait_closed()
        await wait_all_tasks_blocked()
        transport.fail("receive_some", Oddity("gone"))
    assert transport.closed
    await far.aclose()


@each_wire
async def test_a_transport_that_takes_nothing_for_too_long_is_given_up(
    kind: Kind, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    async with client_session(Deaf(), config=kind.config(heartbeat=None)) as session:
        stream = await session.open_stream()
        with pytest.raises(SessionEndedError) as caught:
            await stream.receive_some()
        assert caught.value.code is ErrorCode.WRITE_TIMEOUT
        assert caught.value.initiator == "transport"
        assert trio.current_time() - start == 60


@each_wire
async def test_a_slow_transport_is_not_given_up(kind: Kind, autojump_clock: MockClock) -> None:
    class Slow(HalfCloseable):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep(59)
            await super().send_all(data)

    near, far = memory_stream_pair()
    transports = (Slow(near), far)
    async with session_pair(kind, transports=transports, heartbeat=None) as (client, server):
        for _ in range(3):
            stream = await client.open_stream()
            await stream.send_all(b"x")
            assert await (await server.accept_stream()).receive_some() == b"x"
            await trio.sleep(1000)  # being idle is not being slow
        await stream.aclose()
        await trio.sleep(60)


async def close_cancelled(session: MuxadoSession) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await session.aclose()


async def fail(session: MuxadoSession) -> None:
    raise Oddity("of the body")


@pytest.mark.parametrize("end", [MuxadoSession.aclose, close_cancelled, fail])
@pytest.mark.parametrize("method", ["receive_some", "send_all", "send_eof", "aclose"])
@each_wire
async def test_a_transport_that_fails_while_it_is_cancelled_is_only_cancelled(
    kind: Kind,
    method: str,
    end: Callable[[MuxadoSession], Awaitable[None]],
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is left of its group came out of the session, in a group."""
    near, far = memory_stream_pair()
    transport = FailingWhenCancelled(near, method)
    # Closing waits for an ``aclose`` where there is no half-close.
    used = Transport(transport) if method == "aclose" else transport
    expected = pytest.raises(Oddity, match="of the body") if end is fail else nullcontext()
    with expected:
        async with client_session(used, config=kind.config(heartbeat=None)) as session:
            stream = await session.open_stream()
            await wait_all_tasks_blocked()
            transport.stuck = True
            await stream.send_all(b"x")
            await wait_all_tasks_blocked()
            await end(session)
    assert "a task failed" not in caplog.text
    await far.aclose()


async def test_breaking_a_stream_that_fails_while_it_is_cancelled_raises_nothing() -> None:
    near, _ = memory_stream_pair()
    stream = FailingWhenCancelled(near, "aclose")
    stream.stuck = True
    await break_stream(stream)
    assert stream.failed == 1


def refuse_options(stream: trio.SocketStream) -> None:
    """Set no option of the socket any more, as macOS does not where the peer has reset it."""

    def refuse(*args: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    stream.socket.setsockopt = refuse  # type: ignore[assignment]


@pytest.mark.parametrize("detects", [False, True])
async def test_a_socket_that_takes_no_options_is_no_error_of_the_session(detects: bool) -> None:
    """A peer that has gone says so by its end, and never ends a server."""
    near, far = socket_pair()
    refuse_options(far)
    async with (
        client_session(near, config=V2.config()) as client,
        server_session(far, config=V2.config(wire="auto" if detects else "v2")) as server,
    ):
        stream = await client.open_stream()
        await stream.send_all(b"x")
        assert await (await server.accept_stream()).receive_some() == b"x"


async def test_a_session_over_a_socket_that_is_closed_ends() -> None:
    near, far = socket_pair()
    near.socket.close()
    async with client_session(near, config=V2.config()) as session:
        assert (await session.wait_closed()).initiator == "transport"
    await far.aclose()


async def test_a_socket_that_takes_no_options_is_closed_where_it_is_broken() -> None:
    async with tcp_pair() as (near, far):
        assert isinstance(near, trio.SocketStream)
        refuse_options(near)
        await break_stream(near)
        assert near.socket.fileno() == -1
        assert await far.receive_some() == b""


async def refused(stream: trio.SSLStream[trio.SocketStream]) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await stream.do_handshake()


async def cut(stream: trio.SSLStream[trio.SocketStream]) -> None:
    await trio.aclose_forcefully(stream.transport_stream)


@pytest.mark.parametrize(
    "handle, cause, text",
    [
        (refused, ssl.SSLCertVerificationError, "certificate verify failed"),
        (cut, Exception, "[A-Z]"),
    ],
)
async def test_a_tls_handshake_that_fails_says_why(
    handle: Any, cause: type[Exception], text: str, server_context: ssl.SSLContext
) -> None:
    """trio's own message is empty."""
    listeners = await trio.open_ssl_over_tcp_listeners(0, server_context, host="127.0.0.1")
    port = listeners[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        message = f"the TLS handshake with 'localhost' failed: .*{text}"
        with pytest.raises(trio.BrokenResourceError, match=message) as caught:
            context = ssl.create_default_context()
            async with open_muxado_session("localhost", port, ssl_context=context):
                pytest.fail("there is no session")
        assert isinstance(caught.value.__cause__, cause)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
