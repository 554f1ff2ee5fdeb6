"""docs/troubleshooting.md begins with the text of each error: here each is really raised.

A test for each heading in backquotes that is a message. The headings without one are about what a
program does, and have tests below.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trustme

from trio_muxado import (
    HeartbeatError,
    MuxadoConfig,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    OpenStreamError,
    SessionPool,
    client_session,
    forward,
    forward_streams,
    open_muxado_session,
    serve_muxado,
    serve_muxado_listeners,
    server_session,
)
from trio_muxado.testing import Link, open_session_pair

from .helpers.programs import DEADLINE

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
HEADINGS = re.findall(r"^### `(.*)`$", PAGE.read_text("utf-8"), re.MULTILINE)

V2 = MuxadoConfig(wire="v2")
SILENT = MuxadoConfig(heartbeat=None)

Produce = Callable[[], Awaitable[str]]
PRODUCERS: dict[str, Produce] = {}


def produces(beginning: str) -> Callable[[Produce], Produce]:
    """What is decorated gives a message; the page has one heading that begins so."""

    def note(produce: Produce) -> Produce:
        (heading,) = [heading for heading in HEADINGS if heading.startswith(beginning)]
        assert heading not in PRODUCERS
        PRODUCERS[heading] = produce
        return produce

    return note


def without_name(text: str) -> str:
    """A message without the number of its stream, which depends on how the test came to it."""
    return re.sub(r"^stream \d+: ", "stream N: ", text)


def is_about(heading: str, message: str) -> bool:
    """Whether a heading is this message; `...` stands for anything."""
    parts = map(re.escape, without_name(heading).split("..."))
    return re.fullmatch(".*".join(parts), without_name(message)) is not None


@pytest.mark.parametrize("heading", HEADINGS)
async def test_each_message_is_produced(
    heading: str, autojump_clock: trio.testing.MockClock
) -> None:
    if heading not in PRODUCERS:
        assert heading in NEED_SOCKETS, f"nothing produces {heading!r}"
        return
    message = await PRODUCERS[heading]()
    assert is_about(heading, message), message


@contextmanager
def log() -> Generator[list[str], None, None]:
    """What is logged at INFO."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("trio_muxado")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def error_of(call: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await call()
    return str(caught.value)


# ---- no session


@produces("[Errno ...] Error connecting")
async def nobody_listens() -> str:
    with trio.socket.socket() as nobody:
        await nobody.bind(("127.0.0.1", 0))
        host, port = nobody.getsockname()
        return await error_of(open_muxado_session(host, port).__aenter__)


@produces("[Errno ...] Address already in use")
async def somebody_listens() -> str:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        return await error_of(partial(serve_muxado, handle_session, port, host="127.0.0.1"))


@produces("must be called from async context")
async def on_asyncio() -> str:
    async def main() -> str:
        return await error_of(partial(serve_muxado, handle_session, 0))

    return await trio.to_thread.run_sync(lambda: asyncio.run(main()))


async def test_a_forgotten_await() -> None:
    async with open_session_pair() as (client, _):
        forgotten: Any = client.open_stream()
        with pytest.raises(AttributeError, match="'coroutine' object has no attribute 'send_all'"):
            forgotten.send_all(b"hello")
        forgotten.close()
        stream = await client.open_stream()
        with pytest.warns(RuntimeWarning, match="'MuxadoStream.send_all' was never awaited"):
            stream.send_all(b"hello")  # type: ignore[unused-coroutine]
    manager: Any = open_muxado_session("127.0.0.1", 1)
    with pytest.raises(AttributeError, match="'SessionManager' object has no attribute"):
        manager.open_stream()


# ---- the session ends at once


@produces("the peer broke the protocol: ...; the peer seems")
async def other_version() -> str:
    async with open_session_pair(config=V2, server_config=MuxadoConfig(wire="v1")) as (_, server):
        return (await server.wait_closed()).message


@produces("the peer broke the protocol: unknown frame type 16")
async def an_http_server() -> str:
    link = Link()
    async with open_session_pair(link=link) as (client, _):
        link.inject(b"HTTP/1.1 400 Bad Request\r\n\r\n", to="client")
        return (await client.wait_closed()).message


