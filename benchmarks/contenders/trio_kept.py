"""Plain trio: one kept TCP connection, one request after the other."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from .._common import (
    CHUNK,
    HOST,
    REQUEST,
    RESPONSE,
    SMALL,
    check,
    client_context,
    listening,
    main,
    parse_report,
    server_context,
    usage_text,
)


async def answer_all(stream: trio.abc.Stream) -> None:
    """Answer what comes; requests and reports are told apart by their length."""
    while got := await stream.receive_some(SMALL):
        while got[:1] == b"r" and len(got) < len(REQUEST):
            got += await stream.receive_some(SMALL)
        await stream.send_all(RESPONSE if got[:1] == b"r" else usage_text(bytes(got[:1])))


async def serve(args: Namespace) -> None:
    context = server_context(args)
    serve_listeners = (
        partial(trio.serve_tcp, answer_all, 0, host=HOST)
        if context is None
        else partial(trio.serve_ssl_over_tcp, answer_all, 0, context, host=HOST)
    )
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(serve_listeners)
        listener = getattr(listener, "transport_listener", listener)
        listening(listener.socket.getsockname()[1])


class KeptPeer:
    """Only requests, one at a time: there is one stream, and it must not end."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def request(self) -> None:
        await self._stream.send_all(REQUEST)
        got = bytes(await self._stream.receive_some(SMALL))
        while 0 < len(got) < len(RESPONSE):
            got += await self._stream.receive_some(SMALL)
        check(got)

    async def report(self, kind: bytes) -> dict[str, float]:
        await self._stream.send_all(kind)
        return parse_report(bytes(await self._stream.receive_some(SMALL)))

    async def bulk(self, more: Callable[[], bool], chunk: bytes = CHUNK) -> int:
        raise NotImplementedError

    async def hold(self) -> None:
        raise NotImplementedError


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[KeptPeer]:
    context = client_context(args)
    stream: trio.abc.Stream
    if context is None:
        stream = await trio.open_tcp_stream(HOST, args.port)
    else:
        stream = await trio.open_ssl_over_tcp_stream(HOST, args.port, ssl_context=context)
    async with stream:
        yield KeptPeer(stream)


if __name__ == "__main__":
    main(serve, connect)
