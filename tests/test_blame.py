"""What a handler raises: the end of its stream, which ends it alone, or an error of its own."""

import sys
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_muxado import MuxadoStream, OpenStreamError, StreamResetError
from trio_muxado._nursery import leaves

from .helpers import Kind, each_wire, session_pair

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


def as_it_is(error: Exception) -> Exception:
    return error


def adapted(error: Exception) -> Exception:
    raised = LookupError("as an adapter raises it")
    raised.__cause__ = error
    return raised


def in_groups(error: Exception) -> Exception:
    return ExceptionGroup("outer", [ExceptionGroup("inner", [error, adapted(error)])])


def without_its_cause(error: Exception) -> Exception:
    return trio.BrokenResourceError("as SSLStream raises it once it has heard of the break")


@pytest.mark.parametrize("wrapped", [as_it_is, adapted, in_groups, without_its_cause])
@each_wire
async def test_the_end_of_its_stream_ends_a_handler_and_nothing_else(
    kind: Kind, wrapped: Callable[[Exception], Exception]
) -> None:
    ended: list[int] = []

    async def handler(stream: MuxadoStream) -> None:
        try:
            await stream.send_all(await stream.receive_some())
        except StreamResetError as error:
            ended.append(stream.id)
            raise wrapped(error)  # noqa: B904

    async with session_pair(kind) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_streams, handler)
        other = await client.open_stream()
        victim = await client.open_stream()
        await wait_all_tasks_blocked()
        await victim.reset()
        await wait_all_tasks_blocked()
        assert ended == [victim.id]
        for stream in (other, await client.open_stream()):
            await stream.send_all(b"served")
            assert await stream.receive_some() == b"served"
        await client.aclose()


async def use_a_stream_that_broke(mine: MuxadoStream, other: MuxadoStream) -> None:
    await other.wait_broken()
    await other.receive_some()


async def open_a_stream(mine: MuxadoStream, other: MuxadoStream) -> None:
    await mine.session.open_stream()


async def use_something_else_that_broke(mine: MuxadoStream, other: MuxadoStream) -> None:
    raise trio.BrokenResourceError("of something else")


@pytest.mark.parametrize("wrapped", [as_it_is, adapted, in_groups])
@pytest.mark.parametrize(
    "work, kind_of_error",
    [
        (use_a_stream_that_broke, StreamResetError),
        (open_a_stream, OpenStreamError),
        (use_something_else_that_broke, trio.BrokenResourceError),
    ],
)
@each_wire
async def test_what_else_ends_while_its_stream_lives_is_an_error_of_the_handler(
    kind: Kind,
    work: Callable[[MuxadoStream, MuxadoStream], Awaitable[None]],
    kind_of_error: type[Exception],
    wrapped: Callable[[Exception], Exception],
) -> None:
    """Also what the same session raises, as long as that goes on."""
    streams: list[MuxadoStream] = []
    raised: list[Exception] = []

    async def handler(stream: MuxadoStream) -> None:
        streams.append(stream)
        if len(streams) == 1:
            await trio.sleep_forever()
        try:
            await work(stream, streams[0])
        except kind_of_error as error:
            raised.append(wrapped(error))
            raise raised[0]  # noqa: B904

    async with session_pair(kind) as (client, server), trio.open_nursery() as nursery:
        caught: list[BaseException] = []

        async def serve() -> None:
            try:
                await server.serve_streams(handler)
            except Exception as error:
                caught.append(error)

        nursery.start_soon(serve)
        other = await client.open_stream()
        await wait_all_tasks_blocked()
        await other.reset()
        await client.goaway()
        await wait_all_tasks_blocked()
        mine = await client.open_stream()
        await wait_all_tasks_blocked()
        (error,), (own,) = caught, raised
        assert list(leaves(error)) == list(leaves(own))
        assert (await mine.wait_broken()).code is not None
        nursery.cancel_scope.cancel()
