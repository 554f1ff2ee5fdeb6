"""What MuxadoSession promises: opening, accepting, serving, going away, and why it ended."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    CloseReason,
    ErrorCode,
    Heartbeat,
    MuxadoConfig,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    NoMoreStreamsError,
    OpenStreamError,
    SessionClosedError,
    SessionEndedError,
    StreamClosedError,
    StreamResetError,
    TracedFrame,
    client_session,
    serve_muxado_listeners,
    server_session,
)
from trio_muxado._protocol.codec import MAX_STREAM_ID
from trio_muxado._protocol.frames import GoAway, Rst
from trio_muxado._protocol.wire import WIRES

from .helpers import (
    V1,
    V2,
    V2_TYPED,
    Gated,
    Kind,
    RawPeer,
    Recording,
    Turns,
    cancel_at_checkpoint,
    each_kind,
    each_wire,
    echo,
    fill,
    outcome_of,
    raw_session,
    read_all,
    session_pair,
    together,
    with_types,
)

EXTENSION = {"v1": 0xFFFFFF00, "v2-typed": 0xFFFFFFF0}
"""A type of a stream that is no application's."""


# ---- what it shows of itself


@each_kind
async def test_a_session_shows_its_wire_transport_and_config(kind: Kind) -> None:
    near, far = memory_stream_pair()
    config = kind.config()
    async with client_session(near, config=config) as client, server_session(far) as server:
        assert client.transport_stream is near
        assert client.config is config
        assert client.wire == kind.wire
        assert server.wire is None
        number = server._engine.number
        assert repr(server) == f"<MuxadoSession {number} server undetected active>"
        await client.open_stream()
        await server.accept_stream() if not kind.typed else None
        await wait_all_tasks_blocked()
        assert server.wire == kind.wire
        assert repr(server) == f"<MuxadoSession {number} server {kind.wire} active>"
        number = client._engine.number
        assert server._engine.number != number
        assert repr(client) == f"<MuxadoSession {number} client {kind.wire} active>"
    assert repr(client) == f"<MuxadoSession {number} client {kind.wire} ended>"


async def test_a_client_speaks_v1_unless_told_otherwise() -> None:
    near, far = memory_stream_pair()
    async with client_session(near) as client, server_session(far):
        assert client.wire == "v1"


async def test_a_server_can_insist_on_one_generation() -> None:
    async with raw_session(V2, wire="v1") as (session, peer):
        assert session.wire == "v1"
        peer.send(peer.syn(3))
        reason = await session.wait_closed()
        assert (reason.code, reason.initiator) == (ErrorCode.PROTOCOL_ERROR, "local")


@pytest.mark.parametrize(
    "choices",
    [
        {"wire": "v3"},
        {"close_timeout": 0},
        {"send_timeout": -1.0},
        {"handshake_timeout": 0},
        {"half_open_timeout": 0},
        {"send_buffer": 0},
    ],
)
def test_a_config_refuses_nonsense(choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(choices))):
        MuxadoConfig(**choices)


@pytest.mark.parametrize("choices", [{"interval": 0}, {"tolerance": -1}])
def test_a_heartbeat_refuses_nonsense(choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(choices))):
        Heartbeat(**choices)


# ---- opening and accepting


