"""The memory channel from the frame reader to a stream: what could go wrong with it."""

import sys
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    SessionClosedError,
    StreamClosedError,
    StreamResetError,
)
from trio_muxado._protocol.frames import Rst
from trio_muxado._receive_channel import MAX_KEPT, SMALL_CHUNK, Kept, ReceiveChannel

from .helpers import Kind, RawPeer, each_wire, outcome_of, raw_session, session_pair


def bytes_in(channel: ReceiveChannel, limit: int = 1 << 20) -> bytes:
    return channel.take(None, limit) if channel.size else b""


async def wait(channel: ReceiveChannel) -> bytes | bytearray:
    """As ``receive_some`` waits."""
    try:
        return await channel.begin_wait().receive()
    except BaseException:
        channel.give_up()
        raise


# ---- the channel alone


async def test_a_wake_up_that_nobody_took_is_no_end_of_a_later_stream() -> None:
    """A receiver is cancelled in the moment in which the end of its stream comes."""
    kept: Kept = []
    first = ReceiveChannel(kept)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, first)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        first.put(b"", ended=True)
    first.close(in_use=False)
    later = ReceiveChannel(kept)
    with trio.move_on_after(0.01) as patience:
        await wait(later)
    assert patience.cancelled_caught


async def test_bytes_that_cross_a_cancellation_are_not_lost() -> None:
    channel = ReceiveChannel([])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, channel)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        channel.put(b"kept", ended=False)
    assert bytes_in(channel) == b"kept"


async def test_only_channels_that_are_empty_and_free_serve_later_streams() -> None:
    kept: Kept = []
    used = ReceiveChannel(kept)
    used.put(b"x", ended=False)
    used.close(in_use=False)
    assert kept == []  # something was in it
    used = ReceiveChannel(kept)
    used.put(b"x", ended=False)
    assert bytes_in(used) == b"x"
    used.close(in_use=True)
    assert kept == []  # a task is in a call
    waited_in = ReceiveChannel(kept)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, waited_in)
        await wait_all_tasks_blocked()
        waited_in.close(in_use=True)
    assert kept == []
    for _ in range(MAX_KEPT + 10):
        free = ReceiveChannel(kept)
        free.put(b"x", ended=False)
        other = ReceiveChannel([])
        other.put(b"x", ended=False)
        assert bytes_in(free) == bytes_in(other) == b"x"
        free.close(in_use=False)
    assert len(kept) == 1  # one after another they need one
    many = [ReceiveChannel(kept) for _ in range(MAX_KEPT + 10)]
    for channel in many:
        channel.put(b"x", ended=False)
    for channel in many:
        assert bytes_in(channel) == b"x"
        channel.close(in_use=False)
    assert len(kept) == MAX_KEPT


async def test_a_stream_that_gets_no_bytes_needs_no_channel() -> None:
    kept: Kept = []
    channel = ReceiveChannel(kept)
    channel.put(b"", ended=True)
    channel.close(in_use=False)
    assert kept == []


@given(
    st.lists(
        st.one_of(st.binary(min_size=1, max_size=3000), st.integers(min_value=1, max_value=5000))
    )
)
def test_bytes_come_out_in_order_however_they_are_cut(steps: list[bytes | int]) -> None:
    async def main() -> None:
        channel = ReceiveChannel([])
        put, taken = b"", b""
        for step in steps:
            if isinstance(step, bytes):
                put += step
                channel.put(step, ended=False)
            elif channel.size:
                piece = channel.take(None, step)
                assert 0 < len(piece) <= step
                taken += piece
            assert channel.size == len(put) - len(taken)
        taken += bytes_in(channel)
        assert taken == put

    trio.run(main)


