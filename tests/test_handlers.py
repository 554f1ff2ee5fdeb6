"""What MuxadoSession promises of serving: a handler for each stream, and what it may do wrong."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoSession,
    MuxadoStream,
    NoMoreStreamsError,
    SessionEndedError,
    StreamClosedError,
    StreamResetError,
    serve_muxado_listeners,
)

from .helpers import (
    V1,
    Kind,
    each_kind,
    each_wire,
    echo,
    outcome_of,
    raw_session,
    read_all,
    session_pair,
)


@each_kind
async def test_serve_streams_runs_a_handler_for_each(kind: Kind) -> None:
    async with session_pair(kind) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_streams, echo)

        async def call(number: int) -> None:
            async with await client.open_stream() as stream:
                content = bytes([number]) * 10_000
                await stream.send_all(content)
                await stream.send_eof()
                assert await read_all(stream) == content

        async with trio.open_nursery() as callers:
            for number in range(20):
                callers.start_soon(call, number)
        await client.aclose()  # serve_streams returns then, and the nursery can end


def names_of_tasks(root: trio.lowlevel.Task | None) -> list[str]:
    assert root is not None
    tasks = [root]
    for task in tasks:
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return [task.name for task in tasks]


class EchoObject:
    """A handler that is no function."""

    async def __call__(self, stream: MuxadoStream) -> None:
        await echo(stream)

    def __repr__(self) -> str:
        return "EchoObject()"


async def echo_with(_: str, stream: MuxadoStream) -> None:
    await echo(stream)


@pytest.mark.parametrize(
    "handler, name",
    [
        pytest.param(echo, f"{echo.__module__}.echo", id="function"),
        pytest.param(partial(echo_with, "a"), f"{__name__}.echo_with", id="partial"),
        pytest.param(EchoObject(), "EchoObject()", id="object"),
    ],
)
@each_wire
async def test_tasks_have_the_names_of_what_they_run(
    kind: Kind, handler: Callable[[MuxadoStream], Awaitable[None]], name: str
) -> None:
    """Whoever looks at the tree of tasks sees handlers, and the session's own by what they do."""
    async with session_pair(kind) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_streams, handler)
        await client.open_stream()
        await wait_all_tasks_blocked()
        names = names_of_tasks(trio.lowlevel.current_root_task())
        assert names.count(name) == 1
        assert names.count("trio_muxado._writer.FrameWriter.run") == 2
        nursery.cancel_scope.cancel()


@each_wire
async def test_serve_streams_waits_for_its_handlers(kind: Kind) -> None:
    done: list[bytes] = []

    async def handler(stream: MuxadoStream) -> None:
        while not await outcome_of(stream.receive_some):
            pass
        await trio.lowlevel.checkpoint()
        done.append(b"done")

    for closer in ("client", "server"):
        async with session_pair(kind) as (client, server), trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_streams, handler)
            await client.open_stream()
            await wait_all_tasks_blocked()
            await (client if closer == "client" else server).aclose()
    assert done == [b"done"] * 2


@each_wire
async def test_serve_streams_raises_when_the_session_breaks(kind: Kind) -> None:
    cancelled: list[int] = []

    async def handler(stream: MuxadoStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(stream.id)

    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        peer.end()
        with pytest.raises(SessionEndedError):
            await session.serve_streams(handler)
    assert cancelled == [3]


async def hit_a_bug(stream: MuxadoStream) -> None:
    raise LookupError("a bug")


async def break_something_else(stream: MuxadoStream) -> None:
    raise trio.BrokenResourceError("of something else")


async def use_a_closed_stream(stream: MuxadoStream) -> None:
    await stream.aclose()
    await stream.receive_some()


@each_wire
@pytest.mark.parametrize(
    "bug, kind_of_error",
    [
        (hit_a_bug, LookupError),
        (break_something_else, trio.BrokenResourceError),
        (use_a_closed_stream, StreamClosedError),
    ],
)
async def test_a_bug_in_a_handler_comes_out_bare(
    kind: Kind,
    bug: Callable[[MuxadoStream], Awaitable[None]],
    kind_of_error: type[Exception],
) -> None:
    async def handler(stream: MuxadoStream) -> None:
        if await stream.receive_some() == b"go":
            await bug(stream)

    async with session_pair(kind) as (client, server):
        bystander = await client.open_stream()
        await bystander.send_all(b"wait")
        culprit = await client.open_stream()
        await culprit.send_all(b"go")
        with pytest.raises(kind_of_error) as caught:
            await server.serve_streams(handler)
        assert type(caught.value) is kind_of_error
        if bug is not use_a_closed_stream:
            with pytest.raises(StreamResetError) as reset:
                await culprit.receive_some()
            assert reset.value.code is ErrorCode.INTERNAL_ERROR
        # The session lives, and what the others did is up to them: they were just cancelled.
        await client.ping() if kind is V1 else None
        assert await outcome_of(bystander.receive_some) is not None


@each_wire
async def test_a_cancelled_handler_resets_its_stream(kind: Kind) -> None:
    async def handler(stream: MuxadoStream) -> None:
        await trio.sleep_forever()

    async with session_pair(kind) as (client, server):
        stream = await client.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_streams, handler)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with pytest.raises(StreamResetError) as caught:
            await stream.receive_some()
        assert caught.value.code is ErrorCode.STREAM_CANCELLED
        # Another may take over.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_streams, echo)
            stream = await client.open_stream()
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            nursery.cancel_scope.cancel()


