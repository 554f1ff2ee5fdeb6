"""What comes from the transport reaches its session whole, whoever else reads meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from trio_muxado import MuxadoStream, _reader, client_session, server_session
from trio_muxado._transport import receiving
from trio_muxado._transport.receiving import AT_ONCE, COPY_UP_TO, READ_SIZE, Source, source_of

from .helpers import (
    Kind,
    Transport,
    each_wire,
    raw_session,
    read_all,
    read_exactly,
    receive_on,
    socket_pair,
)

LARGE = b"large" * COPY_UP_TO


async def test_reads_of_a_socket_lie_in_one_buffer() -> None:
    """Of every session: nothing of a read is wanted when the next one comes."""
    near, far = socket_pair()
    other_near, other_far = socket_pair()
    async with near, far, other_near, other_far:
        await far.send_all(LARGE)
        await other_far.send_all(LARGE)
        one, two = await receive_on(near)(False), await receive_on(other_near)(False)
        assert isinstance(one, memoryview)
        assert isinstance(two, memoryview)
        assert one.obj is two.obj
        assert one == LARGE[: len(one)]


async def test_a_small_read_is_bytes_of_its_own() -> None:
    near, far = socket_pair()
    async with near, far:
        receive = receive_on(near)
        await far.send_all(b"a" * COPY_UP_TO)
        first = await receive(False)
        await far.send_all(b"b")
        assert await receive(False) == b"b"
        assert first == b"a" * COPY_UP_TO
        await far.send_eof()
        assert await receive(False) == b""


async def test_a_read_that_finds_nothing_waits_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readable is a hint: somebody else may have been faster, or a checksum was wrong."""
    readv, tries = os.readv, 0

    def at_second_try(fd: int, buffers: tuple[memoryview]) -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise BlockingIOError
        return readv(fd, buffers)

    monkeypatch.setattr(os, "readv", at_second_try)
    near, far = socket_pair()
    async with near, far:
        await far.send_all(b"here")
        assert await receive_on(near)(False) == b"here"
    assert tries == 2


async def test_other_transports_are_asked_as_every_stream_is() -> None:
    """TLS, and whatever else a user puts between."""
    near, far = socket_pair()
    async with near, far:
        await far.send_all(LARGE)
        received = await receive_on(Transport(near))(False)
        assert type(received) is bytes
        assert received == LARGE[: len(received)]


async def test_a_system_without_readv_reads_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "os", SimpleNamespace())
    near, far = socket_pair()
    async with near, far:
        await far.send_all(b"here")
        assert await receive_on(near)(False) == b"here"


async def test_a_transport_that_was_closed_is_an_error() -> None:
    near, far = socket_pair()
    receive = receive_on(near)
    async with far:
        await near.aclose()
        with pytest.raises((OSError, ValueError, trio.ClosedResourceError)):
            await receive(False)


@pytest.mark.parametrize("others_can_wait", [False, True])
async def test_others_have_their_turn_between_reads_of_bulk(
    monkeypatch: pytest.MonkeyPatch, others_can_wait: bool
) -> None:
    """After each, or after a few, however much the peer has sent."""

    def full(fd: int, buffers: tuple[memoryview]) -> int:
        return len(buffers[0])

    monkeypatch.setattr(os, "readv", full)
    near, far = socket_pair()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with near, far, trio.open_nursery() as nursery:
        await far.send_all(b"here")
        receive = receive_on(near)
        await receive(others_can_wait)
        nursery.start_soon(count)
        reads = 10 * AT_ONCE
        for _ in range(reads):
            await receive(others_can_wait)
        passed = turns
        nursery.cancel_scope.cancel()
    # trio decides who of two tasks goes first, so it may be one more or less.
    expected = reads // AT_ONCE if others_can_wait else reads
    assert abs(passed - expected) <= 2


@each_wire
async def test_only_data_of_another_stream_is_read_without_a_turn_of_the_loop(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    others_could_wait: list[bool] = []

    class Recorded:
        def __init__(self, source: Source) -> None:
            self._source = source
            self._others_can_wait = False

        def __getattr__(self, name: str) -> Any:
            return getattr(self._source, name)

        def wait(self, others_can_wait: bool) -> Awaitable[object] | None:
            self._others_can_wait = others_can_wait
            return self._source.wait(others_can_wait)

        def take(self) -> bytes | memoryview | None:
            others_could_wait.append(self._others_can_wait)
            return self._source.take()

    monkeypatch.setattr(_reader, "source_of", lambda transport: Recorded(source_of(transport)))
    async with raw_session(kind) as (_, peer):
        for frames in (
            [peer.syn(3), peer.syn(5)],
            [peer.data(3, b"a")],
            [peer.data(3, b"b")],
            [peer.data(3, b"c"), peer.data(5, b"d")],
            [peer.data(5, b"e"), peer.data(3, b"f")],
            [peer.data(3, b"g"), peer.data(5, b"h"), peer.data(3, b"i")],
            [peer.wndinc(3, 1)],
        ):
            peer.send(*frames)
            await trio.testing.wait_all_tasks_blocked()
        # Each tells of the read before.
        assert others_could_wait == [False, False, True, False, True, True, False]


@each_wire
async def test_sessions_that_read_at_once_do_not_mix(kind: Kind) -> None:
    """Bulk both ways on four sessions, through one buffer."""
    config = kind.config(heartbeat=None)
    payloads = [random.Random(i).randbytes(4 * READ_SIZE) for i in range(4)]

    async def echo(stream: MuxadoStream) -> None:
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()

    async def transfer(payload: bytes) -> None:
        near, far = socket_pair()
        async with (
            server_session(far, config=config) as server,
            client_session(near, config=config) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(server.serve_streams, echo)
            async with await client.open_stream() as stream, trio.open_nursery() as sending:
                sending.start_soon(stream.send_all, payload)
                assert await read_exactly(stream, len(payload)) == payload
                await stream.send_eof()
                assert await read_all(stream) == b""
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for payload in payloads:
            nursery.start_soon(transfer, payload)
