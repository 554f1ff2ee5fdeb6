"""A batch reaches the transport whole and in order, copied or not."""

from __future__ import annotations

import os
import random
import socket
from types import SimpleNamespace

import pytest
import trio

from trio_muxado._protocol.byte_queue import Buffer
from trio_muxado._transport import sending
from trio_muxado._transport.sending import GATHER_FROM, MAX_BUFFERS, BatchSender

from .helpers import Transport, read_exactly, socket_pair


def socket_streams() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a socket whose buffers are small: nothing large is taken at once."""
    near, far = socket_pair()
    for stream in (near, far):
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            stream.setsockopt(socket.SOL_SOCKET, option, 4096)
    return near, far


def buffers(count: int, largest: int) -> list[Buffer]:
    chance = random.Random(1)
    kinds = (bytes, bytearray, memoryview)
    return [
        chance.choice(kinds)(chance.randbytes(chance.randint(1, largest))) for _ in range(count)
    ]


async def send(transport: trio.abc.Stream, batch: list[Buffer]) -> None:
    """As the frame writer does."""
    sender = BatchSender(transport)
    if not sender.send_now(batch, sum(map(len, batch))):
        await sender.send(batch)


@pytest.mark.parametrize(
    "count, largest",
    [(1, GATHER_FROM - 1), (10, 5), (40, 30_000), (MAX_BUFFERS, 2000), (MAX_BUFFERS + 1, 2000)],
)
async def test_all_of_a_batch_arrives_in_order(count: int, largest: int) -> None:
    batch = buffers(count, largest)
    expected = b"".join(batch)
    near, far = socket_streams()
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(send, near, batch)
        assert await read_exactly(far, len(expected)) == expected


@pytest.mark.parametrize("size", [10, 2 * GATHER_FROM])
async def test_what_a_socket_takes_at_once_needs_no_wait(size: int) -> None:
    near, far = socket_pair()
    async with near, far:
        batch: list[Buffer] = [bytes(size // 2), bytes(size // 2)]
        assert BatchSender(near).send_now(batch, size)
        assert batch == []
        assert await read_exactly(far, size) == bytes(size)


async def test_what_a_socket_does_not_take_at_once_is_left() -> None:
    near, far = socket_streams()
    async with near, far, trio.open_nursery() as nursery:
        sender = BatchSender(near)
        batch: list[Buffer] = [bytes(GATHER_FROM), b"x" * GATHER_FROM]
        assert not sender.send_now(batch, 2 * GATHER_FROM)
        taken = 2 * GATHER_FROM - sum(map(len, batch))
        assert taken > 0
        assert not sender.send_now([b"not even a byte"], 15)
        nursery.start_soon(sender.send, batch)
        expected = bytes(GATHER_FROM) + b"x" * GATHER_FROM
        assert await read_exactly(far, len(expected)) == expected


async def test_the_parts_that_a_socket_takes_are_counted_but_for_the_last() -> None:
    near, far = socket_streams()
    async with near, far, trio.open_nursery() as nursery:
        sender = BatchSender(near)
        assert sender.send_now([b"all"], 3)
        assert sender.parts == 0
        batch: list[Buffer] = [bytes(2 * GATHER_FROM)]
        assert not sender.send_now(batch, 2 * GATHER_FROM)
        assert not sender.send_now([b"not even a byte"], 15)
        assert sender.parts == 1
        nursery.start_soon(sender.send, batch)
        await read_exactly(far, 3 + 2 * GATHER_FROM)
    assert sender.parts > 1


async def test_a_large_batch_is_handed_over_uncopied(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[object] = []
    near, far = socket_streams()
    writev = os.writev

    def spy(fd: int, buffers: list[bytes]) -> int:
        handed.extend(buffers)
        return writev(fd, buffers)

    monkeypatch.setattr(os, "writev", spy)
    chunks: list[Buffer] = [bytes(GATHER_FROM), b"x", bytes(GATHER_FROM)]
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(send, near, [*chunks])
        await read_exactly(far, 2 * GATHER_FROM + 1)
    assert all(one is other for one, other in zip(handed, chunks, strict=False))


class Recording(Transport):
    """Keeps what is sent."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        super().__init__(inner)
        self.sent: list[bytes] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))


async def test_other_transports_get_a_batch_in_one_piece() -> None:
    """TLS, and whatever else a user puts between."""
    near, far = socket_streams()
    async with near, far:
        transport = Recording(near)
        await send(transport, [b"a" * GATHER_FROM, b"b"])
    assert transport.sent == [b"a" * GATHER_FROM + b"b"]


async def test_a_system_without_writev_sends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket_streams()
    monkeypatch.setattr(sending, "os", SimpleNamespace())
    async with near, far, trio.open_nursery() as nursery:
        batch: list[Buffer] = [b"a" * GATHER_FROM, b"b"]
        nursery.start_soon(send, near, batch)
        assert await read_exactly(far, GATHER_FROM + 1) == b"a" * GATHER_FROM + b"b"


async def test_a_peer_that_is_gone_is_an_error() -> None:
    near, far = socket_streams()
    await far.aclose()
    async with near:
        with pytest.raises((OSError, trio.BrokenResourceError)):
            for _ in range(2):
                await send(near, [bytes(GATHER_FROM)])