@each_wire
async def test_several_bugs_at_once_are_a_group(kind: Kind) -> None:
    ready = trio.Event()

    async def handler(stream: MuxadoStream) -> None:
        try:
            await ready.wait()
        finally:
            raise LookupError(stream.id)

    async with session_pair(kind) as (client, server):
        await client.open_stream()
        await client.open_stream()
        await wait_all_tasks_blocked()
        outcomes: list[Any] = []

        async def serve() -> None:
            outcomes.append(await outcome_of(lambda: server.serve_streams(handler)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await wait_all_tasks_blocked()
            ready.set()
        (group,) = outcomes
        assert [type(error) for error in group.exceptions] == [LookupError] * 2


@each_wire
async def test_what_a_handler_leaves_behind_is_told_that_the_stream_is_closed(kind: Kind) -> None:
    """A handler may hand its stream to a task of another nursery, and return or crash."""

    async def return_at_once(stream: MuxadoStream) -> None:
        streams.append(stream)

    async def crash_at_once(stream: MuxadoStream) -> None:
        streams.append(stream)
        raise LookupError("a bug")

    for handler in (return_at_once, crash_at_once):
        streams: list[MuxadoStream] = []
        outcomes: list[Any] = []
        async with session_pair(kind) as (client, server), trio.open_nursery() as outer:

            async def serve(
                server: MuxadoSession = server,
                handler: Callable[[MuxadoStream], Awaitable[None]] = handler,
            ) -> None:
                await outcome_of(lambda: server.serve_streams(handler))

            async def receive(
                streams: list[MuxadoStream] = streams, outcomes: list[Any] = outcomes
            ) -> None:
                outcomes.append(await outcome_of(streams[0].receive_some))

            stream = await client.open_stream()
            await wait_all_tasks_blocked()
            outer.start_soon(serve)
            while not streams:
                await trio.lowlevel.checkpoint()
            outer.start_soon(receive)
            await wait_all_tasks_blocked()
            assert type(outcomes[0]) is StreamClosedError
            await outcome_of(stream.receive_some)
            await client.aclose()


@each_wire
async def test_a_session_is_a_listener(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, echo, [server])
            stream = await client.open_stream()
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            nursery.cancel_scope.cancel()
        # trio closes a listener that it has served, at once when cancelled.
        assert (await server.wait_closed()).initiator == "local"


@each_wire
async def test_a_running_handler_keeps_its_stream_s_place(kind: Kind) -> None:
    """A peer cannot have more handlers running than streams, by ending its streams early."""
    may_end = trio.Event()
    running: list[MuxadoStream] = []

    async def handle(stream: MuxadoStream) -> None:
        running.append(stream)
        async for _ in stream:
            pass
        await stream.send_eof()  # the stream is over, the handler is not
        await may_end.wait()

    async with (
        session_pair(kind, heartbeat=None, server={"max_inbound_streams": 2}) as (client, server),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(server.serve_streams, handle)
        refused = 0
        for _ in range(10):
            stream = await client.open_stream()
            await stream.send_eof()
            outcome = await outcome_of(stream.receive_some)
            if isinstance(outcome, StreamResetError) and outcome.safe_to_retry:
                refused += 1
        assert (len(running), refused) == (2, 8)
        may_end.set()
        await wait_all_tasks_blocked()
        stream = await client.open_stream()
        await stream.send_eof()
        assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_an_error_of_a_listener_leaves_the_server_bare() -> None:
    async def handle(session: MuxadoSession) -> None:
        raise AssertionError("nothing connects")

    async with session_pair(V1) as (client, server):
        await client.aclose()
        with pytest.raises(NoMoreStreamsError):
            await serve_muxado_listeners(handle, [server])
