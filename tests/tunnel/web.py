"""Visitors of HTTP tunnels, and what they visit."""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import pytest
import trio

from trio_muxado.tunnel import AsgiService, ServerTls, Tunnel

from .support import HOST, exposed, running_relay

WEB = Tunnel(name="web", host="web.example.org")
OTHER = Tunnel(name="other", host="other.example.org")


async def scope_app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it heard: the request's line, some headers, and its body."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": (message.get("text") or "")[::-1]})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = dict(scope["headers"])
    said = (
        f"{scope['method']} {scope['path']} {scope['scheme']} {headers.get(b'host', b'').decode()} "
        f"{scope['client'][0]} {len(body)}"
    )
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]})
    await send({"type": "http.response.body", "body": said.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"."})


class Silent:
    """A service that reads a request and answers nothing, until its visitor has left."""

    def __init__(self) -> None:
        self.visitor_left = trio.Event()

    async def __call__(self, stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some()
            await stream.receive_some()
        finally:
            self.visitor_left.set()


def plain(word: bytes, *, keep_open: bool = False) -> Any:
    """A service that answers each request with a word, by hand."""

    async def answer(stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        while (event := connection.next_event()) is not h11.PAUSED:
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                return
        head = h11.Response(status_code=200, headers=[("content-length", str(len(word)))])
        for part in (head, h11.Data(data=word), h11.EndOfMessage()):
            await stream.send_all(connection.send(part) or b"")

    return answer


def get(host: str, path: str = "/", *more: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


class Client:
    """Reads answers one by one, from a connection that it keeps."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.connection = h11.Connection(h11.CLIENT)

    async def ask(self, host: str, path: str = "/", **more: Any) -> tuple[int, bytes]:
        headers = [("host", host), *more.get("headers", [])]
        request = h11.Request(method=more.get("method", "GET"), target=path, headers=headers)
        parts = [request, *(h11.Data(data=each) for each in more.get("body", []))]
        for part in [*parts, h11.EndOfMessage()]:
            await self.stream.send_all(self.connection.send(part) or b"")
        answer = await self.receive()
        if self.connection.our_state is h11.DONE and self.connection.their_state is h11.DONE:
            self.connection.start_next_cycle()
        return answer

    async def receive(self) -> tuple[int, bytes]:
        status, body = 0, b""
        while True:
            event = self.connection.next_event()
            if event is h11.NEED_DATA:
                self.connection.receive_data(bytes(await self.stream.receive_some()))
            elif isinstance(event, h11.Response):
                status = event.status_code
                self.headers = dict(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif isinstance(event, h11.ConnectionClosed):
                return 0, body


@asynccontextmanager
async def relay_and_app(**options: Any) -> AsyncGenerator[Any, None]:
    """A relay with an application behind it; gives the relay."""
    async with running_relay(http=f"{HOST}:0", **options) as relay:
        async with exposed(relay, {WEB: AsgiService(scope_app)}):
            yield relay


@asynccontextmanager
async def https(tls_files: Path, **options: Any) -> AsyncGenerator[Any, None]:
    tls = ServerTls(tls_files, protocols=["h2", "http/1.1"])
    async with running_relay(https=f"{HOST}:0", https_tls=tls, **options) as relay:
        yield relay


def resolving(monkeypatch: pytest.MonkeyPatch, here: int) -> None:
    """All hosts are here, at that port."""
    right = trio.open_tcp_stream

    async def connect(host: Any, **options: Any) -> trio.SocketStream:
        return await right(HOST, here)

    monkeypatch.setattr(trio, "open_tcp_stream", connect)


@asynccontextmanager
async def raw_http2(port: int, context: ssl.SSLContext) -> AsyncGenerator[Any, None]:
    """A connection of HTTP/2, and its state."""
    h2_connection = pytest.importorskip("h2.connection")
    context.set_alpn_protocols(["h2"])
    async with await trio.open_tcp_stream(HOST, port) as tcp:
        stream = trio.SSLStream(tcp, context, server_hostname="web.example.org")
        await stream.do_handshake()
        connection = h2_connection.H2Connection()
        connection.initiate_connection()
        await stream.send_all(connection.data_to_send())
        yield stream, connection


HEADERS = [
    (":method", "GET"),
    (":path", "/"),
    (":scheme", "https"),
    (":authority", "web.example.org"),
]
