"""A batch reaches the transport whole and in order, copied or not."""

from __future__ import annotations

import random
import socket
from types import SimpleNamespace

import pytest
import trio

from trio_muxado import _gather
from trio_muxado._gather import GATHER_FROM, MAX_BUFFERS, send_buffers_on
from trio_muxado._protocol.byte_queue import Buffer

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


@pytest.mark.parametrize(
    "count, largest",
    [(1, GATHER_FROM - 1), (10, 5), (40, 30_000), (MAX_BUFFERS, 2000), (MAX_BUFFERS + 1, 2000)],
)
async def test_all_of_a_batch_arrives_in_order(count: int, largest: int) -> None:
    batch = buffers(count, largest)
    expected = b"".join(batch)
    near, far = socket_streams()
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(send_buffers_on(near), batch, len(expected))
        assert await read_exactly(far, len(expected)) == expected


async def test_a_large_batch_is_handed_over_uncopied(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[object] = []
    near, far = socket_streams()
    sendmsg = near.socket.sendmsg

    async def spy(buffers: list[object]) -> int:
        handed.extend(buffers)
        return await sendmsg(buffers)  # type: ignore[arg-type]

    monkeypatch.setattr(near.socket, "sendmsg", spy)
    chunks: list[Buffer] = [bytes(GATHER_FROM), b"x", bytes(GATHER_FROM)]
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(send_buffers_on(near), [*chunks], 2 * GATHER_FROM + 1)
        await read_exactly(far, 2 * GATHER_FROM + 1)
    assert all(one is other for one, other in zip(handed, chunks, strict=False))


async def test_other_transports_get_a_batch_in_one_piece() -> None:
    """TLS, and whatever else a user puts between."""
    sent: list[bytes] = []

    class Recording(Transport):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            sent.append(bytes(data))

    near, far = socket_streams()
    async with near, far:
        await send_buffers_on(Recording(near))([b"a" * GATHER_FROM, b"b"], GATHER_FROM + 1)
    assert sent == [b"a" * GATHER_FROM + b"b"]


async def test_a_system_without_sendmsg_gets_a_batch_in_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, far = socket_streams()

    async def unknown(*args: object) -> int:
        raise AssertionError

    monkeypatch.setattr(_gather, "socket", SimpleNamespace(socket=object))
    monkeypatch.setattr(near.socket, "sendmsg", unknown)
    batch: list[Buffer] = [b"a" * GATHER_FROM, b"b"]
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(send_buffers_on(near), batch, GATHER_FROM + 1)
        assert await read_exactly(far, GATHER_FROM + 1) == b"a" * GATHER_FROM + b"b"


async def test_a_peer_that_is_gone_is_an_error() -> None:
    near, far = socket_streams()
    await far.aclose()
    async with near:
        with pytest.raises((OSError, trio.BrokenResourceError)):
            for _ in range(2):
                await send_buffers_on(near)([bytes(GATHER_FROM)], GATHER_FROM)
