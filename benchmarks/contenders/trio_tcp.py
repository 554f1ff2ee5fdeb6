"""Plain trio: every stream is a TCP connection of its own.

Its requests show what multiplexing saves, its bulk is the limit: one raw stream.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from .._common import (
    HOST,
    SMALL,
    ByteStream,
    StreamPeer,
    answer,
    check_held,
    client_context,
    listening,
    main,
    server_context,
)

BACKLOG = 4096  # for 1,000 connections that arrive at once
END = b"\xff"  # nothing else that the works send ends with it


class TlsStream:
    """TLS cannot end one direction only, so a last byte of data says it."""

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream
        self._ended = False
        self.aclose = stream.aclose
        self.send_all = stream.send_all

    async def send_eof(self) -> None:
        await self._stream.send_all(END)

    async def receive_some(self, max_bytes: int) -> bytes:
        if self._ended:
            return b""
        data = bytes(await self._stream.receive_some(max_bytes))
        self._ended = data.endswith(END)
        return data[:-1] if self._ended else data


class ConnectionPeer(StreamPeer):
    """Does with a connection what others do with a session."""

    async def request(self) -> None:
        """Connect, a byte each way, close."""
        stream = await self._open()
        await stream.send_all(b"i")
        check_held(await stream.receive_some(SMALL))
        await stream.aclose()


async def serve(args: Namespace) -> None:
    context = server_context(args)

    async def handler(stream: trio.SocketStream) -> None:
        if context is None:
            await answer(stream)  # serve_tcp closes it
        else:
            tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            wrapped = TlsStream(tls)
            await answer(wrapped)
            await wrapped.send_eof()
            await wrapped.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, handler, 0, host=HOST, backlog=BACKLOG)
        )
        listening(listeners[0].socket.getsockname()[1])


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[StreamPeer]:
    context = client_context(args)

    async def open_stream() -> ByteStream:
        stream = await trio.open_tcp_stream(HOST, args.port)
        if context is None:
            return stream
        return TlsStream(
            trio.SSLStream(stream, context, server_hostname=HOST, https_compatible=True)
        )

    yield (ConnectionPeer if args.sessions else StreamPeer)(open_stream)


if __name__ == "__main__":
    main(serve, connect)