@produces("the peer broke the protocol: not muxado")
async def an_http_client() -> str:
    link = Link()
    async with open_session_pair(link=link) as (_, server):
        link.inject(b"GET / HTTP/1.1\r\n\r\n", to="server")
        return (await server.wait_closed()).message


@produces("the peer ended the transport without GOAWAY")
async def a_peer_that_was_killed() -> str:
    async with open_session_pair() as (client, server):
        await trio.aclose_forcefully(server)
        return (await client.wait_closed()).message


@produces("the peer broke the protocol: the peer floods")
async def a_flood() -> str:
    small = MuxadoConfig(unread_resets=3)
    async with open_session_pair(server_config=small) as (client, server):
        with suppress(OpenStreamError):  # the server has had enough
            while True:
                await (await client.open_stream()).reset()
        return (await server.wait_closed()).message


@produces("the peer opened no stream")
async def a_client_that_does_nothing() -> str:
    ours, theirs = trio.testing.memory_stream_pair()
    messages: list[str] = []
    listener = OneConnection(theirs)
    serve = partial(serve_muxado_once, listener, messages)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, nursery.cancel_scope)
        async with client_session(ours) as session:
            await session.wait_closed()
            await trio.sleep_forever()
    return messages[0]


class OneConnection(trio.abc.Listener[trio.abc.Stream]):
    """Accepts the one connection that it is given."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.streams = [stream]

    async def accept(self) -> trio.abc.Stream:
        """The stream, and nothing after it."""
        await trio.lowlevel.checkpoint()
        if self.streams:
            return self.streams.pop()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Nothing to close."""
        await trio.lowlevel.checkpoint()


async def serve_muxado_once(
    listener: OneConnection, messages: list[str], scope: trio.CancelScope
) -> None:
    async def handle_session(session: MuxadoSession) -> None:
        messages.append((await session.wait_closed()).message)
        scope.cancel()

    await serve_muxado_listeners(handle_session, [listener], first_stream_timeout=30)


# ---- a session dies


@produces("nothing came from the peer for 13 s")
async def a_link_that_is_gone() -> str:
    link = Link()
    async with open_session_pair(link=link) as (client, _):
        link.freeze()
        return (await client.wait_closed()).message


@produces("the transport accepted nothing for 60 s")
async def a_peer_that_does_not_read() -> str:
    link = Link(buffer=1000)
    async with open_session_pair(config=SILENT, link=link) as (client, _):
        stream = await client.open_stream()
        link.freeze()
        with pytest.raises(MuxadoError):
            await stream.send_all(bytes(10_000_000))
        return (await client.wait_closed()).message


@produces("the transport broke")
async def a_cut_link() -> str:
    link = Link()
    async with open_session_pair(link=link) as (client, _):
        link.cut(ConnectionResetError("gone"))
        return (await client.wait_closed()).message


# ---- a stream fails


async def reset_by(handler: Callable[[MuxadoStream], Awaitable[object]]) -> str:
    """What the opener of a stream learns whose acceptor does this with it."""
    async with open_session_pair() as (client, server), trio.open_nursery() as nursery:

        async def serve() -> None:
            await handler(await server.accept_stream())

        nursery.start_soon(serve)
        stream = await client.open_stream()
        await stream.send_all(b"a question")
        return await error_of(partial(receive_until_it_breaks, stream))


async def receive_until_it_breaks(stream: MuxadoStream) -> None:
    while True:
        await stream.receive_some()
        await stream.send_all(b"more")
        await trio.sleep(1)


@produces("stream 7: the peer reset the stream: STREAM_REFUSED")
async def a_full_server() -> str:
    small = MuxadoConfig(max_inbound_streams=1)
    async with open_session_pair(server_config=small) as (client, _):
        await client.open_stream()
        second = await client.open_stream()
        return await error_of(second.receive_some)


@produces("stream 5: the peer reset the stream: STREAM_CANCELLED")
async def a_peer_with_a_deadline() -> str:
    async def handler(stream: MuxadoStream) -> None:
        with trio.move_on_after(1):
            async with stream:
                await trio.sleep_forever()

    return await reset_by(handler)