async def test_small_chunks_that_come_while_a_task_is_woken_are_joined_after_the_first() -> None:
    channel = ReceiveChannel([])
    received: list[bytes] = []

    async def receive() -> None:
        first = await wait(channel)
        received.append(channel.take(first, 100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        for piece in (b"a", b"b", b"c"):  # the first is handed over at once
            channel.put(piece, ended=False)
    assert received == [b"abc"]


async def test_a_window_of_single_bytes_takes_less_than_twice_its_size() -> None:
    size = 64 * 1024
    channel = ReceiveChannel([])
    channel.put(b"0", ended=False)
    tracemalloc.start()
    try:
        for _ in range(size):
            channel.put(bytes([7]), ended=False)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * size
    assert channel.size == size + 1


async def test_what_is_taken_is_never_changed_by_what_comes_later() -> None:
    channel = ReceiveChannel([])
    for _ in range(3):
        channel.put(b"x", ended=False)
    taken = channel.take(None, 2)
    channel.put(b"y" * (SMALL_CHUNK // 2), ended=False)
    assert taken == b"xx"
    assert type(taken) is bytes
    assert bytes_in(channel) == b"x" + b"y" * (SMALL_CHUNK // 2)


async def test_a_large_chunk_is_read_in_pieces_without_being_copied_each_time() -> None:
    channel = ReceiveChannel([])
    chunk = bytes(256 * 1024)
    channel.put(chunk, ended=False)
    tracemalloc.start()
    try:
        for _ in range(1000):
            assert len(channel.take(None, 1)) == 1
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 10_000
    assert channel.size == len(chunk) - 1000


@pytest.mark.parametrize("pieces", [100, 16 * 1024, 256 * 1024])
async def test_what_is_left_of_a_large_chunk_takes_no_more_than_twice_its_size(pieces: int) -> None:
    size = 256 * 1024
    channel = ReceiveChannel([])
    tracemalloc.start()
    try:
        channel.put(bytes(size), ended=True)
        for left in (size // 2 + 1, size // 2 - 1, size // 10, 1):
            while channel.size > left:
                channel.take(None, min(pieces, channel.size - left))
            held, _ = tracemalloc.get_traced_memory()
            assert held < 2 * left + 4096
    finally:
        tracemalloc.stop()


async def test_a_rest_and_a_window_of_single_bytes_take_less_than_twice_the_window() -> None:
    window = 64 * 1024
    for left in (1, window // 2, window - 1):
        channel = ReceiveChannel([])
        tracemalloc.start()
        try:
            channel.put(bytes(window), ended=False)
            channel.take(None, window - left)
            for _ in range(window - left):
                channel.put(bytes([7]), ended=False)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert channel.size == window
        assert held < 2 * window


# ---- streams on it


@each_wire
async def test_the_end_is_sticky_and_a_reset_after_it_changes_nothing(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, b"all", fin=True), peer.rst(3, 7))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        assert stream.is_readable()
        assert await stream.receive_some(1) == b"a"
        assert stream.is_readable()  # the rest of the chunk counts
        assert await stream.receive_some() == b"ll"
        for _ in range(3):
            assert await stream.receive_some() == b""


@each_wire
async def test_all_bytes_come_before_a_break(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, b"bytes"), peer.rst(3, 7))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        assert await stream.receive_some() == b"bytes"
        for _ in range(3):
            with pytest.raises(StreamResetError):
                await stream.receive_some()


@each_wire
async def test_data_for_a_stream_that_is_closed_here_ends_no_session(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, b"x"))
        stream = await session.accept_stream()
        await stream.aclose()
        peer.send(peer.data(3, b"late"), peer.syn(5))
        assert (await session.accept_stream()).id == 5


@each_wire
async def test_who_is_woken_by_bytes_and_finds_the_stream_closed_takes_none(kind: Kind) -> None:
    """All credit was given back when it was closed: bytes would be counted twice."""
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        stream = await session.accept_stream()
        window = session._engine.connection.streams.live[3].receive_window
        outcomes: list[Any] = []

        async def receive() -> None:
            outcomes.append(await outcome_of(stream.receive_some))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            engine = session._engine
            frames = peer.data(3, bytes(window.size // 8)) * 4
            engine.reader.dispatch(engine.connection.receive_data(frames, trio.current_time()))
            await stream.aclose()
        assert isinstance(outcomes[0], StreamClosedError)
        assert window.unconsumed == 0
        assert window.credit + window.ungranted == window.size


@each_wire
async def test_resets_of_waiting_streams_cannot_overfill_the_backlog(kind: Kind) -> None:
    async with raw_session(kind, accept_backlog=3) as (session, peer):
        for number in range(3, 43, 2):
            peer.send(peer.syn(number), peer.rst(number, 0))
        await wait_all_tasks_blocked()
        assert session.statistics().waiting == 3
        assert [(await session.accept_stream()).id for _ in range(3)] == [3, 5, 7]
        peer.send(peer.syn(43))
        assert (await session.accept_stream()).id == 43


@each_wire
async def test_a_stream_is_refused_or_served_but_never_both(kind: Kind) -> None:
    """The session is closed in the turn in which a waiting task was handed a stream."""
    async with raw_session(kind) as (session, peer):
        outcomes: list[Any] = []
        refusal = Rst(3, peer.wire.code_to_wire(ErrorCode.STREAM_REFUSED))

        async def accept() -> None:
            outcomes.append(await outcome_of(session.accept_stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await wait_all_tasks_blocked()
            engine = session._engine
            frame = peer.syn(3)
            engine.reader.dispatch(engine.connection.receive_data(frame, trio.current_time()))

            async def end_later() -> None:
                await wait_all_tasks_blocked()
                assert refusal in await peer.frames()
                peer.end()

            nursery.start_soon(end_later)
            await session.aclose()
        assert isinstance(outcomes[0], SessionClosedError)


@each_wire
async def test_nothing_of_trio_s_channels_shows_in_our_errors(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        await far.reset(ErrorCode.INTERNAL_ERROR)
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(server)
        await client.wait_closed()
        for call in (near.receive_some, client.accept_stream):
            error = await outcome_of(call)
            assert isinstance(error, MuxadoError)
            assert error.__context__ is None


@each_wire
async def test_one_task_receives_and_closing_does_not_wait_for_it(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        near = await client.open_stream()
        del server
        outcomes: list[Any] = []

        async def receive() -> None:
            outcomes.append(await outcome_of(near.receive_some))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await near.receive_some()
            assert not outcomes
            await near.aclose()
        assert isinstance(outcomes[0], StreamClosedError)


def test_a_stream_that_only_sends_takes_little() -> None:
    assert sys.getsizeof(ReceiveChannel([])) < 150


def test_an_end_that_nobody_waits_for_leaves_nothing_in_the_channel() -> None:
    """It serves a later stream then, whose receiver would take that for its own end."""
    kept: Kept = []
    first = ReceiveChannel(kept)
    first.put(b"x", ended=False)
    assert bytes_in(first) == b"x"
    first.put(b"", ended=True)
    first.break_off()
    first.close(in_use=False)
    ((_, receive),) = kept
    with pytest.raises(trio.WouldBlock):
        receive.receive_nowait()


def test_chunks_are_not_joined_to_what_was_taken() -> None:
    """What was joined is taken alone, as the chunk before it was as much as was asked for."""
    channel = ReceiveChannel([])
    for chunk in (b"one", b"two", b"three"):
        channel.put(chunk, ended=False)
    assert channel.take(None, 3) == b"one"
    joined = channel.take(None, 100)
    assert type(joined) is bytes
    assert joined == b"twothree"
    for chunk in (b"four", b"five"):
        channel.put(chunk, ended=False)
    assert channel.size == 8
    assert bytes_in(channel) == b"fourfive"


@each_wire
async def test_what_a_header_has_announced_is_not_readable(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        stream = await session.accept_stream()
        frame = peer.data(3, bytes(10))
        peer.send(frame[:-10])
        await wait_all_tasks_blocked()
        assert not stream.is_readable()
        peer.send(frame[-10:])
        await wait_all_tasks_blocked()
        assert stream.is_readable()


class Serving(NamedTuple):
    """A session that serves streams, and the ids of those that were handled."""

    session: MuxadoSession
    peer: RawPeer
    handled: list[int]
    nursery: trio.Nursery

    def offer(self, stream_id: int, *, at_once: bool) -> None:
        """The peer opens a stream in this step: it comes alone, or others follow."""
        engine = self.session._engine
        engine.reader.alone = at_once
        frame = self.peer.syn(stream_id)
        engine.reader.dispatch(engine.connection.receive_data(frame, trio.current_time()))


@asynccontextmanager
async def serving(kind: Kind) -> AsyncGenerator[Serving, None]:
    async with raw_session(kind) as (session, peer):
        handled: list[int] = []

        async def handle(stream: MuxadoStream) -> None:
            handled.append(stream.id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.serve_streams, handle)
            await wait_all_tasks_blocked()
            yield Serving(session, peer, handled, nursery)


@pytest.mark.parametrize("at_once", [False, True])
@each_wire
async def test_a_stream_is_refused_or_handled_but_never_both(kind: Kind, at_once: bool) -> None:
    async with serving(kind) as server:
        server.offer(3, at_once=at_once)

        async def end_later() -> None:
            refusal = Rst(3, server.peer.wire.code_to_wire(ErrorCode.STREAM_REFUSED))
            refused = refusal in await server.peer.frames()
            assert refused is (server.handled == [])
            assert refused is not at_once
            server.peer.end()

        server.nursery.start_soon(end_later)
        await server.session.aclose()


@each_wire
async def test_handlers_begin_in_the_order_of_their_streams(kind: Kind) -> None:
    """One that could start at once waits after one that was handed to a task already."""
    async with serving(kind) as server:
        server.offer(3, at_once=False)
        server.offer(5, at_once=True)
        assert server.session._engine.backlog._waiting == 2
        await wait_all_tasks_blocked()
        assert sorted(server.handled) == [3, 5]
        server.peer.end()
        server.nursery.cancel_scope.cancel()


@each_wire
async def test_streams_that_are_read_but_for_a_byte_keep_no_more_than_the_budget_says(
    kind: Kind,
) -> None:
    """A peer that sends a byte too much made this side keep the whole chunk that it came in."""
    number, size = 100, kind.window // 2
    async with raw_session(kind) as (session, peer):
        budget = session._engine.connection.streams.budget
        before = budget.held
        largest = peer.wire.max_payload
        streams: list[MuxadoStream] = []
        tracemalloc.start()
        try:
            for stream_id in range(3, 3 + 2 * number, 2):
                pieces = [min(largest, size - at) for at in range(0, size, largest)]
                frames = [peer.data(stream_id, bytes(piece)) for piece in pieces]
                peer.send(peer.syn(stream_id), *frames, peer.data(stream_id, b"", fin=True))
                del frames
                stream = await session.accept_stream()
                await wait_all_tasks_blocked()
                left = size
                while left > 1:
                    left -= len(await stream.receive_some(left - 1))
                streams.append(stream)
                peer.forget()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert budget.held - before == number
        assert held < number * 16 * 1024
