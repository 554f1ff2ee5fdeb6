"""The adapter of the examples, by what anyio's own tests expect of its streams.

Their names are those of ``TestTCPStream`` in anyio's ``tests/test_sockets.py``; what is about
sockets is not here.
"""

import importlib.util
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledByteStream
from anyio.streams.text import TextStream
from anyio.streams.tls import TLSStream
from trio.testing import wait_all_tasks_blocked

from trio_muxado import StreamResetError

from .helpers import V1, Kind, each_wire, session_pair, stream_pair

PATH = Path(__file__).parents[1] / "examples" / "anyio_stream.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("anyio_stream", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


AnyioStream = load().AnyioStream


@asynccontextmanager
async def adapted(kind: Kind = V1) -> AsyncGenerator[tuple[Any, Any], None]:
    async with stream_pair(kind, heartbeat=None) as (near, far):
        yield AnyioStream(near), AnyioStream(far)


@each_wire
async def test_send_receive(kind: Kind) -> None:
    async with adapted(kind) as (client, server):
        await client.send(b"halb")
        assert await server.receive(2) == b"ha"
        assert await server.receive() == b"lb"


@each_wire
async def test_send_large_buffer(kind: Kind) -> None:
    buffer = b"\xff" * 5_000_000
    async with adapted(kind) as (client, server):
        async with anyio.create_task_group() as group:

            async def send() -> None:
                await client.send(buffer)
                await client.send_eof()

            group.start_soon(send)
            received = b"".join([chunk async for chunk in server])
    assert received == buffer


@each_wire
async def test_send_eof(kind: Kind) -> None:
    async with adapted(kind) as (client, server):
        await client.send(b"hello, ")
        await client.send(b"world\n")
        await client.send_eof()
        await client.send_eof()
        assert b"".join([chunk async for chunk in server]) == b"hello, world\n"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await server.receive()
        await server.send(b"dlrow")
        assert await client.receive() == b"dlrow"


async def test_iterate() -> None:
    async with adapted() as (client, server):
        for word in b"bye", b"again":
            await server.send(word)
            await wait_all_tasks_blocked()
        await server.aclose()
        assert b"".join([chunk async for chunk in client]) == b"byeagain"


async def test_concurrent_read() -> None:
    async with adapted() as (client, _), anyio.create_task_group() as group:
        group.start_soon(client.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError, match="already reading from"):
            await client.receive()
        group.cancel_scope.cancel()


async def test_concurrent_write() -> None:
    async with adapted() as (client, _), anyio.create_task_group() as group:
        group.start_soon(client.send, bytes(5_000_000))
        await wait_all_tasks_blocked()
        for call in lambda: client.send(b"x"), client.send_eof:
            with pytest.raises(anyio.BusyResourceError, match="already writing to"):
                await call()
        group.cancel_scope.cancel()


async def test_close_during_receive() -> None:
    async with adapted() as (client, _), anyio.create_task_group() as group:

        async def interrupt() -> None:
            await wait_all_tasks_blocked()
            await client.aclose()

        group.start_soon(interrupt)
        with pytest.raises(anyio.ClosedResourceError):
            await client.receive()


async def test_receive_after_close() -> None:
    async with adapted() as (client, _):
        await client.aclose()
        await client.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await client.receive()


async def test_send_after_close() -> None:
    async with adapted() as (client, _):
        await client.aclose()
        for call in lambda: client.send(b"foo"), client.send_eof:
            with pytest.raises(anyio.ClosedResourceError):
                await call()


async def test_send_after_eof() -> None:
    async with adapted() as (client, _):
        await client.send_eof()
        with pytest.raises(anyio.ClosedResourceError):
            await client.send(b"hello, world\n")


async def test_send_after_peer_closed() -> None:
    async with adapted() as (client, server):
        await server.aclose()
        with pytest.raises(anyio.BrokenResourceError) as caught:
            while True:
                await client.send(b"foo")
                await wait_all_tasks_blocked()
        assert isinstance(caught.value.__cause__, StreamResetError)


async def test_the_end_of_the_session_breaks_it() -> None:
    async with session_pair(V1, heartbeat=None) as (client, server):
        stream = AnyioStream(await client.open_stream())
        await trio.aclose_forcefully(server)
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


async def test_cancelled_receive_loses_nothing() -> None:
    async with adapted() as (client, server):
        with anyio.move_on_after(0):
            await client.receive()
        await server.send(b"here")
        assert await client.receive() == b"here"


# ---- what anyio builds on streams


async def both(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    results: list[Any] = [None] * len(calls)

    async def run(index: int, call: Callable[[], Awaitable[Any]]) -> None:
        results[index] = await call()

    async with anyio.create_task_group() as group:
        for index, call in enumerate(calls):
            group.start_soon(run, index, call)
    return results


async def test_tls_over_it(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    async with adapted() as (client, server):
        private, other = await both(
            lambda: TLSStream.wrap(client, hostname="localhost", ssl_context=client_context),
            lambda: TLSStream.wrap(server, server_side=True, ssl_context=server_context),
        )
        await private.send(b"in private")
        assert await other.receive() == b"in private"
        # anyio's own close waits for that of the other side.
        await both(private.aclose, other.aclose)


async def test_tls_over_it_notices_a_cut(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with adapted() as (client, server):
        private, _ = await both(
            lambda: TLSStream.wrap(client, hostname="localhost", ssl_context=client_context),
            lambda: TLSStream.wrap(server, server_side=True, ssl_context=server_context),
        )
        await server.aclose()
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            await private.receive()


async def test_buffered_and_text_over_it() -> None:
    async with adapted() as (client, server):
        await TextStream(client).send("a line\nand möre")
        await client.send_eof()
        buffered = BufferedByteReceiveStream(server)
        assert await buffered.receive_until(b"\n", 100) == b"a line"
        assert (await buffered.receive_exactly(9)).decode() == "and möre"
        with pytest.raises(anyio.IncompleteRead):
            await buffered.receive_exactly(1)


async def test_stapled_of_two() -> None:
    async with adapted() as (out, far_out), adapted() as (back, far_back):
        stapled = StapledByteStream(out, back)
        await stapled.send(b"there")
        assert await far_out.receive() == b"there"
        await far_back.send(b"back")
        assert await stapled.receive() == b"back"
        await stapled.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await far_out.receive()