@each_kind
async def test_streams_are_opened_and_accepted_from_both_ends(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        for opener, acceptor in ((client, server), (server, client)) * 2:
            with assert_checkpoints():
                near = await opener.open_stream()
            far = await acceptor.accept_stream()
            assert near.id == far.id
            await far.send_all(b"the acceptor speaks first")
            assert await near.receive_some() == b"the acceptor speaks first"


@with_types
async def test_a_stream_has_the_type_that_it_was_opened_with(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        for stream_type in (0, 1, 0xFFFFFEFE):
            near = await client.open_stream(type=stream_type)
            far = await server.accept_stream()
            assert near.type == far.type == stream_type
            await near.send_all(b"data")
            assert await far.receive_some() == b"data"


@each_kind
@pytest.mark.parametrize(
    "choices", [{"type": -1}, {"type": 2**32}, {"priority": -1}, {"priority": 2**31}]
)
async def test_numbers_out_of_range_are_refused(kind: Kind, choices: dict[str, int]) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, server):
        with pytest.raises(ValueError, match=next(iter(choices))):
            await client.open_stream(**choices)
        await client.open_stream()  # the place is still there
        await server.accept_stream()


async def test_untyped_v2_cannot_carry_a_type() -> None:
    async with session_pair(V2) as (client, _):
        with pytest.raises(ValueError, match="typed"):
            await client.open_stream(type=1)


@each_wire
async def test_many_tasks_may_accept(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        accepted: list[int] = []

        async def accept() -> None:
            accepted.append((await server.accept_stream()).id)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(accept)
            await wait_all_tasks_blocked()
            for _ in range(3):
                await client.open_stream()
        assert sorted(accepted) == [3, 5, 7]


@each_wire
async def test_a_cancelled_accept_takes_no_stream(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        for waiting in (False, True):
            if waiting:
                await client.open_stream()
                await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await server.accept_stream()
            assert scope.cancelled_caught
        assert (await server.accept_stream()).id == 3


@each_wire
async def test_iteration_ends_when_the_peer_closes_in_good_order(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        await client.open_stream()
        await client.open_stream()
        ids: list[int] = []

        async def iterate() -> None:
            ids.extend([stream.id async for stream in server])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(iterate)
            await wait_all_tasks_blocked()
            await client.aclose()
        assert ids == [3, 5]


@each_wire
async def test_iteration_raises_when_the_session_breaks(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        peer.end()
        ids: list[int] = []
        with pytest.raises(SessionEndedError):
            async for stream in session:
                ids.append(stream.id)  # noqa: PERF401  what came before must be there
        assert ids == [3]


@each_wire
async def test_iteration_raises_when_this_end_closes(kind: Kind) -> None:
    async with session_pair(kind) as (_, server):
        outcomes: list[Any] = []

        async def iterate() -> None:
            async for _ in server:
                pass

        async with trio.open_nursery() as nursery:

            async def run() -> None:
                outcomes.append(await outcome_of(iterate))

            nursery.start_soon(run)
            await wait_all_tasks_blocked()
            await server.aclose()
        assert type(outcomes[0]) is SessionClosedError
        assert isinstance(outcomes[0], trio.ClosedResourceError)


# ---- places


@each_wire
async def test_open_stream_waits_for_a_place(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=2) as (client, server):
        first = await client.open_stream()
        await client.open_stream()
        opened: list[int] = []

        async def open_one() -> None:
            opened.append((await client.open_stream()).id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one)
            await wait_all_tasks_blocked()
            nursery.start_soon(open_one)
            await wait_all_tasks_blocked()
            assert not opened
            await first.aclose()
            await wait_all_tasks_blocked()
            assert not opened  # it still waits in the peer's backlog
            async with await server.accept_stream() as peer:
                assert await read_all(peer) == b""
            await wait_all_tasks_blocked()
            assert opened == [7]
            await (await server.accept_stream()).reset()
            await wait_all_tasks_blocked()
            assert opened == [7, 9]


@each_wire
async def test_an_open_that_is_cancelled_takes_no_place(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.open_stream()
        assert scope.cancelled_caught
        first = await client.open_stream()
        assert first.id == 3
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client.open_stream)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await first.reset()
        assert (await client.open_stream()).id == 5
        assert client._engine.connection.streams.outbound.taken == 1


def assert_places(session: MuxadoSession, *, taken: int) -> None:
    """So many streams of this end live, of the one that may; the other places are free."""
    engine = session._engine
    assert engine.connection.streams.outbound.taken == taken
    assert engine.places.free == 1 - taken


@pytest.mark.parametrize("situation", ["a place is free", "no place is free", "no wire is known"])
@each_wire
async def test_an_open_that_is_cancelled_anywhere_takes_no_place(
    kind: Kind, situation: str
) -> None:
    cancelled, number = True, 0
    while cancelled:
        async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, server):
            session = server if situation == "no wire is known" else client
            first = await client.open_stream() if situation == "no place is free" else None
            opened: list[MuxadoStream] = []

            async def open_one(
                session: MuxadoSession = session, opened: list[MuxadoStream] = opened
            ) -> None:
                opened.append(await session.open_stream())

            async def end_the_wait(
                client: MuxadoSession = client, first: MuxadoStream | None = first
            ) -> None:
                await wait_all_tasks_blocked()
                if first is not None:
                    await first.reset()
                elif situation == "no wire is known":
                    await client.open_stream()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_the_wait)
                cancelled = await cancel_at_checkpoint(number, open_one)
            assert len(opened) == (not cancelled)
            assert_places(session, taken=len(opened))
            if cancelled:
                await open_one()
            assert_places(session, taken=1)
            await opened[0].reset()
            assert_places(session, taken=0)
        number += 1
    assert number > (1 if situation == "a place is free" else 2)


@pytest.mark.parametrize("at_once", [True, False])
@each_wire
async def test_a_place_that_comes_free_as_its_opener_is_cancelled_is_not_lost(
    kind: Kind, at_once: bool
) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, _):
        for _ in range(20):
            first = await client.open_stream()
            opened: list[MuxadoStream] = []

            async def open_one(opened: list[MuxadoStream] = opened) -> None:
                opened.append(await client.open_stream())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_one)
                nursery.start_soon(open_one)
                await wait_all_tasks_blocked()
                first._reset_now(ErrorCode.STREAM_CANCELLED)
                if not at_once:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            # The place was handed to one of them before it was cancelled.
            assert len(opened) == 1
            assert_places(client, taken=1)
            await opened[0].reset()
            assert_places(client, taken=0)


@each_wire
async def test_a_free_place_is_taken_whatever_was_cancelled_just_before(kind: Kind) -> None:
    """An opener that was cancelled and has not run yet must hold up nobody behind it.

    The peer's reset frees the place and makes this end send nothing, so nothing else wakes anybody.
    """
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, _):
        engine = client._engine
        for _ in range(20):  # trio decides by chance which of two tasks runs first
            holder = await client.open_stream()
            await wait_all_tasks_blocked()
            opened: list[MuxadoStream] = []
            scopes = trio.CancelScope(), trio.CancelScope()

            async def open_one(
                scope: trio.CancelScope, opened: list[MuxadoStream] = opened
            ) -> None:
                with scope:
                    opened.append(await client.open_stream())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_one, scopes[0])
                await wait_all_tasks_blocked()
                nursery.start_soon(open_one, scopes[1])
                await trio.lowlevel.checkpoint()
                scopes[0].cancel()
                reset = WIRES[kind.wire].rst(holder.id, ErrorCode.STREAM_CANCELLED)
                for event in engine.connection.receive_data(reset, trio.current_time()):
                    engine._handlers[type(event)](event)
                engine.changed()
                with trio.fail_after(1):
                    await wait_all_tasks_blocked()
                assert len(opened) == 1
            await opened[0].reset()
            assert_places(client, taken=0)


