"""What MuxadoSession promises of opening and accepting streams, and of the places for them."""

from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoSession,
    MuxadoStream,
    OpenStreamError,
    SessionClosedError,
    SessionEndedError,
)
from trio_muxado._protocol.codec import MAX_STREAM_ID
from trio_muxado._protocol.wire import WIRES

from .helpers import (
    V2,
    Kind,
    cancel_at_checkpoint,
    each_kind,
    each_wire,
    outcome_of,
    raw_session,
    read_all,
    session_pair,
    with_types,
)

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
        assert client._engine.connection.streams.outbound.used == 1


def assert_places(session: MuxadoSession, *, taken: int) -> None:
    """So many streams of this end live, of the one that may; the other places are free."""
    engine = session._engine
    assert engine.connection.streams.outbound.used == taken
    assert engine.slots.free == 1 - taken


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

    The peer's reset frees the slot and makes this side send nothing, so nothing else wakes anybody.
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
                engine.reader.dispatch(engine.connection.receive_data(reset, trio.current_time()))
                engine.steps.done()
                with trio.fail_after(1):
                    await wait_all_tasks_blocked()
                assert len(opened) == 1
            await opened[0].reset()
            assert_places(client, taken=0)


@each_wire
async def test_a_place_that_was_promised_is_given_to_nobody_else(kind: Kind) -> None:
    """A task that was woken for it has it, although it has not run yet."""
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, server):
        opened: list[MuxadoStream] = []

        async def open_one() -> None:
            opened.append(await client.open_stream())

        holder = await client.open_stream()
        await server.accept_stream()
        await server.open_stream()
        theirs = await client.accept_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one)
            nursery.start_soon(open_one)
            await wait_all_tasks_blocked()
            for stream in (holder, theirs):  # in one step
                with pytest.raises(LookupError):
                    async with stream:
                        raise LookupError
            with pytest.raises(trio.WouldBlock):
                client.open_stream_nowait()
            await wait_all_tasks_blocked()
            assert len(opened) == 1
            assert_places(client, taken=1)
            nursery.cancel_scope.cancel()


@each_wire
async def test_whoever_opens_in_that_turn_waits_behind_whom_a_place_was_promised(
    kind: Kind,
) -> None:
    async with session_pair(kind, heartbeat=None, max_outbound_streams=1) as (client, _):
        for _ in range(50):  # trio decides by chance which of two tasks runs first
            holder = await client.open_stream()
            opened: list[MuxadoStream] = []

            async def open_one(opened: list[MuxadoStream] = opened) -> None:
                opened.append(await client.open_stream())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_one)
                await wait_all_tasks_blocked()
                nursery.start_soon(open_one)
                await trio.lowlevel.checkpoint()
                with pytest.raises(LookupError):
                    async with holder:
                        raise LookupError
                await wait_all_tasks_blocked()
                assert len(opened) == 1
                assert_places(client, taken=1)
                nursery.cancel_scope.cancel()
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


@with_types
async def test_the_heartbeat_s_type_is_not_for_streams(kind: Kind) -> None:
    async with session_pair(kind, max_outbound_streams=1) as (client, _server):
        beats = {"v1": 0xFFFFFEFF, "v2": 0xFFFFFFFF}[kind.wire]
        with pytest.raises(ValueError, match="ping"):
            await client.open_stream(type=beats)
        await client.open_stream()  # the one place was given back


async def test_who_cannot_open_after_a_wait_passes_its_place_on() -> None:
    """The peer's reset frees the slot and makes this side send nothing: nobody else does."""
    async with raw_session(V2, client=True, max_outbound_streams=1) as (session, peer):
        outcomes: list[object] = []

        async def open_one(stream_type: int) -> None:
            outcomes.append(await outcome_of(lambda: session.open_stream(type=stream_type)))

        holder = await session.open_stream()
        async with trio.open_nursery() as nursery:
            for stream_type in (5, 0):  # untyped v2 has no types
                nursery.start_soon(open_one, stream_type)
                await wait_all_tasks_blocked()
            peer.send(peer.rst(holder.id, 0))
            await wait_all_tasks_blocked()
            assert [type(outcome) for outcome in outcomes] == [ValueError, MuxadoStream]
            nursery.cancel_scope.cancel()


@each_wire
async def test_who_has_waited_longest_accepts_although_a_handler_could_start(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        accepted: list[int] = []
        handled: list[int] = []

        async def accept() -> None:
            accepted.append((await session.accept_stream()).id)

        async def handle(stream: MuxadoStream) -> None:
            handled.append(stream.id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await wait_all_tasks_blocked()
            nursery.start_soon(session.serve_streams, handle)
            await wait_all_tasks_blocked()
            for stream_id in (3, 5):
                peer.send(peer.syn(stream_id))
                await wait_all_tasks_blocked()
            assert (accepted, handled) == ([3], [5])
            nursery.cancel_scope.cancel()
