"""Servers and clients as users start them: one port for both wires, TLS, and bad company."""

import logging
import random
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoConfig,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    SessionClosedError,
    SessionEndedError,
    StreamClosedError,
    client_session,
    open_muxado_session,
    serve_muxado,
    serve_muxado_listeners,
)

from .helpers import (
    V1,
    V2,
    V2_TYPED,
    Gated,
    HalfCloseable,
    Kind,
    MemoryListener,
    RawPeer,
    each_wire,
    echo,
    outcome_of,
    read_all,
    session_pair,
    together,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

Handler = Callable[[MuxadoSession], Awaitable[Any]]

ODD: list[Exception] = [
    ValueError("nothing that a stream should raise"),
    trio.ClosedResourceError("another task has closed it"),
    ExceptionGroup("of a nursery", [trio.BrokenResourceError("it broke")]),
]


class FailingOnce(HalfCloseable):
    """One method raises when it is called first."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, method: str, error: Exception) -> None:
        super().__init__(inner)
        self._errors = {method: error}

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        received = await super().receive_some(max_bytes)
        if error := self._errors.pop("receive_some", None):
            raise error
        return received

    async def aclose(self) -> None:
        try:
            await super().aclose()
        finally:
            if error := self._errors.pop("aclose", None):
                raise error


async def serve_echo(session: MuxadoSession) -> None:
    await session.serve_streams(echo)


async def say(session: MuxadoSession, words: bytes) -> bytes:
    """Send words on a stream of their own; what came back."""
    async with await session.open_stream() as stream:
        await stream.send_all(words)
        await stream.send_eof()
        return await read_all(stream)


@asynccontextmanager
async def tcp_server(
    handler: Handler = serve_echo, **options: Any
) -> AsyncGenerator[tuple[str, int], None]:
    """A server on a free port of this machine; cancelled when the block is left."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(serve_muxado, handler, 0, host="127.0.0.1", **options)
        )
        (listener,) = listeners
        tcp = getattr(listener, "transport_listener", listener)
        yield tcp.socket.getsockname()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def memory_server(
    handler: Handler = serve_echo, ssl_context: ssl.SSLContext | None = None, **options: Any
) -> AsyncGenerator[MemoryListener, None]:
    """A server without sockets, so that the clock can be a mocked one."""
    listener = MemoryListener()
    served = listener if ssl_context is None else trio.SSLListener(listener, ssl_context)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_muxado_listeners, handler, [served], **options))
        yield listener
        nursery.cancel_scope.cancel()
    assert listener.closed


# ---- over TCP and TLS: the real thing, because it is what users run


async def test_one_port_serves_both_wires_at_once() -> None:
    async with tcp_server() as address:

        async def client(kind: Kind, number: int) -> None:
            config = MuxadoConfig(wire=kind.wire)  # type: ignore[arg-type]
            async with open_muxado_session(*address, config=config) as session:
                assert session.wire == kind.wire
                for _ in range(3):
                    words = f"{kind.name} {number}".encode() * 1000
                    assert await say(session, words) == words

        await together(*(partial(client, kind, n) for kind in (V1, V2) for n in range(4)))


