"""httpcore over a session, by its own pool, and what it asks of a stream."""

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import httpcore
import httpx
import pytest
import trio

from trio_muxado import ErrorCode, MuxadoStream
from trio_muxado.http import MuxadoBackend

from ..helpers import V1, session_pair
from .support import answer_once, client_of, echo_app, served


def pool_of(session: Any, **options: Any) -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(network_backend=MuxadoBackend(session), **options)


async def test_tls_that_httpcore_puts_on_a_stream(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with session_pair(V1, heartbeat=None) as (near, far):
        async with served(echo_app, far, ssl_context=server_context):
            async with pool_of(near, ssl_context=client_context) as pool:
                for _ in range(2):  # on one stream
                    answer = await pool.request("GET", "https://localhost/here")
                    assert answer.content == b"/here"
                stream = answer.extensions["network_stream"]
                assert stream.get_extra_info("ssl_object").version().startswith("TLS")
                assert stream.get_extra_info("socket") is None
            await near.aclose()


async def test_httpcore_tries_a_handshake_again(client_context: ssl.SSLContext) -> None:
    handled: list[int] = []

    async def refuse(stream: MuxadoStream) -> None:
        handled.append(stream.id)
        await stream.reset(ErrorCode.STREAM_REFUSED)

    async with session_pair(V1, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, refuse)
        async with pool_of(near, ssl_context=client_context, retries=1) as pool:
            with pytest.raises(httpcore.ConnectError):
                await pool.request("GET", "https://localhost/")
        assert len(handled) == 2
        nursery.cancel_scope.cancel()


async def test_bytes_that_came_with_a_switch_are_read_first() -> None:
    async def switch(stream: MuxadoStream) -> None:
        await stream.receive_some()
        head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
        await stream.send_all(head + b"hello")
        await stream.send_all(await stream.receive_some())

    async with session_pair(V1, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, switch)
        async with client_of(near) as http:
            headers = {"connection": "upgrade", "upgrade": "x"}
            async with http.stream("GET", "/", headers=headers) as response:
                assert response.status_code == 101
                stream = response.extensions["network_stream"]
                assert await stream.read(4) == b"hell"
                assert await stream.read(4) == b"o"
                await stream.write(b"bye")
                assert await stream.read(4) == b"bye"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "answer, words",
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "illegal"),
        (b"", "without a response"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "without sending complete"),
    ],
)
async def test_what_is_no_answer(answer: bytes, words: str) -> None:
    async def say(stream: MuxadoStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with session_pair(V1, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, say)
        async with client_of(near) as http:
            with pytest.raises(httpx.RemoteProtocolError, match=words):
                await http.get("/")
        nursery.cancel_scope.cancel()


async def test_a_request_that_is_none_is_not_sent() -> None:
    async with session_pair(V1, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, answer_once)
        async with client_of(near) as http:
            with pytest.raises(httpx.LocalProtocolError):
                await http.get("/", headers={"x": "a\nb"})
            with pytest.raises(httpx.UnsupportedProtocol, match="gopher"):
                await http.get("gopher://peer/")
        nursery.cancel_scope.cancel()


# ---- servers of HTTP/2 that break off


def garbage(connection: h2.connection.H2Connection) -> bytes:
    return b"\0\0\x01\0\0\0\0\0\0x"  # DATA on no stream


def nothing(connection: h2.connection.H2Connection) -> bytes:
    return connection.data_to_send()


def reset(connection: h2.connection.H2Connection) -> bytes:
    connection.reset_stream(1, h2.errors.ErrorCodes.INTERNAL_ERROR)
    return connection.data_to_send()


def half(connection: h2.connection.H2Connection) -> bytes:
    connection.send_headers(1, [(":status", "200")])
    connection.send_data(1, b"half")
    return reset(connection)


@pytest.mark.parametrize(
    "answer, words",
    [
        (garbage, "stream|frame|DATA"),
        (nothing, "before its response"),
        (reset, "INTERNAL_ERROR"),
        (half, "INTERNAL_ERROR"),
    ],
)
async def test_a_server_of_http2_that_breaks_off(
    answer: Callable[[h2.connection.H2Connection], bytes], words: str
) -> None:
    async def handle(stream: MuxadoStream) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        events: list[Any] = []
        while not any(isinstance(each, h2.events.StreamEnded) for each in events):
            events += connection.receive_data(bytes(await stream.receive_some()))
        await stream.send_all(answer(connection))

    async with session_pair(V1, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, handle)
        async with client_of(near, http2=True) as http:
            with pytest.raises(httpx.RemoteProtocolError, match=words):
                await http.get("/")
        nursery.cancel_scope.cancel()


async def test_an_answer_of_http2_before_the_body_is_whole() -> None:
    """It resets with NO_ERROR once it has answered: the rest of the request need not come."""

    async def handle(stream: MuxadoStream) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        events: list[Any] = []
        while not any(isinstance(each, h2.events.RequestReceived) for each in events):
            events += connection.receive_data(bytes(await stream.receive_some()))
        connection.send_headers(1, [(":status", "413")])
        connection.send_data(1, b"too much", end_stream=True)
        connection.reset_stream(1, h2.errors.ErrorCodes.NO_ERROR)
        await stream.send_all(connection.data_to_send())
        async for _ in stream:
            pass

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield bytes(10_000)

    async with session_pair(V1, heartbeat=None) as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.serve_streams, handle)
        async with client_of(near, http2=True) as http, aclosing(endless()) as body:
            answer = await http.post("/", content=body)
            assert (answer.status_code, answer.content) == (413, b"too much")
        nursery.cancel_scope.cancel()


async def test_a_body_that_only_a_sync_client_could_send() -> None:
    async with session_pair(V1, heartbeat=None) as (near, _):
        async with client_of(near) as http:
            with pytest.raises(RuntimeError, match="sync request"):
                await http.post("/", content=iter([b"x"]))
