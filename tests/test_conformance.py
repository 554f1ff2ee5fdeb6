"""A stream of a session is a trio stream: trio's own suite says so, for every wire and transport.

The suite wants one stream pair after the other; they all come out of one pair of sessions.
"""

import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import check_half_closeable_stream, check_two_way_stream, memory_stream_pair

from trio_muxado import MuxadoSession, MuxadoStream

from .helpers import Kind, Pair, each_kind, each_wire, fill, session_pair, tcp_pair, tls_pair

Transports = Callable[[], AbstractAsyncContextManager[Pair]]


@pytest.fixture(params=["memory", "tcp", "tls"])
def transports(
    request: pytest.FixtureRequest, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> Transports:
    """Memory for what it says; TCP and TLS because they buffer and cut as they like."""

    @asynccontextmanager
    async def memory() -> AsyncGenerator[Pair, None]:
        yield memory_stream_pair()

    return {
        "memory": memory,
        "tcp": tcp_pair,
        "tls": lambda: tls_pair(client_context, server_context),
    }[request.param]


async def new_pair(
    client: MuxadoSession, server: MuxadoSession
) -> tuple[MuxadoStream, MuxadoStream]:
    near = await client.open_stream()
    return near, await server.accept_stream()


@each_kind
async def test_half_closeable_stream(kind: Kind, transports: Transports) -> None:
    async with transports() as ends, session_pair(kind, transports=ends) as sessions:

        async def make() -> tuple[MuxadoStream, MuxadoStream]:
            return await new_pair(*sessions)

        async def make_clogged() -> tuple[MuxadoStream, MuxadoStream]:
            near, far = await make()
            await fill(near)
            await fill(far)
            return near, far

        await check_half_closeable_stream(make, make_clogged)
        for session in sessions:
            await session.drain()  # nothing is left of any of them


TLS_OVERHEAD = 22
"""Bytes that TLS 1.3 adds to a record: header, type and tag."""


@each_wire
async def test_tls_inside_one_stream(
    kind: Kind, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def fill_exactly(stream: trio.SSLStream[MuxadoStream]) -> None:
        # A send of TLS cannot be cancelled without breaking it, so the last one must just fit.
        core = stream.transport_stream._core
        while (room := core.send_window + 1 - TLS_OVERHEAD) > 16384:
            await stream.send_all(bytes(8000))
        await stream.send_all(bytes(room))
        assert (core.send_window, core.outgoing.size) == (0, 1)

    async with session_pair(kind, send_buffer=1) as sessions:

        async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
            near, far = await new_pair(*sessions)
            return (
                trio.SSLStream(near, client_context, server_hostname="localhost"),
                trio.SSLStream(far, server_context, server_side=True),
            )

        async def make_clogged() -> tuple[trio.abc.Stream, trio.abc.Stream]:
            near, far = await make()
            assert isinstance(near, trio.SSLStream)
            assert isinstance(far, trio.SSLStream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.do_handshake)
                nursery.start_soon(far.do_handshake)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fill_exactly, near)
                nursery.start_soon(fill_exactly, far)
            return near, far

        await check_two_way_stream(make, make_clogged)
