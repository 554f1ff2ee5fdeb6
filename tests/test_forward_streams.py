"""An agent in front of a service: over TCP, as the service is reached by nothing else."""

import socket
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
    MuxadoSession,
    SessionEndedError,
    StreamResetError,
    connect_tcp,
    forward_streams,
)

from .helpers import V1, Kind, each_wire, echo, read_all, read_exactly, session_pair, tcp_pair

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(
    handler: Callable[[trio.SocketStream], Awaitable[Any]], host: str = HOST
) -> AsyncGenerator[int, None]:
    """A TCP service; gives its port."""
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handler, 0, host=host))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def agent(
    kind: Kind, host: str, port: int, **options: Any
) -> AsyncGenerator[MuxadoSession, None]:
    """The session to an agent, which forwards to that service."""
    transports = options.pop("transports", None)
    async with session_pair(kind, transports=transports, heartbeat=None) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(forward_streams, server, host, port, **options))
            yield client
            await client.aclose()


def refusing_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


async def say(session: MuxadoSession, words: bytes) -> bytes:
    async with await session.open_stream() as stream:
        await stream.send_all(words)
        await stream.send_eof()
        return await read_all(stream)


@each_wire
@pytest.mark.parametrize("host", [HOST, "localhost", b"127.0.0.1"])
async def test_each_stream_is_a_connection(kind: Kind, host: str) -> None:
    async with serving(echo) as port, agent(kind, host, port) as session:
        assert await say(session, b"one") == b"one"
        assert await say(session, b"two") == b"two"


async def test_an_address_is_neither_looked_up_nor_tried_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fifth of an agent's time goes there otherwise, for short connections."""

    def never(*args: Any, **options: Any) -> Any:
        raise AssertionError("an address needs no such thing")

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    monkeypatch.setattr(trio.to_thread, "run_sync", never)
    async with serving(echo) as port, agent(V1, HOST, port) as session:
        assert await say(session, b"one") == b"one"


async def test_an_address_of_ipv6() -> None:
    async with serving(echo, "::1") as port, agent(V1, "::1", port) as session:
        assert await say(session, b"six") == b"six"


@each_wire
@pytest.mark.parametrize("host", [HOST, "localhost", "no-such-host.invalid"])
async def test_a_service_that_refuses_makes_it_safe_to_retry_and_the_others_go_on(
    kind: Kind, host: str
) -> None:
    async with agent(kind, host, refusing_port()) as session:
        for _ in range(2):
            stream = await session.open_stream()
            with pytest.raises(StreamResetError) as caught:
                await stream.receive_some()
            assert caught.value.code is ErrorCode.STREAM_REFUSED
            assert caught.value.safe_to_retry
            await stream.aclose()


async def test_a_service_that_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def connect(*args: Any) -> Any:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    async with session_pair(V1, heartbeat=None) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward_streams, server, "far.invalid", 80)
            stream = await client.open_stream()
            with pytest.raises(StreamResetError) as caught:
                await stream.receive_some()
            assert caught.value.code is ErrorCode.STREAM_REFUSED
            assert trio.current_time() == 30
            nursery.cancel_scope.cancel()


async def breaks_at_once(broke: trio.Event, tcp: trio.SocketStream) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await tcp.receive_some()
    broke.set()


async def test_a_connection_that_comes_with_a_cancellation_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An end would say that the stream's opener has sent nothing."""
    scope, broke = trio.CancelScope(), trio.Event()

    async def connect(host: str, port: int) -> trio.SocketStream:
        tcp = await connect_tcp(host, port)
        scope.cancel()
        return tcp

    monkeypatch.setattr("trio_muxado._forward_streams.connect_tcp", connect)
    async with serving(partial(breaks_at_once, broke)) as port:
        async with session_pair(V1, heartbeat=None) as (client, server):
            await (await client.open_stream()).send_all(b"much")
            with scope:
                await forward_streams(server, HOST, port)
            await broke.wait()


