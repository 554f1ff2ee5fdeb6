"""TLS in long reads: as many records as there are, in order, and errors after what came before."""

from __future__ import annotations

import os
import random
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from trio_muxado import MuxadoConfig, MuxadoSession, MuxadoStream, open_muxado_session, serve_muxado
from trio_muxado._transport.receiving import READ_SIZE
from trio_muxado._transport.tls import AT_ONCE, RECORD, REFILL, ManyRecords, with_long_reads

from .helpers import read_exactly, receive_on, tcp_pair, together

CONTENT = random.Random(1).randbytes(10 * RECORD)


def streams(
    near: Any, far: Any, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> tuple[trio.SSLStream[Any], trio.SSLStream[Any]]:
    """The far one reads as sessions do."""
    return (
        trio.SSLStream(near, client_context, server_hostname="localhost"),
        trio.SSLStream(far, with_long_reads(server_context), server_side=True),
    )


class Engines:
    """Two TLS objects that talk through memory, the server's with long reads."""

    def __init__(self, client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
        self.client_in, self.client_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server_in, self.server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client_context.wrap_bio(
            self.client_in, self.client_out, server_hostname="localhost"
        )
        server: Any = with_long_reads(server_context).wrap_bio(
            self.server_in, self.server_out, server_side=True
        )
        assert isinstance(server, ManyRecords)
        self.server = server
        for _ in range(4):
            for one in (self.client, server):
                with suppress(ssl.SSLWantReadError):
                    one.do_handshake()
                self.server_in.write(self.client_out.read())
                self.client_in.write(self.server_out.read())

    def encrypted(self, *parts: bytes) -> bytes:
        """Each in records of its own."""
        for part in parts:
            self.client.write(part)
        return self.client_out.read()


@pytest.fixture
def engines(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> Engines:
    return Engines(client_context, server_context)


# ---- what is there


def test_a_read_takes_all_records(engines: Engines) -> None:
    engines.server_in.write(engines.encrypted(CONTENT, b"and", b"more"))
    assert engines.server.read(READ_SIZE) == CONTENT + b"andmore"
    with pytest.raises(ssl.SSLWantReadError):
        engines.server.read(READ_SIZE)


def test_a_read_takes_no_more_than_was_asked_for(engines: Engines) -> None:
    engines.server_in.write(engines.encrypted(CONTENT))
    sizes = [1, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD]
    assert b"".join(engines.server.read(size) for size in sizes) == CONTENT[: sum(sizes)]
    assert len(engines.server.read(READ_SIZE)) == len(CONTENT) - sum(sizes)


def test_a_read_takes_a_bounded_number_of_records(engines: Engines) -> None:
    """A peer can put each byte into a record of its own."""
    engines.server_in.write(engines.encrypted(*[b"x"] * 3 * AT_ONCE))
    assert [len(engines.server.read(READ_SIZE)) for _ in range(3)] == [AT_ONCE] * 3


def test_a_record_that_is_not_whole_is_left(engines: Engines) -> None:
    encrypted = engines.encrypted(CONTENT)
    cut = len(encrypted) * 9 // 20  # four records and a half
    engines.server_in.write(encrypted[:cut])
    first = engines.server.read(READ_SIZE)
    assert len(first) == 4 * RECORD
    with pytest.raises(ssl.SSLWantReadError):
        engines.server.read(READ_SIZE)
    engines.server_in.write(encrypted[cut:])
    assert first + engines.server.read(READ_SIZE) == CONTENT


def test_what_comes_before_an_error_is_returned_before_it(engines: Engines) -> None:
    encrypted = bytearray(engines.encrypted(b"good", b"bad"))
    encrypted[-1] ^= 1
    engines.server_in.write(encrypted)
    assert engines.server.read(READ_SIZE) == b"good"
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match=r"(?i)mac|record layer"):
            engines.server.read(READ_SIZE)


def test_what_comes_before_the_end_is_returned_before_it(engines: Engines) -> None:
    engines.client.write(b"all")
    with pytest.raises(ssl.SSLWantReadError):
        engines.client.unwrap()
    engines.server_in.write(engines.client_out.read())
    assert engines.server.read(READ_SIZE) == b"all"
    assert engines.server.read(READ_SIZE) == b""
    assert engines.server.read(READ_SIZE) == b""


def test_it_is_an_ssl_object_for_everything_else(
    engines: Engines, server_context: ssl.SSLContext
) -> None:
    server = engines.server
    assert server.version() == engines.client.version()
    assert server.server_side
    assert server.pending() == 0
    assert server.context is server_context
    assert server_context.sslobject_class is ssl.SSLObject
    server.context = other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert server.context is other
    server.write(b"back")
    engines.client_in.write(engines.server_out.read())
    assert engines.client.read() == b"back"


# ---- out of a socket


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def server_context(
    server_context: ssl.SSLContext,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> ssl.SSLContext:
    """Only of 1.3 the socket is read as if it were plain."""
    monkeypatch.setattr(server_context, "maximum_version", request.param)
    return server_context


@asynccontextmanager
async def tls_over_tcp(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> AsyncGenerator[tuple[trio.SSLStream[Any], trio.SSLStream[Any]], None]:
    async with tcp_pair() as (near, far):
        client, server = streams(near, far, client_context, server_context)
        await together(client.do_handshake, server.do_handshake)
        yield client, server


async def test_bulk_of_a_socket_is_read_in_few_turns(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    size = 16 * REFILL
    async with (
        tls_over_tcp(client_context, server_context) as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send_all, bytes(size))
        receive = receive_on(server)
        sizes: list[int] = []
        while sum(sizes) < size:
            sizes.append(len(await receive(False)))
        assert max(sizes) > REFILL
        assert len(sizes) < size / RECORD / 2


async def test_all_that_goes_over_a_socket_arrives(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """In pieces of all sizes, with pauses: whoever takes of the socket, the order stays."""
    chance = random.Random(2)
    pieces = [chance.randbytes(chance.choice((1, 100, RECORD, 100_000))) for _ in range(150)]
    async with (
        tls_over_tcp(client_context, server_context) as (client, server),
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            for piece in pieces:
                await client.send_all(piece)
                for _ in range(chance.randint(0, 3)):
                    await trio.lowlevel.checkpoint()

        nursery.start_soon(send)
        receive = receive_on(server)
        expected = b"".join(pieces)
        received = bytearray()
        while len(received) < len(expected):
            received += await receive(False)
        assert received == expected
        await server.send_all(b"thanks")
        assert await client.receive_some() == b"thanks"


async def test_many_small_records_of_a_socket(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """More than a read takes come at once, and then nothing."""
    async with tls_over_tcp(client_context, server_context) as (client, server):
        receive = receive_on(server)
        for _ in range(3 * AT_ONCE):
            await client.send_all(b"x")
        received = bytearray()
        while len(received) < 3 * AT_ONCE:
            received += await receive(False)
        assert received == b"x" * 3 * AT_ONCE


async def in_bulk(server: trio.SSLStream[Any], client: trio.SSLStream[Any]) -> Any:
    """A receiver that has found the socket full."""
    receive = receive_on(server)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, bytes(4 * REFILL))
        left = 4 * REFILL
        while left:
            left -= len(await receive(False))
    return receive


async def test_the_end_of_a_socket_in_bulk(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with (
        tls_over_tcp(client_context, server_context) as (client, server),
        trio.open_nursery() as nursery,
    ):
        receive = await in_bulk(server, client)

        async def send() -> None:
            await client.send_all(CONTENT)
            await client.transport_stream.send_eof()

        nursery.start_soon(send)
        received = bytearray()
        with pytest.raises(trio.BrokenResourceError) as caught:
            while True:
                received += await receive(False)
        assert received == CONTENT
        assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_a_socket_that_is_reset_in_bulk(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with tls_over_tcp(client_context, server_context) as (client, server):
        receive = await in_bulk(server, client)
        linger = struct.pack("ii", 1, 0)
        client.transport_stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.transport_stream.socket.close()
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await receive(False)


async def test_what_a_refill_finds_broken_comes_after_what_it_has(
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        tls_over_tcp(client_context, server_context) as (client, server),
        trio.open_nursery() as nursery,
    ):
        receive = await in_bulk(server, client)
        readv, reads = os.readv, 0

        def broken(fd: int, buffers: Any) -> int:
            nonlocal reads
            if reads:
                raise ConnectionResetError("reset")
            size = readv(fd, buffers)
            reads += 1
            return size

        nursery.start_soon(client.send_all, bytes(4 * REFILL))
        monkeypatch.setattr(os, "readv", broken)
        received = 0
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            while True:
                received += len(await receive(False))
        assert received > 0
        nursery.cancel_scope.cancel()


async def test_a_sender_that_has_to_receive_ends_it(engines: Engines) -> None:
    """Both would take of the socket, and what the other has taken must come first."""

    class Renegotiating:
        def write(self, data: bytes) -> int:
            raise ssl.SSLWantReadError

    near: Any
    async with tcp_pair() as (near, _):
        records = ManyRecords(Renegotiating(), ssl.MemoryBIO(), ssl.MemoryBIO())  # type: ignore[arg-type]
        records.take_from(near.socket, memoryview(bytearray(1)))
        with pytest.raises(ssl.SSLWantReadError):
            records.write(b"x")
        assert records._socket is None


async def test_other_transports_and_other_tls_are_read_as_before(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    near, far = streams(*memory_stream_pair(), client_context, server_context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, CONTENT)
        receive = receive_on(far)  # long reads, and no socket
        received = bytearray()
        while len(received) < len(CONTENT):
            received += await receive(False)
        assert received == CONTENT
        nursery.start_soon(far.send_all, CONTENT)
        receive = receive_on(near)  # no long reads
        first = bytes(await receive(False))
        assert len(first) <= RECORD
        assert first + await read_exactly(near, len(CONTENT) - len(first)) == CONTENT


# ---- sessions


@pytest.mark.parametrize("wire", ["v1", "v2"])
async def test_a_session_over_tls(
    wire: Any, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    content = random.Random(3).randbytes(3_000_000)

    async def echo(stream: MuxadoStream) -> None:
        while chunk := await stream.receive_some():
            await stream.send_all(chunk)

    async def serve(session: MuxadoSession) -> None:
        await session.serve_streams(echo)

    async with trio.open_nursery() as nursery:
        listeners: Any = await nursery.start(
            lambda task_status: serve_muxado(
                serve,
                0,
                host="127.0.0.1",
                ssl_context=server_context,
                task_status=task_status,
            )
        )
        port = listeners[0].transport_listener.socket.getsockname()[1]
        config = MuxadoConfig(wire=wire)
        async with open_muxado_session(
            "localhost", port, ssl_context=client_context, config=config
        ) as session:
            stream = await session.open_stream()
            nursery.start_soon(stream.send_all, content)
            assert await read_exactly(stream, len(content)) == content
            transport: Any = session.transport_stream
            assert transport.version() == server_context.maximum_version.name.replace("_", ".")
        nursery.cancel_scope.cancel()