@each_wire
async def test_tls(
    kind: Kind, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with tcp_server(ssl_context=server_context) as (_, port):
        async with open_muxado_session(
            "localhost", port, ssl_context=client_context, config=kind.config()
        ) as session:
            assert isinstance(session.transport_stream, trio.SSLStream)
            assert await say(session, b"secret" * 10_000) == b"secret" * 10_000
        assert (await session.wait_closed()).clean


async def test_typed_sessions() -> None:
    async def handler(session: MuxadoSession) -> None:
        async def answer(stream: MuxadoStream) -> None:
            await stream.send_all(stream.type.to_bytes(4, "big"))

        await session.serve_streams(answer)

    config = V2_TYPED.config()
    async with tcp_server(handler, config=config) as address:
        async with open_muxado_session(*address, config=config) as session:
            stream = await session.open_stream(type=0x01020304)
            assert await read_all(stream) == b"\x01\x02\x03\x04"


async def test_a_server_that_opens_streams() -> None:
    async def handler(session: MuxadoSession) -> None:
        async with await session.open_stream() as stream:
            await stream.send_all(b"from the server")

    async with tcp_server(handler) as address, open_muxado_session(*address) as session:
        assert [await read_all(stream) async for stream in session] == [b"from the server"]


@pytest.mark.parametrize("options", [{}, {"stop": trio.Event()}], ids=["", "stoppable"])
async def test_the_session_ends_when_the_handler_returns(options: dict[str, Any]) -> None:
    async def handler(session: MuxadoSession) -> None:
        await (await session.accept_stream()).aclose()

    async with tcp_server(handler, **options) as address, open_muxado_session(*address) as session:
        assert await say(session, b"") == b""
        reason = await session.wait_closed()
        assert (reason.code, reason.initiator) == (ErrorCode.NO_ERROR, "remote")


async def test_nobody_listens() -> None:
    async with tcp_server() as address:
        pass
    with pytest.raises(OSError, match="connect"):
        async with open_muxado_session(*address):
            pytest.fail("there is no server")


async def test_a_port_that_is_taken() -> None:
    async with tcp_server() as (host, port):
        with pytest.raises(OSError, match="in use"):
            await serve_muxado(serve_echo, port, host=host)


async def test_a_client_that_does_not_trust_the_server(
    server_context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with tcp_server(ssl_context=server_context) as (_, port):
        with pytest.raises(trio.BrokenResourceError) as caught:
            async with open_muxado_session(
                "localhost", port, ssl_context=ssl.create_default_context()
            ):
                pytest.fail("nobody vouches for this server")
        assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert [r.levelno for r in caplog.records] in ([], [logging.INFO])


async def test_a_client_gives_up_on_a_server_that_does_not_shake_hands(
    client_context: ssl.SSLContext, mock_clock: MockClock
) -> None:
    """The clock is moved by hand, after everything has arrived that ever will."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    outcomes: list[Any] = []
    async with listener, trio.open_nursery() as nursery:

        async def connect() -> None:
            async with open_muxado_session(
                *listener.socket.getsockname(), ssl_context=client_context
            ):
                pytest.fail("nobody has shaken hands")

        async def run() -> None:
            outcomes.append(await outcome_of(connect))

        nursery.start_soon(run)
        async with await listener.accept() as silent:
            assert await silent.receive_some()  # its hello has come, so it waits for ours
            mock_clock.jump(29)
            await wait_all_tasks_blocked()
            assert not outcomes
            mock_clock.jump(1)
            while await silent.receive_some():
                pass
    assert isinstance(outcomes[0], trio.TooSlowError)


# ---- bad company


def noise(seed: int) -> bytes:
    """Random bytes that cannot be taken for muxado."""
    generator = random.Random(seed)
    while True:
        data = generator.randbytes(500)
        if data[3] not in (0x01, 0x06, 0x12, 0x13, 0x30, 0x10, 0x11):
            return data


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "tls hello": bytes.fromhex("16030100f0010000ec0303") + bytes(200),
    "zeros": bytes(500),
    **{f"noise {seed}": noise(seed) for seed in range(5)},
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_is_turned_away_at_once_with_one_line(
    name: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with memory_server() as listener:
        bad = await listener.connect()
        await bad.send_all(GARBAGE[name])
        received = await read_all(bad)  # the server ends it: there is no hang to wait for
        assert received == b""
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await bad.send_all(b"nobody listens any more")
        assert trio.current_time() == 0
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("trio_muxado", logging.INFO)
        assert record.exc_info is None
        async with client_session(await listener.connect()) as session:
            assert await say(session, b"the server lives") == b"the server lives"
        await bad.aclose()
    assert len(caplog.records) == 1


async def test_a_client_that_leaves_in_order_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    async def handler(session: MuxadoSession) -> None:
        while True:
            await session.accept_stream()

    async with memory_server(handler) as listener:
        async with client_session(await listener.connect()) as session:
            await session.open_stream()
        await wait_all_tasks_blocked()
    assert not caplog.records


@pytest.mark.parametrize("size", [0, 1, 3])
async def test_a_client_that_hangs_up_before_it_has_said_anything(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with memory_server() as listener:
        bad = await listener.connect()
        await bad.send_all(bytes(size))
        await bad.aclose()
        await wait_all_tasks_blocked()
    assert [record.levelno for record in caplog.records] == [logging.INFO]


async def check_it_serves(listener: MemoryListener, context: ssl.SSLContext) -> None:
    good = trio.SSLStream(await listener.connect(), context, server_hostname="localhost")
    async with client_session(good) as session:
        assert await say(session, b"the server lives") == b"the server lives"


async def test_a_tls_server_turns_plain_clients_away(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with memory_server(ssl_context=server_context) as listener:
        bad = await listener.connect()
        await bad.send_all(GARBAGE["http"])
        await read_all(bad)
        assert trio.current_time() == 0
        (record,) = caplog.records
        assert record.levelno == logging.INFO
        assert "TLS" in record.getMessage()
        await check_it_serves(listener, client_context)


async def test_a_client_that_never_finishes_its_handshake(
    server_context: ssl.SSLContext,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    config = MuxadoConfig(handshake_timeout=7)
    async with memory_server(ssl_context=server_context, config=config) as listener:
        bad = await listener.connect()
        await read_all(bad)
        assert trio.current_time() == 7
        (record,) = caplog.records
        assert "TooSlow" in record.getMessage()
        await wait_all_tasks_blocked()


@pytest.mark.parametrize("error", ODD, ids=repr)
@pytest.mark.parametrize("method", ["receive_some", "aclose"])
async def test_a_transport_that_raises_anything_in_its_handshake_ends_no_server(
    error: Exception,
    method: str,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in a session: a listener's streams can be of any kind."""
    caplog.set_level(logging.INFO)
    async with memory_server(ssl_context=server_context) as listener:
        bad = await listener.connect(partial(FailingOnce, method=method, error=error))
        await bad.send_all(GARBAGE["http"])
        await read_all(bad)
        await wait_all_tasks_blocked()
        (record,) = caplog.records
        assert "TLS" in record.getMessage()
        await check_it_serves(listener, client_context)


@pytest.mark.parametrize("error", ODD, ids=repr)
async def test_a_client_above_the_cap_whose_close_raises_ends_no_server(error: Exception) -> None:
    async with memory_server(max_sessions=1) as listener:
        async with client_session(await listener.connect()) as session:
            assert await say(session, b"it lives") == b"it lives"
            bad = await listener.connect(partial(FailingOnce, method="aclose", error=error))
            await read_all(bad)
            await wait_all_tasks_blocked()
            assert await say(session, b"and goes on") == b"and goes on"


@each_wire
async def test_a_broken_peer_ends_its_session_and_no_other(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with memory_server() as listener:
        peer = RawPeer(kind)  # for its frames only
        async with client_session(await listener.connect(), config=kind.config()) as good:
            stream = await good.open_stream()
            for ending in (
                peer.violation(),
                peer.goaway(0, ErrorCode.INTERNAL_ERROR, b"sorry"),
                peer.rst(3, ErrorCode.INTERNAL_ERROR),
                b"",
            ):
                bad = await listener.connect()
                await bad.send_all(peer.syn(3) + ending)
                await bad.send_eof()
                await read_all(bad)
                await bad.aclose()
            await stream.send_all(b"fine")
            assert await stream.receive_some() == b"fine"
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 4


@each_wire
async def test_what_a_session_raises_is_contained(kind: Kind) -> None:
    """A handler that does not catch what its streams raise, also out of a nursery of its own, and
    also where its clean-up closes the stream under another of its tasks."""

    served: list[MuxadoSession] = []

    async def bare(session: MuxadoSession) -> None:
        served.append(session)
        await (await session.accept_stream()).receive_some()

    async def grouped(session: MuxadoSession) -> None:
        served.append(session)
        stream = await session.accept_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            nursery.start_soon(session.accept_stream)

    async def closing(session: MuxadoSession) -> None:
        served.append(session)
        stream = await session.accept_stream()

        async def close_at_the_end() -> None:
            try:
                await session.wait_closed()
                await session.accept_stream()
            finally:
                await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_at_the_end)
            nursery.start_soon(stream.receive_some)

    peer = RawPeer(kind)
    for handler in (bare, grouped, closing):
        async with memory_server(handler) as listener:
            for ending in (peer.rst(3, ErrorCode.STREAM_CANCELLED), peer.violation(), b""):
                bad = await listener.connect()
                await bad.send_all(peer.syn(3) + ending)
                await wait_all_tasks_blocked()
                await bad.aclose()
                await wait_all_tasks_blocked()
    assert len(served) == 9
    assert all(session.close_reason is not None for session in served)


# ---- a handler's own bug


async def hit_a_bug(session: MuxadoSession) -> None:
    await session.accept_stream()
    raise LookupError("a bug")


async def hit_a_bug_in_a_stream(session: MuxadoSession) -> None:
    async def handler(stream: MuxadoStream) -> None:
        raise LookupError("a bug")

    await session.serve_streams(handler)


async def use_what_it_has_closed(session: MuxadoSession) -> None:
    async with await session.accept_stream() as stream:
        pass
    await stream.send_all(b"too late")


async def use_what_it_has_closed_in_a_stream(session: MuxadoSession) -> None:
    await session.serve_streams(use_twice)


async def use_twice(stream: MuxadoStream) -> None:
    await stream.aclose()
    await stream.receive_some()


@each_wire
@pytest.mark.parametrize(
    "handler, bug",
    [
        (hit_a_bug, LookupError),
        (hit_a_bug_in_a_stream, LookupError),
        (use_what_it_has_closed, StreamClosedError),
        (use_what_it_has_closed_in_a_stream, StreamClosedError),
    ],
)
async def test_a_handlers_own_bug_leaves_the_server_bare(
    kind: Kind, handler: Handler, bug: type[Exception]
) -> None:
    listener = MemoryListener()
    outcomes: list[Any] = []
    bystanders: list[Any] = []

    async def serve() -> None:
        outcomes.append(await outcome_of(lambda: serve_muxado_listeners(handler, [listener])))

    async def bystander() -> None:
        async with client_session(await listener.connect(), config=kind.config()) as session:
            bystanders.append(await session.wait_closed())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(bystander)
        await wait_all_tasks_blocked()
        async with client_session(await listener.connect(), config=kind.config()) as session:
            await session.open_stream()
            await session.wait_closed()
    (error,) = outcomes
    assert type(error) is bug
    assert listener.closed
    assert [reason.clean for reason in bystanders] == [False]


async def test_our_errors_do_not_hide_a_bug_beside_them() -> None:
    async def handler(session: MuxadoSession) -> None:
        async def crash() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError("a bug in the clean-up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            await session.accept_stream()

    listener = MemoryListener()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_muxado_listeners, handler, [listener]))
            bad = await listener.connect()
            await wait_all_tasks_blocked()
            await bad.aclose()
    (group,) = caught.value.exceptions  # the nursery of this test
    assert isinstance(group, ExceptionGroup)
    assert {type(error) for error in group.exceptions} == {LookupError, SessionEndedError}


@pytest.mark.parametrize("stoppable", [True, False])
async def test_a_server_is_stopped_by_cancelling_it(stoppable: bool) -> None:
    options: dict[str, Any] = {"stop": trio.Event()} if stoppable else {}
    reasons: list[Any] = []
    async with trio.open_nursery() as nursery:
        async with memory_server(**options) as listener:

            async def client() -> None:
                async with client_session(await listener.connect()) as session:
                    await say(session, b"x")
                    reasons.append(await session.wait_closed())

            nursery.start_soon(client)
            await wait_all_tasks_blocked()
    assert [reason.code for reason in reasons] == [ErrorCode.PEER_EOF]


async def test_cancelling_a_server_comes_out_as_nothing_else() -> None:
    listener = MemoryListener()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def client() -> None:
                async with client_session(await listener.connect()) as session:
                    await say(session, b"x")
                    scope.cancel()
                    await trio.sleep_forever()

            nursery.start_soon(client)
            await serve_muxado_listeners(serve_echo, [listener])
    assert scope.cancelled_caught
    assert listener.closed


async def test_a_handler_that_fails_as_its_server_is_cancelled_comes_out_bare() -> None:
    listener = MemoryListener()
    waiting: list[MuxadoSession] = []

    async def handle(session: MuxadoSession) -> None:
        waiting.append(session)
        try:
            await trio.sleep_forever()
        finally:
            if session is waiting[0]:
                raise LookupError("bare")

    async def client() -> None:
        async with client_session(await listener.connect()) as session:
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope, pytest.raises(LookupError, match="bare"):

            async def cancel() -> None:
                await wait_all_tasks_blocked()
                assert len(waiting) == 2  # and the other's handler is cancelled only
                scope.cancel()

            for task in (client, client, cancel):
                nursery.start_soon(task)
            await serve_muxado_listeners(handle, [listener])


# ---- stopping gently


@each_wire
async def test_a_handler_that_returns_while_its_session_is_stopped_loses_nothing(
    kind: Kind,
) -> None:
    """The last answer is still on its way when the handler has done with everything."""
    stop = trio.Event()
    finish = trio.Event()
    gates: list[Gated] = []

    async def handler(session: MuxadoSession) -> None:
        async with await session.accept_stream() as stream:
            await stream.receive_some()
            gates[0].shut()
            await stream.send_all(b"the answer")
        await finish.wait()

    def gated(stream: Any) -> Gated:
        gates.append(Gated(stream))
        return gates[0]

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_muxado_listeners, handler, [listener], stop=stop))
        near = await listener.connect(gated)
        async with client_session(near, config=kind.config(heartbeat=None)) as session:
            stream = await session.open_stream()
            await stream.send_all(b"the question")
            await stream.send_eof()
            await wait_all_tasks_blocked()
            stop.set()
            await wait_all_tasks_blocked()
            finish.set()
            await wait_all_tasks_blocked()
            gates[0].open()
            assert await read_all(stream) == b"the answer"
            assert (await session.wait_closed()).clean