@produces("stream 5: the peer reset the stream: INTERNAL_ERROR")
async def a_peer_with_a_bug() -> str:
    async def handler(stream: MuxadoStream) -> None:
        with pytest.raises(ZeroDivisionError):
            async with stream:
                _ = 1 / 0

    return await reset_by(handler)


@produces("stream 5: the peer reset the stream: STREAM_CLOSED")
async def a_peer_that_has_closed() -> str:
    return await reset_by(MuxadoStream.aclose)


@produces("this side has closed the stream")
async def closed_here() -> str:
    async with open_session_pair() as (client, _):
        stream = await client.open_stream()
        await stream.aclose()
        return await error_of(partial(stream.send_all, b"too late"))


@produces("send_eof was called")
async def ended_here() -> str:
    async with open_session_pair() as (client, _):
        stream = await client.open_stream()
        await stream.send_eof()
        return await error_of(partial(stream.send_all, b"too late"))


@produces("open_stream: the peer accepts no new streams")
async def a_peer_that_goes_away() -> str:
    async with open_session_pair() as (client, server):
        await server.goaway()
        await trio.sleep(1)
        with pytest.raises(OpenStreamError) as caught:
            await client.open_stream()
        assert caught.value.safe_to_retry
        return str(caught.value)


@produces("another task is receiving")
async def two_receivers() -> str:
    async with open_session_pair() as (client, _), trio.open_nursery() as nursery:
        stream = await client.open_stream()
        nursery.start_soon(stream.receive_some)
        await trio.sleep(1)
        message = await error_of(stream.receive_some)
        nursery.cancel_scope.cancel()
    return message


# ---- wrong arguments


@produces("code must be an ErrorCode")
async def a_low_code() -> str:
    async with open_session_pair() as (client, _):
        stream = await client.open_stream()
        return await error_of(partial(stream.reset, 5))


@produces("v2 carries stream types")
async def a_type_on_untyped_v2() -> str:
    async with open_session_pair(config=V2) as (client, _):
        return await error_of(partial(client.open_stream, type=1))


@produces("this session has no heartbeats")
async def a_ping_on_untyped_v2() -> str:
    async with open_session_pair(config=V2) as (client, _):
        with pytest.raises(HeartbeatError) as caught:
            await client.ping()
        return str(caught.value)


@produces("data must be bytes")
async def text_is_sent() -> str:
    async with open_session_pair() as (client, _):
        stream = await client.open_stream()
        text: Any = "text"
        return await error_of(partial(stream.send_all, text))


@produces("handler must be an async function")
async def a_plain_handler() -> str:
    async with open_session_pair() as (client, server):
        await client.open_stream()
        plain: Any = lambda stream: None  # noqa: E731
        return await error_of(partial(server.serve_streams, plain))


# ---- nothing happens


@produces("open_stream waits")
async def all_slots_are_taken() -> str:
    with log() as records:
        async with open_session_pair() as (client, _):
            with trio.move_on_after(11):
                while True:
                    await client.open_stream()
    (message,) = [record for record in records if "waits" in record]
    return message.rpartition(": ")[2]


async def test_a_server_waits_for_an_untyped_v2_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And with the version said, it doesn't."""
    async with open_session_pair(config=V2, server_config=MuxadoConfig()) as (_, server):
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(1000):
                await server.open_stream()
    async with open_session_pair(config=V2) as (_, server):
        await server.open_stream()


