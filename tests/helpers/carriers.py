"""Every kind of stream that can be joined to another, as pairs whose ends are used alike."""

import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import trio
from trio.testing import memory_stream_pair

from trio_muxado import MuxadoStream

from .kinds import V1, V2
from .sessions import stream_pair
from .tasks import together
from .transports import tcp_pair, tls_pair

CODE = 0x1234
"""With which a peer here resets: no name of ours, so that it can come from nowhere else."""


class Ends(NamedTuple):
    """A pair of streams: the one to be joined, and the one of whoever is at its other end."""

    near: trio.abc.Stream
    far: Any


class Carrier(NamedTuple):
    """A kind of stream, and what it can say."""

    name: str
    half_closes: bool = True
    breaks: bool = True  # has a way to say that it was not the end
    has_codes: bool = False

    def __str__(self) -> str:
        return self.name


MEMORY = Carrier("memory", breaks=False)
TCP = Carrier("tcp")
TLS = Carrier("tls", half_closes=False)
STREAM_V1 = Carrier("stream-v1", has_codes=True)
STREAM_V2 = Carrier("stream-v2", has_codes=True)
TLS_IN_STREAM = Carrier("tls-in-stream", half_closes=False, has_codes=True)
CARRIERS = [MEMORY, TCP, TLS, STREAM_V1, STREAM_V2, TLS_IN_STREAM]


class Contexts(NamedTuple):
    """TLS for both ends."""

    client: ssl.SSLContext
    server: ssl.SSLContext


@asynccontextmanager
async def _memory() -> AsyncGenerator[Ends, None]:
    yield Ends(*memory_stream_pair())


@asynccontextmanager
async def _tls_in_stream(contexts: Contexts) -> AsyncGenerator[Ends, None]:
    async with stream_pair(V2, heartbeat=None) as (near, far):
        private = trio.SSLStream(near, contexts.client, server_hostname="localhost")
        other = trio.SSLStream(far, contexts.server, server_side=True)
        await together(private.do_handshake, other.do_handshake)
        yield Ends(private, other)


@asynccontextmanager
async def open_ends(carrier: Carrier, contexts: Contexts) -> AsyncGenerator[Ends, None]:
    """A pair of that kind, for as long as the block."""
    async with _pair(carrier, contexts) as (near, far):
        yield Ends(near, far)
        await trio.aclose_forcefully(far)


def _pair(carrier: Carrier, contexts: Contexts) -> AbstractAsyncContextManager[Any]:
    if carrier == TCP:
        return tcp_pair()
    if carrier == TLS:
        return tls_pair(contexts.client, contexts.server)
    if carrier == TLS_IN_STREAM:
        return _tls_in_stream(contexts)
    if carrier in (STREAM_V1, STREAM_V2):
        return stream_pair(V1 if carrier == STREAM_V1 else V2, heartbeat=None)
    return _memory()


async def break_far(far: Any) -> None:
    """What whoever is at the other end does to break off; a memory stream can only stop to read."""
    if isinstance(far, MuxadoStream):
        await far.reset(CODE)
    elif isinstance(far, trio.SSLStream):
        await break_far(far.transport_stream)
    elif isinstance(far, trio.SocketStream):
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await far.aclose()
    else:
        await far.receive_stream.aclose()


def codes_of(error: BaseException) -> list[Any]:
    """The codes of an error and of its causes."""
    codes = []
    cause: BaseException | None = error
    while cause is not None:
        codes += [cause.code] if hasattr(cause, "code") else []
        cause = cause.__cause__
    return codes