@each_wire
async def test_a_session_that_breaks_while_it_is_stopped_does_not_cancel_its_handler(
    kind: Kind,
) -> None:
    stop = trio.Event()
    finish = trio.Event()
    done: list[str] = []

    async def handler(session: MuxadoSession) -> None:
        await session.accept_stream()
        await finish.wait()
        done.append("what it had to do")

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_muxado_listeners, handler, [listener], stop=stop))
        near = await listener.connect()
        await near.send_all(RawPeer(kind).syn(3))
        await wait_all_tasks_blocked()
        stop.set()
        await wait_all_tasks_blocked()
        await near.aclose()
        await wait_all_tasks_blocked()
        finish.set()
    assert done


async def test_an_error_of_ours_that_a_handler_makes_up_is_its_own() -> None:
    """It is of no session, so no session has ended with it."""

    async def handler(session: MuxadoSession) -> None:
        raise MuxadoError("made up", code=ErrorCode.NO_ERROR, initiator="local")

    async def serve() -> None:
        with pytest.raises(MuxadoError, match="made up"):
            await serve_muxado_listeners(handler, [listener])

    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await listener.connect()


async def test_an_error_of_another_session_is_the_handlers_own() -> None:
    listener = MemoryListener()
    outcomes: list[object] = []
    async with session_pair(V1) as (other, _), trio.open_nursery() as nursery:
        await other.aclose()

        async def handle(session: MuxadoSession) -> None:
            await other.open_stream()

        async def serve() -> None:
            outcomes.append(await outcome_of(partial(serve_muxado_listeners, handle, [listener])))

        nursery.start_soon(serve)
        await listener.connect()
        await wait_all_tasks_blocked()
        assert [type(outcome) for outcome in outcomes] == [SessionClosedError]
        nursery.cancel_scope.cancel()