async def test_untyped_v2_does_not_notice_a_dead_peer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And what notices it where something is sent."""
    link = Link(buffer=1000)
    async with open_session_pair(config=V2, link=link) as (client, server):
        stream = await client.open_stream()
        await stream.send_all(b"hello")
        assert await (await server.accept_stream()).receive_some() == b"hello"
        link.freeze()
        with trio.move_on_after(1000):
            await stream.receive_some()
        assert client.close_reason is None
        await stream.send_all(bytes(10_000))
        assert (await client.wait_closed()).message == "the transport accepted nothing for 60 s"


async def test_one_side_is_typed(autojump_clock: trio.testing.MockClock) -> None:
    typed = MuxadoConfig(wire="v2", typed=True)
    async with open_session_pair(config=V2, server_config=typed) as (client, server):
        await (await client.open_stream()).send_all(b"hello")
        stream = await server.accept_stream()
        assert stream.type == 1751477356
        assert await stream.receive_some() == b"o"


# ---- TLS, over sockets: trio's TLS needs none, but what a client connects to does

NEED_SOCKETS = [heading for heading in HEADINGS if heading.startswith("the TLS handshake")]
(NO_ISSUER, WRONG_NAME, NO_CERTIFICATE, NO_TLS, CLOSED) = NEED_SOCKETS


async def handle_session(session: MuxadoSession) -> None:
    await session.serve_streams(MuxadoStream.aclose)


async def outcome(
    server: ssl.SSLContext | None, client: ssl.SSLContext | None, host: str = "127.0.0.1"
) -> tuple[str, str]:
    """What a client is told, and what the log of the server says."""
    told = ""
    stop = trio.Event()
    with log() as records, trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_muxado, host="127.0.0.1", ssl_context=server, stop=stop)
            (listener,) = await nursery.start(serve, handle_session, 0)
            listener = getattr(listener, "transport_listener", listener)
            port = listener.socket.getsockname()[1]
            try:
                async with open_muxado_session(host, port, ssl_context=client) as session:
                    await (await session.open_stream()).receive_some()
            except trio.BrokenResourceError as error:
                told = str(error)
            while server and not any("TLS" in record for record in records):
                await trio.sleep(0.005)  # what stops logs no handshake that fails
            stop.set()
    return told, next((record for record in records if "TLS" in record), "")


def is_about_an_end(message: str) -> bool:
    """Whether it is the message of an end in the handshake: Pythons differ in the words."""
    closed = is_about(CLOSED, message) or "TLS/SSL connection has been closed (EOF)" in message
    return closed or "unexpected eof while reading" in message


async def test_the_client_does_not_trust_the_issuer(server_context: ssl.SSLContext) -> None:
    told, logged = await outcome(server_context, ssl.create_default_context())
    assert is_about(NO_ISSUER, told) or "self-signed" in told
    assert is_about_an_end(logged) or "alert unknown ca" in logged.lower()


async def test_the_name_is_not_in_the_certificate(
    authority: trustme.CA, client_context: ssl.SSLContext
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    told, _ = await outcome(context, client_context)
    assert is_about(WRONG_NAME, told)


async def test_the_client_has_no_certificate(
    authority: trustme.CA, client_context: ssl.SSLContext
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    told, logged = await outcome(context, client_context)
    assert is_about(NO_CERTIFICATE, logged)
    assert told


async def test_the_client_has_no_tls(server_context: ssl.SSLContext) -> None:
    told, logged = await outcome(server_context, None)
    assert is_about(NO_TLS, logged)
    assert "transport" in told


@pytest.mark.parametrize("ignore", [False, True])
async def test_the_server_has_no_tls(ignore: bool) -> None:
    context = ssl.create_default_context()
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which Pythons set or not
    if ignore:
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    told, _ = await outcome(None, context)
    assert ("has been closed (EOF)" in told) == ignore
    assert is_about_an_end(told)
    assert told.endswith("; the server may not use TLS, or it refused this client")


# ---- a tunnel


async def test_a_visitor_of_a_tunnel_whose_service_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Over sockets, as what is connected to is one that refuses."""
    with trio.socket.socket() as nobody:
        await nobody.bind(("127.0.0.1", 0))
        host, port = nobody.getsockname()
        pool = SessionPool()
        ours, theirs = trio.testing.memory_stream_pair()
        visitor, accepted = trio.testing.memory_stream_pair()
        caplog.set_level(logging.INFO, "trio_muxado")
        with trio.fail_after(DEADLINE):
            async with (
                server_session(theirs) as relay,
                client_session(ours) as agent,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(forward_streams, agent, host, port)
                pool.add(relay)
                forwarded = await forward(accepted, await pool.open_stream())
                assert not forwarded.clean
                with pytest.raises(trio.BrokenResourceError):
                    await visitor.receive_some()
                    await visitor.send_all(b"x")
                nursery.cancel_scope.cancel()
    assert f"no connection to {host} port {port}: " in caplog.text
