"""What is cancelled never looks complete: not to the peer's stream, nor to its session."""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoSession,
    MuxadoStream,
    SessionEndedError,
    StreamResetError,
    client_session,
    server_session,
)
from trio_muxado._ending import CLOSED_HERE

from .helpers import Kind, each_wire, read_all, session_pair, tcp_pair

STEPS = range(1, 8)
"""Turns of trio's loop after which somebody is cancelled: more than any of these calls takes."""


class NoHalfClose(trio.abc.Stream):
    """A transport of which only both directions can be closed."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self._below = below

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._below.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._below.aclose()


@pytest.fixture(params=["memory", "tcp", "tls", "no half-close"])
def over(
    request: pytest.FixtureRequest,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> Callable[[], Any]:
    @asynccontextmanager
    async def transports() -> AsyncGenerator[tuple[Any, Any], None]:
        if request.param == "memory":
            yield memory_stream_pair()
        elif request.param == "no half-close":
            first, second = memory_stream_pair()
            yield NoHalfClose(first), NoHalfClose(second)
        else:
            async with tcp_pair() as (near, far):
                if request.param == "tcp":
                    yield near, far
                    return
                yield (
                    trio.SSLStream(near, client_context, server_hostname="localhost"),
                    trio.SSLStream(far, server_context, server_side=True),
                )

    return transports


@asynccontextmanager
async def streams(
    kind: Kind, over: Callable[[], Any]
) -> AsyncGenerator[tuple[MuxadoStream, MuxadoStream], None]:
    async with over() as transports, session_pair(kind, transports=transports) as (client, server):
        near = await client.open_stream()
        await near.send_all(b"the first half")
        far = await server.accept_stream()
        assert await far.receive_some() == b"the first half"
        yield near, far


async def leave_by_an_error(near: MuxadoStream) -> None:
    with pytest.raises(KeyError):
        async with near:
            raise KeyError


async def end_and_leave_by_an_error(near: MuxadoStream) -> None:
    with pytest.raises(KeyError):
        async with near:
            await near.send_eof()
            raise KeyError


async def leave_cancelled(near: MuxadoStream) -> None:
    with trio.CancelScope() as scope:
        async with near:
            scope.cancel()
            await trio.lowlevel.checkpoint()


async def close_cancelled(near: MuxadoStream) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await near.aclose()


async def close_by_force(near: MuxadoStream) -> None:
    await trio.aclose_forcefully(near)


async def cut_a_send(near: MuxadoStream) -> None:
    with trio.move_on_after(0.01):
        await near.send_all(bytes(10_000_000))
    await near.aclose()


CODES: dict[Callable[[MuxadoStream], Awaitable[None]], ErrorCode] = {
    leave_by_an_error: ErrorCode.INTERNAL_ERROR,
    leave_cancelled: ErrorCode.STREAM_CANCELLED,
    close_cancelled: ErrorCode.STREAM_CANCELLED,
    close_by_force: ErrorCode.STREAM_CANCELLED,
    cut_a_send: ErrorCode.STREAM_CANCELLED,
}


@pytest.mark.parametrize("end", CODES, ids=lambda end: end.__name__)
@each_wire
async def test_a_stream_that_is_left_in_the_middle_breaks(
    kind: Kind, end: Callable[[MuxadoStream], Awaitable[None]], over: Callable[[], Any]
) -> None:
    async with streams(kind, over) as (near, far):
        await end(near)
        with pytest.raises(StreamResetError) as caught:
            await read_all(far)
        assert caught.value.code is CODES[end]


@each_wire
async def test_an_end_that_is_followed_by_an_error_is_followed_by_a_reset(
    kind: Kind, over: Callable[[], Any]
) -> None:
    """The request was whole, so its end counts; whoever answers hears that nobody waits."""
    async with streams(kind, over) as (near, far):
        await end_and_leave_by_an_error(near)
        await far.wait_broken()
        with pytest.raises(StreamResetError):
            await far.send_all(b"the answer")


@each_wire
async def test_a_stream_that_was_closed_in_the_block_stays_closed(
    kind: Kind, over: Callable[[], Any]
) -> None:
    async with streams(kind, over) as (near, far):
        with pytest.raises(KeyError):
            async with near:
                await near.aclose()
                raise KeyError
        assert await read_all(far) == b""


@pytest.mark.parametrize("steps", STEPS)
@each_wire
async def test_an_upload_cancelled_at_any_step_is_whole_or_broken(
    kind: Kind, steps: int, over: Callable[[], Any]
) -> None:
    content = b"x" * 3
    async with streams(kind, over) as (near, far):
        done = False

        async def upload() -> None:
            nonlocal done
            async with near:
                await near.send_all(content)
                await near.send_eof()
                await near.receive_some()
            done = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert not done
        try:
            received = await read_all(far)
        except StreamResetError:
            return
        assert received == content


@each_wire
async def test_reset_after_close_takes_back_an_end_that_has_not_gone(
    kind: Kind, over: Callable[[], Any]
) -> None:
    async with streams(kind, over) as (near, far):
        near._engine.writer.alone = False  # else it goes in the step of the call
        near._close_now()
        await near.reset(77)
        with pytest.raises(StreamResetError) as caught:
            await read_all(far)
        assert caught.value.code == 77


@each_wire
async def test_reset_after_an_end_that_has_gone_follows_it(
    kind: Kind, over: Callable[[], Any]
) -> None:
    async with streams(kind, over) as (near, far):
        await near.aclose()
        assert await read_all(far) == b""
        await near.reset(77)
        error = await far.wait_broken()
        assert error.code == 77


# ---- the session


async def force(session: MuxadoSession) -> None:
    await trio.aclose_forcefully(session)


async def cancel(session: MuxadoSession) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await session.aclose()


@pytest.mark.parametrize("end", [force, cancel, None])
@each_wire
async def test_a_session_that_is_cancelled_says_nothing(
    kind: Kind, end: Callable[[MuxadoSession], Awaitable[None]] | None, over: Callable[[], Any]
) -> None:
    async with over() as (near, far), server_session(far, config=kind.config()) as server:
        with trio.CancelScope() as scope:
            async with client_session(near, config=kind.config()) as client:
                stream = await client.open_stream()
                await stream.send_all(b"half of it")
                inbound = await server.accept_stream()
                assert await inbound.receive_some() == b"half of it"
                await stream.send_all(b"and more")
                if end is None:
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
                else:
                    await end(client)
        reason = await server.wait_closed()
        assert not reason.clean
        with pytest.raises(SessionEndedError):
            await read_all(inbound)


@each_wire
async def test_a_writer_that_is_about_to_send_sends_nothing_more(
    kind: Kind, over: Callable[[], Any]
) -> None:
    async with over() as (near, far), server_session(far, config=kind.config()) as server:
        async with client_session(near, config=kind.config()) as client:
            async with await client.open_stream() as stream:
                await stream.send_eof()
                async with await server.accept_stream() as inbound:
                    assert await read_all(inbound) == b""
            await wait_all_tasks_blocked(0.01)
            client._engine.steps.goaway(ErrorCode.NO_ERROR, b"")
            client._engine.abort(CLOSED_HERE)
        assert not (await server.wait_closed()).clean


@each_wire
async def test_tls_in_a_stream_that_is_closed_by_force_breaks_for_its_peer(
    kind: Kind, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with session_pair(kind) as (client, server):
        near = trio.SSLStream(
            await client.open_stream(), client_context, server_hostname="localhost"
        )

        async def serve() -> None:
            far = trio.SSLStream(await server.accept_stream(), server_context, server_side=True)
            assert await far.receive_some() == b"half of it"
            with pytest.raises(trio.BrokenResourceError):
                await far.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await near.send_all(b"half of it")
            await wait_all_tasks_blocked()
            await trio.aclose_forcefully(near)
