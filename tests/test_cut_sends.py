"""What a send_all has left unsent is never followed by an end, whoever closes the stream."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_muxado import ErrorCode, MuxadoStream, StreamClosedError, StreamResetError

from .helpers import Kind, each_wire, outcome_of, read_all, session_pair, stream_pair

LONG = bytes(range(256)) * 20_000
Buffer = bytes | bytearray

each_buffer = pytest.mark.parametrize("buffer", [bytes, bytearray], ids=["bytes", "bytearray"])
each_size = pytest.mark.parametrize("size", [1, 9_000, len(LONG)])


async def is_cut(stream: MuxadoStream) -> None:
    with pytest.raises(StreamResetError) as caught:
        await read_all(stream)
    assert caught.value.code is ErrorCode.STREAM_CANCELLED


async def is_whole_or_cut(stream: MuxadoStream, content: bytes) -> None:
    result = await outcome_of(partial(read_all, stream))
    if isinstance(result, StreamResetError):
        assert result.code is ErrorCode.STREAM_CANCELLED
    else:
        assert result == content


async def begin(stream: MuxadoStream) -> None:
    await stream.send_all(b"the first part")


@each_size
@each_buffer
@each_wire
async def test_a_send_cancelled_before_it_began_is_a_part_that_is_missing(
    kind: Kind, buffer: Callable[[bytes], Buffer], size: int
) -> None:
    async with stream_pair(kind) as (near, far):
        await begin(near)
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.send_all(buffer(LONG[:size]))
        assert scope.cancelled_caught
        await near.aclose()
        await is_cut(far)


@each_wire
async def test_nothing_that_was_cancelled_is_missing(kind: Kind) -> None:
    async with stream_pair(kind) as (near, far):
        await begin(near)
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.send_all(b"")
        await near.aclose()
        assert await read_all(far) == b"the first part"


@each_size
@each_buffer
@each_wire
async def test_a_cancelled_send_on_a_closed_stream_takes_nothing_back(
    kind: Kind, buffer: Callable[[bytes], Buffer], size: int
) -> None:
    async with stream_pair(kind) as (near, far):
        await begin(near)
        near._close_now()
        with trio.CancelScope() as scope:
            scope.cancel()
            with suppress(StreamClosedError):  # which of the two comes first does not matter
                await near.send_all(buffer(LONG[:size]))
        assert await read_all(far) == b"the first part"


@each_wire
async def test_who_ends_a_stream_after_a_cancelled_send_says_that_this_is_all(kind: Kind) -> None:
    async with stream_pair(kind) as (near, far):
        await begin(near)
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.send_all(b"lost")
        await near.send_eof()
        await near.aclose()
        assert await read_all(far) == b"the first part"


async def close(stream: MuxadoStream) -> None:
    with trio.CancelScope(shield=True):
        await stream.aclose()


async def be_idle(stream: MuxadoStream) -> None:
    stream.idle = True
    opening = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_another, stream, opening)
        await wait_all_tasks_blocked()
        opening.cancel()


async def open_another(stream: MuxadoStream, scope: trio.CancelScope) -> None:
    with scope:
        await stream.session.open_stream()


@pytest.mark.parametrize("end", [close, be_idle])
@each_size
@each_buffer
@each_wire
async def test_a_stream_closed_in_the_turn_in_which_its_sender_is_cancelled(
    kind: Kind,
    buffer: Callable[[bytes], Buffer],
    size: int,
    end: Callable[[MuxadoStream], Awaitable[None]],
) -> None:
    """The sender has not run yet when the stream is closed: it is whole or broken."""
    content = LONG[:size]
    async with stream_pair(kind, max_outbound_streams=1) as (near, far):
        await begin(near)
        started = trio.Event()

        async def send() -> None:
            started.set()
            await near.send_all(buffer(content))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await started.wait()
            if size == len(LONG):
                await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await end(near)
        await is_whole_or_cut(far, b"the first part" + content)


@each_buffer
@each_wire
async def test_a_stream_closed_while_another_task_sends(
    kind: Kind, buffer: Callable[[bytes], Buffer]
) -> None:
    async with stream_pair(kind) as (near, far):

        async def send() -> None:
            with pytest.raises(StreamClosedError):
                await near.send_all(buffer(LONG))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await near.aclose()
            await is_whole_or_cut(far, LONG)


@each_buffer
@each_wire
async def test_a_handler_that_returns_after_a_cancelled_send(
    kind: Kind, buffer: Callable[[bytes], Buffer]
) -> None:
    async with session_pair(kind) as (client, server):
        blocked = trio.CancelScope()

        async def handle(stream: MuxadoStream) -> None:
            with blocked:
                await stream.send_all(buffer(LONG))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_streams, handle)
            stream = await client.open_stream()
            await stream.send_all(b"request")
            await wait_all_tasks_blocked()
            blocked.cancel()
            await is_cut(stream)
            await client.aclose()