@each_wire
async def test_an_open_that_fails_gives_its_place_back(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, _):
        for _ in range(3):
            with pytest.raises(ValueError, match="priority"):
                await client.open_stream(priority=-1)
        await client.open_stream()


@each_wire
async def test_no_bound_on_outbound_streams(kind: Kind) -> None:
    choices: dict[str, Any] = {
        "max_inbound_streams": 1000,
        "accept_backlog": 1000,
        "max_outbound_streams": None,
    }
    async with session_pair(kind, heartbeat=None, **choices) as (client, server):
        for _ in range(300):
            with assert_checkpoints():
                await client.open_stream()
        for number in range(300):
            assert (await server.accept_stream()).id == 3 + 2 * number


@each_wire
async def test_a_server_waits_with_its_streams_until_it_knows_the_wire(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        opened: list[int] = []

        async def open_one() -> None:
            opened.append((await server.open_stream()).id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one)
            await wait_all_tasks_blocked()
            assert not opened
            await client.open_stream()
        assert opened == [2]


@each_wire
async def test_no_more_streams_once_all_ids_are_used(kind: Kind) -> None:
    async with session_pair(kind) as (client, _):
        client._engine.connection.streams._next_id = MAX_STREAM_ID
        with pytest.raises(OpenStreamError) as caught:
            await client.open_stream()
        error = caught.value
        assert (error.code, error.initiator) == (ErrorCode.STREAMS_EXHAUSTED, "local")
        assert error.safe_to_retry


# ---- serving


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
        pytest.param(echo, "tests.helpers.echo", id="function"),
        pytest.param(partial(echo_with, "a"), "tests.test_sessions.echo_with", id="partial"),
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


# ---- extensions


@pytest.mark.parametrize("reserved", [True, False])
@with_types
async def test_extension_streams_go_to_their_handler_and_nowhere_else(
    kind: Kind, reserved: bool
) -> None:
    """Any type will do, also one below the range that is reserved for them."""
    extension = EXTENSION[kind.name] if reserved else 7
    async with session_pair(kind, server={"extensions": {extension: echo}}) as (client, server):
        stream = await client.open_stream(type=extension)
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.send_eof()
        assert await stream.receive_some() == b""
        await client.open_stream(type=1)
        assert (await server.accept_stream()).type == 1


@pytest.mark.parametrize("known", [True, False])
@with_types
async def test_openers_of_extension_streams_wait_for_a_place_like_all(
    kind: Kind, known: bool
) -> None:
    """Whether the opener would serve the type as well or not."""
    running = most = 0

    async def execute(stream: MuxadoStream) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await wait_all_tasks_blocked()
        await stream.send_all(await read_all(stream))
        running -= 1

    async def ask(session: MuxadoSession) -> None:
        async with await session.open_stream(type=7) as stream:
            await stream.send_all(b"x")
            await stream.send_eof()
            assert await read_all(stream) == b"x"

    serving: dict[str, Any] = {"extensions": {7: execute}, "max_extension_streams": 4}
    opening = {**(serving if known else {}), "max_outbound_streams": 4}
    async with session_pair(kind, client=opening, server=serving) as (client, _):
        await together(*[partial(ask, client)] * 20)
        assert most == 4


async def test_an_unknown_extension_is_refused() -> None:
    """On v1: on v2 there is no range for extensions, only the type of heartbeats."""
    async with session_pair(V1) as (client, server):
        stream = await client.open_stream(type=0xFFFFFF00)
        with pytest.raises(StreamResetError) as refused:
            await stream.receive_some()
        assert refused.value.code is ErrorCode.STREAM_CLOSED
        await client.open_stream(type=1)
        assert (await server.accept_stream()).type == 1


@with_types
async def test_a_broken_extension_stream_ends_only_its_handler(kind: Kind) -> None:
    ended: list[str] = []

    async def handler(stream: MuxadoStream) -> None:
        try:
            if stream.type == EXTENSION[kind.name]:
                await stream.receive_some()
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.receive_some)
        finally:
            ended.append("ended")

    extensions = {EXTENSION[kind.name]: handler, EXTENSION[kind.name] + 1: handler}
    async with session_pair(kind, server={"extensions": extensions}) as (client, server):
        for extension in extensions:
            stream = await client.open_stream(type=extension)
            await wait_all_tasks_blocked()
            await stream.reset()
            await wait_all_tasks_blocked()
        assert ended == ["ended"] * 2
        await client.open_stream()
        await server.accept_stream()