@each_wire
async def test_a_service_that_resets_breaks_its_stream_alone(kind: Kind) -> None:
    async def service(tcp: trio.SocketStream) -> None:
        if await tcp.receive_some() == b"reset":
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return
        await tcp.send_all(b"hello")

    async with serving(service) as port, agent(kind, HOST, port) as session:
        other = await session.open_stream()
        stream = await session.open_stream()
        await stream.send_all(b"reset")
        with pytest.raises(StreamResetError) as caught:
            await read_all(stream)
        assert caught.value.code is ErrorCode.STREAM_CANCELLED
        assert not caught.value.safe_to_retry
        await other.send_all(b"?")
        assert await read_all(other) == b"hello"
        await other.aclose()


async def test_a_broken_session_is_raised_and_breaks_the_connections() -> None:
    broke = trio.Event()

    async def service(tcp: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await read_all(tcp)
        broke.set()

    async with serving(service) as port:
        async with session_pair(V1, heartbeat=None) as (client, server):
            with pytest.raises(ExceptionGroup) as caught:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(forward_streams, server, HOST, port)
                    stream = await client.open_stream()
                    await stream.send_all(b"x")
                    await wait_all_tasks_blocked()
                    await trio.aclose_forcefully(client)
            assert caught.group_contains(SessionEndedError)
        await broke.wait()


async def test_an_idle_connection_is_broken() -> None:
    """The clock is a real one: nothing here depends on how long it takes."""

    async def service(tcp: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await read_all(tcp)

    async with serving(service) as port, agent(V1, HOST, port, idle_timeout=0.01) as session:
        stream = await session.open_stream()
        with pytest.raises(StreamResetError) as caught:
            await stream.receive_some()
        assert caught.value.code is ErrorCode.STREAM_CANCELLED


# ---- who it comes from


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_header_has_the_address_of_the_session_s_peer(version: str) -> None:
    async with serving(echo) as port, tcp_pair() as (near, far):
        assert isinstance(near, trio.SocketStream)
        assert isinstance(far, trio.SocketStream)
        address, own = near.socket.getsockname(), far.socket.getsockname()
        options = {"transports": (near, far), "proxy_protocol": version}
        async with agent(V1, HOST, port, **options) as session:
            stream = await session.open_stream()
            await stream.send_all(b"hello")
            await stream.send_eof()
            received = await read_all(stream)
    if version == "v1":
        line = f"PROXY TCP4 {HOST} {HOST} {address[1]} {own[1]}\r\n"
        assert received == line.encode() + b"hello"
    else:
        ports = address[1].to_bytes(2, "big") + own[1].to_bytes(2, "big")
        assert received[12:16] == bytes.fromhex("2111000c")
        assert received[16:] == bytes([127, 0, 0, 1] * 2) + ports + b"hello"


async def test_over_anything_but_tcp_the_visitor_is_unknown() -> None:
    async with serving(echo) as port, agent(V1, HOST, port, proxy_protocol="v1") as session:
        assert await say(session, b"hello") == b"PROXY UNKNOWN\r\nhello"


async def test_a_service_that_speaks_first_hears_the_header_first() -> None:
    heard: list[bytes] = []

    async def service(tcp: trio.SocketStream) -> None:
        heard.append(await read_exactly(tcp, 15))
        await tcp.send_all(b"220 hello\r\n")

    async with serving(service) as port, agent(V1, HOST, port, proxy_protocol="v1") as session:
        stream = await session.open_stream()
        assert await read_all(stream) == b"220 hello\r\n"
        await stream.aclose()
    assert heard == [b"PROXY UNKNOWN\r\n"]


@pytest.mark.parametrize(
    "options, error, name",
    [
        ({"proxy_protocol": "v3"}, ValueError, "proxy_protocol"),
        ({"proxy_protocol": 2}, TypeError, "proxy_protocol"),
        ({"idle_timeout": 0}, ValueError, "idle_timeout"),
        ({"port": 0}, ValueError, "port"),
        ({"port": "80"}, TypeError, "port"),
        ({"port": True}, TypeError, "port"),
    ],
)
async def test_a_wrong_argument_is_named_before_a_stream_is_accepted(
    options: dict[str, Any], error: type[Exception], name: str
) -> None:
    async with session_pair(V1, heartbeat=None) as (client, server):
        await client.open_stream()
        with pytest.raises(error, match=rf"\b{name}\b"):
            await forward_streams(server, **{"host": HOST, "port": 80, **options})
        assert await server.accept_stream()
