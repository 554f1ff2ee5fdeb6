"""grpcio's asyncio interface, raw bytes as messages, a call per stream."""

# mypy: disable-error-code="import-not-found, import-untyped"
from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from .._common import (
    CHUNK,
    HOST,
    REQUEST,
    RESPONSE,
    check,
    check_held,
    listening,
    main,
    parse_report,
    usage_text,
)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


async def handle_request(request: bytes, context: Any) -> bytes:
    return RESPONSE


async def handle_report(kind: bytes, context: Any) -> bytes:
    return usage_text(kind)


async def handle_bulk(chunks: AsyncIterator[bytes], context: Any) -> bytes:
    total = 0
    async for chunk in chunks:
        total += len(chunk)
    return str(total).encode()


async def handle_idle(chunks: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk


async def serve(args: Namespace) -> None:
    server = grpc.aio.server()
    methods = {
        "r": grpc.unary_unary_rpc_method_handler(handle_request),
        "u": grpc.unary_unary_rpc_method_handler(handle_report),
        "b": grpc.stream_unary_rpc_method_handler(handle_bulk),
        "i": grpc.stream_stream_rpc_method_handler(handle_idle),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench", methods)])
    if args.cert:
        pem = read(args.cert)
        credentials = grpc.ssl_server_credentials([(pem, pem)])
        port = server.add_secure_port(f"{HOST}:0", credentials)
    else:
        port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    listening(port)
    await server.wait_for_termination()


class GrpcPeer:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._request = channel.unary_unary("/bench/r")
        self._report = channel.unary_unary("/bench/u")
        self._bulk = channel.stream_unary("/bench/b")
        self._idle = channel.stream_stream("/bench/i")
        self._held: list[object] = []

    async def request(self) -> None:
        check(await self._request(REQUEST))

    async def report(self, kind: bytes) -> dict[str, float]:
        return parse_report(await self._report(kind))

    async def bulk(self, more: Callable[[], bool], chunk: bytes = CHUNK) -> int:
        call = self._bulk()
        await call.write(chunk)
        while more():
            await call.write(chunk)
        await call.done_writing()
        return int(await call)

    async def hold(self) -> None:
        call = self._idle()
        await call.write(b"i")
        check_held(await call.read())
        self._held.append(call)


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[GrpcPeer]:
    address = f"{HOST}:{args.port}"
    if args.ca:
        credentials = grpc.ssl_channel_credentials(read(args.ca))
        channel = grpc.aio.secure_channel(address, credentials)
    else:
        channel = grpc.aio.insecure_channel(address)
    async with channel:
        await asyncio.wait_for(channel.channel_ready(), 10)
        yield GrpcPeer(channel)


if __name__ == "__main__":
    main(serve, connect, loop="asyncio")