@pytest.mark.parametrize("crashes", [False, True])
@with_types
async def test_what_an_extension_leaves_behind_is_told_that_the_stream_is_closed(
    kind: Kind, crashes: bool
) -> None:
    streams: list[MuxadoStream] = []
    outcomes: list[Any] = []
    finish = trio.Event()

    async def handler(stream: MuxadoStream) -> None:
        streams.append(stream)
        await finish.wait()
        if crashes:
            raise LookupError("a bug")

    near, far = memory_stream_pair()
    extensions = {EXTENSION[kind.name]: handler}
    config = kind.config(wire="auto", extensions=extensions)
    async with trio.open_nursery() as outer:

        async def receive() -> None:
            outcomes.append(await outcome_of(streams[0].receive_some))

        async with client_session(near, config=kind.config()) as client:
            await client.open_stream(type=EXTENSION[kind.name])
            with suppress(LookupError):
                async with server_session(far, config=config):
                    await wait_all_tasks_blocked()
                    outer.start_soon(receive)
                    await wait_all_tasks_blocked()
                    assert not outcomes
                    finish.set()
                    await wait_all_tasks_blocked()
                    assert outcomes
    assert type(outcomes[0]) is StreamClosedError


# ---- going away


@each_wire
async def test_goaway_refuses_new_streams_and_lets_old_ones_go_on(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        with assert_checkpoints():
            await server.goaway(ErrorCode.ENHANCE_YOUR_CALM, b"restarting")
        await wait_all_tasks_blocked()
        with pytest.raises(OpenStreamError) as caught:
            await client.open_stream()
        error = caught.value
        assert isinstance(error, trio.BrokenResourceError)
        assert (error.code, error.initiator) == (ErrorCode.REMOTE_GONE_AWAY, "remote")
        assert error.debug == b"restarting"
        assert error.safe_to_retry
        await near.send_all(b"goes on")
        assert await far.receive_some() == b"goes on"
        # The other direction still opens streams.
        back = await server.open_stream()
        assert (await client.accept_stream()).id == back.id
        await server.goaway()  # again is fine


@each_wire
async def test_a_stream_that_crossed_a_goaway_is_refused_and_safe_to_retry(kind: Kind) -> None:
    async with raw_session(kind, client=True) as (session, peer):
        taken = await session.open_stream()
        missed = await session.open_stream()
        peer.send(peer.goaway(3, ErrorCode.NO_ERROR))
        with pytest.raises(StreamResetError) as caught:
            await missed.receive_some()
        assert caught.value.code is ErrorCode.REMOTE_GONE_AWAY
        assert caught.value.safe_to_retry
        peer.send(peer.data(3, b"goes on"))
        assert await taken.receive_some() == b"goes on"


@with_types
async def test_an_extension_stream_that_crosses_a_goaway_is_safe_to_retry_and_not_handled(
    kind: Kind,
) -> None:
    executed: list[bytes] = []

    async def execute(stream: MuxadoStream) -> None:
        executed.append(await stream.receive_some())
        await stream.send_all(b"done")

    async with session_pair(kind, server={"extensions": {7: execute}}) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        crossing = await client.open_stream(type=7)
        await crossing.send_all(b"pay 100")
        await server.goaway()
        with pytest.raises(StreamResetError) as caught:
            await crossing.receive_some()
        assert caught.value.safe_to_retry
        await wait_all_tasks_blocked()
        assert executed == []
        assert await client.ping() < 5  # the session goes on


@each_wire
async def test_openers_that_wait_are_told_of_a_goaway(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, server):
        await client.open_stream()
        outcomes: list[Any] = []

        async def open_one() -> None:
            outcomes.append(await outcome_of(client.open_stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one)
            nursery.start_soon(open_one)
            await wait_all_tasks_blocked()
            await server.goaway()
        assert [type(outcome) for outcome in outcomes] == [OpenStreamError] * 2
        assert all(outcome.safe_to_retry for outcome in outcomes)
        with pytest.raises(OpenStreamError):
            await client.open_stream()  # although the place is still taken


@pytest.mark.parametrize("end", [MuxadoSession.aclose, trio.aclose_forcefully])
@each_wire
async def test_openers_that_wait_are_told_of_the_end_and_can_try_elsewhere(
    kind: Kind, end: Callable[[MuxadoSession], Awaitable[None]]
) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, server):
        taken = await client.open_stream()
        outcomes: list[Any] = []

        async def open_one() -> None:
            outcomes.append(await outcome_of(client.open_stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one)
            await server.accept_stream()
            await end(server)
        assert type(outcomes[0]) in (SessionEndedError, OpenStreamError)
        assert outcomes[0].safe_to_retry
        with pytest.raises(SessionEndedError) as caught:
            await taken.receive_some()
        assert not caught.value.safe_to_retry


@each_kind
async def test_a_stream_that_never_left_this_end_is_safe_to_retry(kind: Kind) -> None:
    near, far = memory_stream_pair()
    gate = Gated(near)
    async with session_pair(kind, transports=(gate, far), heartbeat=None) as (client, server):
        sent = await client.open_stream()
        await server.accept_stream()
        gate.shut()
        await sent.send_all(b"the writer waits with this")
        await wait_all_tasks_blocked()
        kept = await client.open_stream()
        await kept.send_all(b"and never comes to that")
        await trio.aclose_forcefully(client)
        for stream in sent, kept:
            with pytest.raises(SessionClosedError) as caught:
                await stream.receive_some()
            assert caught.value.safe_to_retry is (stream is kept)


@each_wire
async def test_goaway_is_limited_to_4_kib_of_debug(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        await client.open_stream()
        with pytest.raises(ValueError, match="4096"):
            await server.goaway(ErrorCode.NO_ERROR, bytes(4097))
        await server.goaway(ErrorCode.NO_ERROR, bytes(4096))
        await wait_all_tasks_blocked()
        with pytest.raises(OpenStreamError) as caught:
            await client.open_stream()
        assert caught.value.debug == bytes(4096)


@each_wire
async def test_drain_waits_for_all_streams(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        ours = await client.open_stream()
        await (await server.accept_stream()).aclose()
        theirs = await server.open_stream()
        inbound = await client.accept_stream()
        drained = trio.Event()

        async def drain() -> None:
            await client.drain()
            drained.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await wait_all_tasks_blocked()
            assert not drained.is_set()
            await ours.aclose()
            await wait_all_tasks_blocked()
            assert not drained.is_set()
            await theirs.reset()
            await wait_all_tasks_blocked()
            assert not drained.is_set()  # its handler has not let go of it yet
            await inbound.aclose()
            await drained.wait()


@with_types
async def test_drain_waits_for_extensions_at_both_ends_and_not_for_heartbeats(kind: Kind) -> None:
    finish = trio.Event()
    drained: list[MuxadoSession] = []

    async def execute(stream: MuxadoStream) -> None:
        request = await read_all(stream)
        await finish.wait()
        await stream.send_all(b"done: " + request)

    async def drain(session: MuxadoSession) -> None:
        await session.drain()
        drained.append(session)

    async with session_pair(kind, server={"extensions": {7: execute}}) as (client, server):
        await together(client.ping, server.ping)
        stream = await client.open_stream(type=7)
        await stream.send_all(b"pay 100")
        await stream.send_eof()
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, client)
            nursery.start_soon(drain, server)
            await wait_all_tasks_blocked()
            assert drained == []
            finish.set()
        await server.aclose()
        assert await read_all(stream) == b"done: pay 100"


@each_wire
async def test_a_refused_stream_after_drain_sees_why(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        assert await peer.frames() == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.drain)
            assert GoAway(3, 0) in await peer.frames()
            peer.send(peer.syn(5))
            assert await peer.frames() == [Rst(5, peer.wire.code_to_wire(ErrorCode.STREAM_REFUSED))]
            await (await session.accept_stream()).reset()


async def test_an_undetected_server_goes_away_once_it_knows_how() -> None:
    async with raw_session(V1, wire="auto") as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.goaway)
            assert await peer.frames() == []
            peer.send(peer.syn(3))
            assert GoAway(3, 0) in await peer.frames()


@pytest.mark.parametrize("name", ["goaway", "drain", "open_stream", "ping"])
async def test_an_undetected_server_that_loses_its_client_says_so(name: str) -> None:
    """The wire is not known and never will be: whoever waits for it is told."""
    async with raw_session(V1, wire="auto") as (session, peer):
        outcomes: list[Any] = []

        async def call() -> None:
            outcomes.append(await outcome_of(getattr(session, name)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            assert not outcomes
            peer.end()
        assert type(outcomes[0]) is SessionEndedError


# ---- why it ended


async def reason_of(session: MuxadoSession) -> tuple[Any, str, bool]:
    with assert_checkpoints():
        reason = await session.wait_closed()
    assert reason is await session.wait_closed()
    return reason.code, reason.initiator, reason.clean


@each_kind
async def test_reason_closed_in_good_order(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        await client.aclose()
        assert await reason_of(client) == (ErrorCode.NO_ERROR, "local", True)
        assert await reason_of(server) == (ErrorCode.NO_ERROR, "remote", True)
        with pytest.raises(SessionClosedError):
            await client.accept_stream()
        with pytest.raises(NoMoreStreamsError):
            await server.accept_stream()
        for name in ("open_stream", "goaway", "drain", "ping"):
            with pytest.raises(SessionClosedError) as closed:
                await getattr(client, name)()
            with pytest.raises(SessionEndedError) as ended:
                await getattr(server, name)()
            for caught in closed, ended:  # nothing was sent for what was to be opened
                assert caught.value.safe_to_retry is (name == "open_stream")


@each_wire
async def test_reason_goaway_with_a_code(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.goaway(0, ErrorCode.INTERNAL_ERROR, b"out of \xffpaper"))
        peer.end()
        assert await reason_of(session) == (ErrorCode.INTERNAL_ERROR, "remote", False)
        reason = await session.wait_closed()
        assert reason.debug == b"out of \xffpaper"
        assert reason.message == "the peer ended the session: INTERNAL_ERROR (out of \ufffdpaper)"
        with pytest.raises(SessionEndedError) as caught:
            await session.open_stream()
        assert caught.value.debug == reason.debug
        assert caught.value.code is reason.code
        assert caught.value.initiator == "remote"
        assert caught.value.safe_to_retry


@pytest.mark.parametrize(
    "debug, shown",
    [
        (b"x\r\nINFO trio_muxado all is well", r"x\r\nINFO trio_muxado all is well"),
        (b"\x1b[2Jgone\x00", r"\x1b[2Jgone\x00"),
        ("\x9b\u2028\u202e".encode(), r"\x9b\u2028\u202e"),
        (rb"not a line: \n", r"not a line: \\n"),
        (b"\xff\xfe\n", "\ufffd\ufffd\\n"),
        ("Kein Papier mehr: für heute'".encode(), "Kein Papier mehr: für heute'"),
        (b"\n" * 10_000, r"\n" * 4096),
    ],
)
@each_wire
async def test_the_peer_s_text_cannot_leave_its_line(
    kind: Kind, debug: bytes, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    details: list[str] = []

    def tracer(frame: TracedFrame) -> None:
        details.append(frame.detail)

    async with raw_session(kind, tracer=tracer) as (session, peer):
        peer.send(peer.syn(3), peer.goaway(0, ErrorCode.INTERNAL_ERROR, debug))
        peer.end()
        reason = await session.wait_closed()
        with pytest.raises(SessionEndedError) as caught:
            await session.open_stream()
        assert reason.message == f"the peer ended the session: INTERNAL_ERROR ({shown})"
        assert str(caught.value) == f"open_stream: {reason.message}"
        assert reason.debug == caught.value.debug == debug[:4096]
        assert details[-1] == shown
        (record,) = caplog.records
        number, transport = session._engine.number, session.transport_stream
        assert record.getMessage() == f"session {number} over {transport!r} ended: {reason.message}"


@each_wire
async def test_reason_goaway_with_a_number_nobody_knows(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.goaway(0, 4711))
        peer.end()
        assert await reason_of(session) == (4711, "remote", False)
        assert "error 4711" in (await session.wait_closed()).message


async def test_reason_a_go_v1_peer_that_closes_right_after_its_short_goaway() -> None:
    """Go v1 announces 16 bytes and sends 8; then the transport ends."""
    async with raw_session(V1) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, b"last words"))
        peer.send(peer.wire.header("GOAWAY", 16, 0, 0) + bytes(8))
        peer.end()
        assert await reason_of(session) == (ErrorCode.NO_ERROR, "remote", True)
        stream = await session.accept_stream()
        assert await stream.receive_some() == b"last words"


@pytest.mark.parametrize("debug", [b"shutdown", b"bye\x00bye!"])
async def test_reason_a_rust_peer_whose_goaway_is_too_short(debug: bytes) -> None:
    """Rust leaves eight bytes out of the length; what is left over is an unknown frame, or none."""
    async with raw_session(V2) as (session, peer):
        peer.send(peer.syn(3), peer.wire.header("GOAWAY", len(debug), 0, 0), bytes(8), debug)
        if debug == b"shutdown":
            peer.end()
        assert await reason_of(session) == (ErrorCode.NO_ERROR, "remote", True)


@each_wire
async def test_reason_the_transport_just_ended(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        peer.end()
        assert await reason_of(session) == (ErrorCode.PEER_EOF, "transport", False)


@each_wire
async def test_reason_the_peer_broke_the_protocol(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.violation())
        assert await reason_of(session) == (ErrorCode.PROTOCOL_ERROR, "local", False)
        with pytest.raises(SessionEndedError) as caught:
            await session.accept_stream()
            await session.accept_stream()
        assert caught.value.code is ErrorCode.PROTOCOL_ERROR
        frames = await peer.frames()
        assert GoAway(3, 1) in frames
        assert peer.has_ended


@each_kind
async def test_nothing_is_logged_of_a_session_that_ends_in_order(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither of its heartbeats nor of a handler whose stream was still open."""
    caplog.set_level(logging.DEBUG)
    async with session_pair(kind) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_streams, echo)
        stream = await client.open_stream()
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        if kind is not V2:
            for session in (client, server):
                await session.ping()
        await client.aclose()
    assert not caplog.records


@each_wire
async def test_another_end_is_logged_once(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with raw_session(kind) as (_, peer):
        peer.send(peer.violation())
        await wait_all_tasks_blocked()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_muxado", logging.INFO)


@each_wire
async def test_one_calm_end_for_a_flood(kind: Kind) -> None:
    async with raw_session(kind, empty_frames=10) as (session, peer):
        peer.send(peer.syn(3), *[peer.data(3)] * 11)
        reason = await session.wait_closed()
        assert reason.code is ErrorCode.ENHANCE_YOUR_CALM
        number = {"v1": 1, "v2": 10}[kind.wire]
        assert [f.error_code for f in await peer.frames() if isinstance(f, GoAway)] == [number]


def test_a_close_reason_is_clean_without_an_error() -> None:
    assert CloseReason(ErrorCode.NO_ERROR, "local", "bye").clean
    assert not CloseReason(ErrorCode.PEER_EOF, "transport", "gone").clean


# ---- the wire, as far as a session decides it


@each_wire
async def test_what_waits_together_goes_out_in_one_write(kind: Kind) -> None:
    near, far = memory_stream_pair()
    recording = Recording(near)
    async with session_pair(kind, transports=(recording, far), heartbeat=None) as (client, server):
        streams = [await client.open_stream() for _ in range(10)]
        await wait_all_tasks_blocked()
        recording.sent.clear()

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_all, b"x" * 100)
        await wait_all_tasks_blocked()
        assert len(recording.sent) < 5
        for _ in streams:
            stream = await server.accept_stream()
            assert await stream.receive_some() == b"x" * 100


@each_wire
async def test_a_higher_priority_overtakes_what_waits(kind: Kind) -> None:
    near, far = memory_stream_pair()
    recording = Recording(near)
    gate = Gated(recording)
    async with session_pair(kind, transports=(gate, far), heartbeat=None) as (client, _):
        low = await client.open_stream(priority=1)
        high = await client.open_stream(priority=2)
        await wait_all_tasks_blocked()
        gate.shut()
        await client.open_stream()
        await wait_all_tasks_blocked()  # the writer waits for the gate
        await low.send_all(b"low")
        await high.send_all(b"high")
        gate.open()
        await wait_all_tasks_blocked()
        written = b"".join(recording.sent)
        assert 0 < written.index(b"high") < written.index(b"low")


@each_wire
async def test_filling_one_stream_leaves_the_others_alone(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        await fill(await client.open_stream())
        other = await client.open_stream()
        await server.accept_stream()
        await other.send_all(b"free")
        assert await (await server.accept_stream()).receive_some() == b"free"


@each_wire
async def test_peers_frames_cut_anywhere(kind: Kind) -> None:
    peer = RawPeer(kind)
    content = (
        peer.syn(3) + peer.data(3, b"abc") + peer.data(3, b"def", fin=True) + peer.goaway(0, 0)
    )
    async with server_session(peer.transport, config=MuxadoConfig(heartbeat=None)) as session:
        for byte in content:
            peer.send(bytes([byte]))
            await wait_all_tasks_blocked()
        assert session.wire == kind.wire
        assert await read_all(await session.accept_stream()) == b"abcdef"
        peer.end()


# ---- errors carry what one must know


def test_every_error_is_the_trio_exception_that_generic_code_catches() -> None:
    error = MuxadoError("text", code=ErrorCode.NO_ERROR, initiator="local")
    assert (error.debug, error.safe_to_retry, str(error)) == (b"", False, "text")
    assert issubclass(StreamResetError, trio.BrokenResourceError)
    assert issubclass(SessionEndedError, trio.BrokenResourceError)
    assert issubclass(OpenStreamError, trio.BrokenResourceError)
    assert issubclass(StreamClosedError, trio.ClosedResourceError)
    assert issubclass(SessionClosedError, trio.ClosedResourceError)
    assert issubclass(NoMoreStreamsError, trio.EndOfChannel)


async def test_a_typed_client_of_an_untyped_server_is_read_as_data() -> None:
    """Both ends must agree: nothing on the wire tells, so this shows what a mistake looks like."""
    near, far = memory_stream_pair()
    async with client_session(near, config=V2_TYPED.config()) as client:
        async with server_session(far, config=V2.config()) as server:
            stream = await client.open_stream(type=0x41424344)
            await stream.send_all(b"data")
            await wait_all_tasks_blocked()
            streams = [await server.accept_stream(), await server.accept_stream()]
            assert b"ABCDdata" in [await stream.receive_some() for stream in streams]


async def test_an_idle_session_costs_no_turns(autojump_clock: MockClock) -> None:
    """Nobody polls: with no heartbeat two sessions sleep for a day without a single step."""

    async with session_pair(V1, heartbeat=None) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        await wait_all_tasks_blocked()
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(86_400)
        trio.lowlevel.remove_instrument(turns)
        assert turns.count < 10


# ---- what was promised and is easily forgotten


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


@each_wire
async def test_the_reason_of_a_goaway_is_not_lost_when_the_session_then_closes(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        await client.goaway(ErrorCode.INTERNAL_ERROR, b"sorry")
        await client.aclose()
        reason = await server.wait_closed()
        assert (reason.code, reason.debug) == (ErrorCode.INTERNAL_ERROR, b"sorry")


@with_types
async def test_the_heartbeat_s_type_is_not_for_streams(kind: Kind) -> None:
    async with session_pair(kind, max_outbound_streams=1) as (client, _server):
        beats = {"v1": 0xFFFFFEFF, "v2": 0xFFFFFFFF}[kind.wire]
        with pytest.raises(ValueError, match="ping"):
            await client.open_stream(type=beats)
        await client.open_stream()  # the one place was given back


async def test_an_error_of_a_listener_leaves_the_server_bare() -> None:
    async def handle(session: MuxadoSession) -> None:
        raise AssertionError("nothing connects")

    async with session_pair(V1) as (client, server):
        await client.aclose()
        with pytest.raises(NoMoreStreamsError):
            await serve_muxado_listeners(handle, [server])


@each_wire
@pytest.mark.parametrize("code", [-1, 1 << 32])
async def test_a_code_that_no_wire_can_carry_is_refused_before_anything_happens(
    kind: Kind, code: int
) -> None:
    async with session_pair(kind) as (client, server):
        stream = await client.open_stream()
        with pytest.raises(ValueError, match="unsigned 32-bit"):
            await stream.reset(code)
        with pytest.raises(ValueError, match="unsigned 32-bit"):
            await client.goaway(code)
        await stream.send_all(b"still open")
        assert await (await server.accept_stream()).receive_some() == b"still open"


@pytest.mark.parametrize("kind", [0, -1, 1 << 32])
def test_an_extension_needs_a_type_of_its_own(kind: int) -> None:
    async def handler(stream: MuxadoStream) -> None:
        raise AssertionError("never called")

    with pytest.raises(ValueError, match="an extension's type"):
        MuxadoConfig(extensions={kind: handler})
