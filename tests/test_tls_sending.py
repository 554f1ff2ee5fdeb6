"""TLS written in one step: in order, whole, and by trio's stream where that must be."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from trio_muxado import MuxadoStream
from trio_muxado._protocol.byte_queue import Buffer
from trio_muxado._transport.receiving import TlsSource
from trio_muxado._transport.sending import ENCRYPTED, BatchSender
from trio_muxado._transport.tls import AT_ONCE, ManyRecords, tls_over_socket, with_long_reads

from .helpers import Kind, each_wire, read_exactly, session_pair, tls_pair

CONTENT = random.Random(1).randbytes(1_000_000)


@asynccontextmanager
async def streams(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> AsyncGenerator[tuple[Any, Any], None]:
    async with tls_pair(with_long_reads(client_context), with_long_reads(server_context)) as pair:
        yield pair


async def send(sender: BatchSender, data: bytes) -> bool:
    """As the frame writer does; whether it was sent at once."""
    batch: list[Buffer] = [data[: len(data) // 2], data[len(data) // 2 :]]
    if sender.send_now(batch, len(data)):
        assert batch == []
        return True
    await sender.send(batch)
    return False


async def test_all_but_the_first_batch_is_sent_at_once(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """With the first goes what trio's stream has kept of the handshake."""
    async with streams(client_context, server_context) as pair:
        for near, far in (pair, reversed(pair)):
            sender = BatchSender(near)
            assert not await send(sender, b"first")
            assert await send(sender, b"second")
            assert await send(sender, b"third")
            assert await read_exactly(far, 16) == b"firstsecondthird"


async def test_what_a_socket_does_not_take_follows_in_order(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with streams(client_context, server_context) as (near, far):
        near.transport_stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sender = BatchSender(near)
        at_once: list[bool] = []

        async def send_all() -> None:
            for start in range(0, len(CONTENT), 100_000):
                at_once.append(await send(sender, CONTENT[start : start + 100_000]))
                at_once.append(await send(sender, b"small"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all)
            for start in range(0, len(CONTENT), 100_000):
                assert await read_exactly(far, 100_000) == CONTENT[start : start + 100_000]
                assert await read_exactly(far, 5) == b"small"
        assert not all(at_once[1:])
        assert any(at_once)


class Records:
    """Encrypts nothing.  What it is given to read makes it write."""

    def __init__(self, outgoing: ssl.MemoryBIO) -> None:
        self._outgoing = outgoing
        self.broken = False

    def write(self, data: bytes) -> int:
        if self.broken:
            raise ssl.SSLError("broken")
        return self._outgoing.write(data)

    def read(self, size: int) -> bytes:
        self._outgoing.write(b"alert")
        return b"read"


@pytest.fixture
def outgoing() -> ssl.MemoryBIO:
    return ssl.MemoryBIO()


@pytest.fixture
def records(outgoing: ssl.MemoryBIO) -> ManyRecords:
    records = ManyRecords(Records(outgoing), ssl.MemoryBIO(), outgoing)  # type: ignore[arg-type]
    records.write(b"first")
    outgoing.read()
    return records


def full_socket() -> tuple[trio.socket.SocketType, socket.socket]:
    """One that takes a part of what is large, and who reads it."""
    near, far = socket.socketpair()
    near.setblocking(False)
    return trio.socket.from_stdlib_socket(near), far


def test_what_the_reader_sends_stays_in_order(
    records: ManyRecords, outgoing: ssl.MemoryBIO
) -> None:
    """It takes what is unsent along, and all that follows goes the way that it goes."""
    near, far = full_socket()
    with near, far:
        content = CONTENT * 2
        assert records.send_now(content, near) is False
        assert records.read(1) == b"read"
        rest = outgoing.read()  # as trio's stream does after it has read
        taken = len(content) - len(rest) + len(b"alert")
        assert rest == content[taken:] + b"alert"
        assert records.write(ENCRYPTED) == len(ENCRYPTED)  # the frame writer's next call
        assert outgoing.pending == 0
        assert records.send_now(b"more", near) is None
        assert records.write(b"more") == 4
        assert outgoing.read() == b"more"


async def test_what_a_read_has_made_is_sent_by_trio(records: ManyRecords) -> None:
    """So it is asked for what comes next: before that it sends."""
    near, far = full_socket()
    instead, peer = memory_stream_pair()
    with near, far:
        records.take_from(near, memoryview(bytearray(9)))
        source = TlsSource(instead, records, near)
        far.send(b"x")
        await source.wait(False)
        assert source.take() == b"read" * AT_ONCE
        await peer.send_all(b"from trio")
        await source.wait(False)
        assert source.take() == b"from trio"


def test_a_socket_that_takes_nothing(records: ManyRecords, outgoing: ssl.MemoryBIO) -> None:
    near, far = full_socket()
    with near, far:
        while records.send_now(CONTENT, near):
            pass
        records.write(ENCRYPTED)
        outgoing.read()
        assert records.send_now(b"more", near) is False
        records.write(ENCRYPTED)
        assert outgoing.read() == b"more"


def test_what_is_not_encrypted_is_left_to_trio(records: ManyRecords) -> None:
    """It raises what it has always raised."""
    records._inner.broken = True  # type: ignore[attr-defined]
    near, far = full_socket()
    with near, far:
        assert records.send_now(b"x", near) is None
    with pytest.raises(ssl.SSLError):
        records.write(b"x")


def test_a_socket_that_is_broken(records: ManyRecords) -> None:
    near, far = full_socket()
    far.close()
    with near, pytest.raises(trio.BrokenResourceError) as caught:
        records.send_now(b"x", near)
    assert isinstance(caught.value.__cause__, BrokenPipeError)


async def test_other_tls_is_sent_as_before(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with tls_pair(client_context, server_context) as (near, far):
        assert tls_over_socket(near) is None
        sender = BatchSender(near)
        assert not sender.sends_now
        for _ in range(2):
            assert not await send(sender, b"same")
        assert await read_exactly(far, 8) == b"samesame"


@each_wire
async def test_requests_over_tls_pass_by_trios_stream(
    kind: Kind,
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow: list[str] = []
    tls: Any = trio.SSLStream
    send_all, receive_some = tls.send_all, tls.receive_some

    async def sent(stream: Any, data: bytes) -> None:
        slow.append("sent")
        await send_all(stream, data)

    async def received(stream: Any, size: int) -> bytes:
        slow.append("received")
        data: bytes = await receive_some(stream, size)
        return data

    async def answer(stream: MuxadoStream) -> None:
        await stream.send_all(await read_exactly(stream, 4))

    monkeypatch.setattr(tls, "send_all", sent)
    monkeypatch.setattr(tls, "receive_some", received)
    async with (
        streams(client_context, server_context) as pair,
        session_pair(kind, transports=pair, heartbeat=None) as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(server.serve_streams, answer)
        for _ in range(10):
            async with await client.open_stream() as stream:
                await stream.send_all(b"ping")
                await stream.send_eof()
                assert await read_exactly(stream, 4) == b"ping"
        assert slow == ["sent"] * 2  # the first of each side
        nursery.cancel_scope.cancel()
