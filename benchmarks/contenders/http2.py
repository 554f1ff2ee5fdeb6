"""HTTP/2 on trio: httpcore against hypercorn, one connection, a stream per request."""

# mypy: disable-error-code="import-not-found, import-untyped"
from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpcore
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve

from .._common import (
    CHUNK,
    HOST,
    REQUEST,
    RESPONSE,
    check,
    check_held,
    client_context,
    listening,
    main,
    parse_report,
    usage_text,
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The exchange as an ASGI application: the path says what a stream is for."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
    kind: bytes = scope["path"].encode()[1:2]
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
    if kind == b"i":
        await send(start)
        await send({"type": "http.response.body", "body": kind, "more_body": True})
    total, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        total += len(message.get("body", b""))
        more = message.get("more_body", False) or kind == b"i"
    if kind == b"r":
        body = RESPONSE
    elif kind == b"b":
        body = str(total).encode()
    else:
        body = usage_text(kind)
    start["headers"] = [(b"content-length", str(len(body)).encode())]
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def serve(args: Namespace) -> None:
    config = Config()
    config.bind = [f"{HOST}:0"]
    config.loglevel = "ERROR"
    config.keep_alive_max_requests = 10**9  # else the connection ends after 1,000
    if args.cert:
        config.certfile = config.keyfile = args.cert
    async with trio.open_nursery() as nursery:
        binds = await nursery.start(partial(hypercorn_serve, app, config))
        listening(int(binds[0].rpartition(":")[2]))


class Http2Peer:
    def __init__(self, pool: httpcore.AsyncConnectionPool, base: str) -> None:
        self._pool = pool
        self._base = base
        self._held: list[AsyncIterator[bytes]] = []

    async def _post(self, kind: bytes, content: bytes | AsyncIterator[bytes]) -> bytes:
        response = await self._pool.request("POST", self._base + kind.decode(), content=content)
        return response.content

    async def request(self) -> None:
        check(await self._post(b"r", REQUEST))

    async def report(self, kind: bytes) -> dict[str, float]:
        return parse_report(await self._post(kind, b""))

    async def bulk(self, more: Callable[[], bool], chunk: bytes = CHUNK) -> int:
        async def chunks() -> AsyncIterator[bytes]:
            yield chunk
            while more():
                yield chunk

        return int(await self._post(b"b", chunks()))

    async def hold(self) -> None:
        request = httpcore.Request("GET", self._base + "i", headers={"Host": HOST})
        response = await self._pool.handle_async_request(request)
        body = response.aiter_stream()
        check_held(await body.__anext__())
        self._held.append(body)


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[Http2Peer]:
    context = client_context(args)
    async with httpcore.AsyncConnectionPool(
        ssl_context=context, http1=False, http2=True, max_connections=1
    ) as pool:
        scheme = "http" if context is None else "https"
        yield Http2Peer(pool, f"{scheme}://{HOST}:{args.port}/")


if __name__ == "__main__":
    main(serve, connect)
