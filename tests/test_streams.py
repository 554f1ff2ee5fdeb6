"""What MuxadoStream promises: sending, receiving, ending, closing, and being cancelled in each."""

import array
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoStream,
    SessionEndedError,
    StreamClosedError,
    StreamResetError,
)
from trio_muxado._protocol.frames import Data, Rst, WndInc

from .helpers import (
    SEND_BUFFER,
    STEADY,
    V1,
    Gated,
    Kind,
    RawPeer,
    cancel_at_checkpoint,
    each_kind,
    each_wire,
    fill,
    outcome_of,
    raw_session,
    read_all,
    read_exactly,
    session_pair,
    stream_pair,
)

# ---- what it shows of itself


@each_kind
async def test_a_stream_knows_its_id_and_session(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        back = await server.open_stream()
        assert (near.id, far.id, back.id) == (3, 3, 2)
        assert (near.session, far.session) == (client, server)
        number = client._engine.number
        session = f"<MuxadoSession {number} client {kind.wire} active>"
        assert repr(near) == f"<MuxadoStream 3 of {session}>"


async def test_v1_carries_type_and_priority() -> None:
    async with session_pair(V1, heartbeat=None) as (client, server):
        near = await client.open_stream(type=7, priority=2**31 - 1)
        far = await server.accept_stream()
        assert (near.type, near.priority) == (far.type, far.priority) == (7, 2**31 - 1)


@each_wire
async def test_an_end_can_set_the_priority_of_what_it_sends(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        stream = await session.accept_stream()
        assert stream.priority == 0
        stream.priority = 2**31 - 1
        assert stream.priority == 2**31 - 1
        assert await peer.frames() == []  # the peer is not told


@each_wire
@pytest.mark.parametrize("wrong", [-1, 2**31])
async def test_a_priority_is_a_number_of_31_bits(kind: Kind, wrong: int) -> None:
    async with stream_pair(kind, heartbeat=None) as (near, _):
        near.priority = 5
        with pytest.raises(ValueError, match="priority"):
            near.priority = wrong
        assert near.priority == 5


@each_wire
async def test_a_priority_that_comes_too_late_changes_nothing(kind: Kind) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        closed, broken = await client.open_stream(), await client.open_stream()
        await closed.aclose()
        for _ in range(2):
            await (await server.accept_stream()).reset()
        await outcome_of(broken.receive_some)
        for stream in (closed, broken):
            stream.priority = 5
        near = await client.open_stream()
        await near.send_all(b"goes on")
        assert await (await server.accept_stream()).receive_some() == b"goes on"


# ---- receiving


@each_wire
async def test_receive_returns_all_that_waits_at_once(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), *(peer.data(3, bytes([number]) * 2000) for number in range(10)))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        assert await stream.receive_some() == b"".join(bytes([n]) * 2000 for n in range(10))


@each_wire
async def test_receive_without_a_limit_returns_at_most_256_kib(kind: Kind) -> None:
    async with raw_session(kind, receive_window=400_000) as (session, peer):
        peer.send(peer.syn(3), *(peer.data(3, bytes(10_000)) for _ in range(40)))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        sizes: list[int] = []
        while sum(sizes) < 400_000:
            sizes.append(len(await stream.receive_some()))
        assert 64 * 1024 <= sizes[0] == max(sizes) <= 256 * 1024


@each_wire
async def test_receive_keeps_what_was_not_asked_for(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(b"abcdefgh")
        await near.send_eof()
        assert await far.receive_some(3) == b"abc"
        assert await far.receive_some(1) == b"d"
        assert await far.receive_some(100) == b"efgh"
        assert await far.receive_some(100) == b""


@pytest.mark.parametrize(
    "limit, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)]
)
async def test_receive_checks_its_limit(limit: Any, error: type[Exception]) -> None:
    async with stream_pair(V1, **STEADY) as (near, far):
        with pytest.raises(error):
            await far.receive_some(limit)
        await near.send_all(b"still works")
        assert await far.receive_some() == b"still works"


@each_wire
@pytest.mark.parametrize("end", ["send_eof", "aclose", "reset"])
async def test_a_stream_is_readable_when_bytes_or_an_end_wait(kind: Kind, end: str) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        assert not far.is_readable()
        await near.send_all(b"ab")
        await wait_all_tasks_blocked()
        assert far.is_readable()
        assert await far.receive_some(1) == b"a"
        assert far.is_readable()
        assert await far.receive_some(1) == b"b"
        assert not far.is_readable()
        await getattr(near, end)()
        await wait_all_tasks_blocked()
        assert far.is_readable()
        await outcome_of(far.receive_some)
        assert far.is_readable()  # the end stays


@each_wire
@pytest.mark.parametrize("end", ["aclose", "reset"])
async def test_a_stream_that_this_end_has_ended_is_readable(kind: Kind, end: str) -> None:
    async with stream_pair(kind, **STEADY) as (near, _):
        assert not near.is_readable()
        await getattr(near, end)()
        assert near.is_readable()


@each_wire
async def test_a_stream_of_a_session_that_has_ended_is_readable(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await far.session.aclose()
        await near.session.wait_closed()
        assert near.is_readable()
        assert far.is_readable()


@given(
    sent=st.lists(st.integers(1, 3000), min_size=1, max_size=40),
    wanted=st.lists(st.integers(1, 5000), min_size=1, max_size=10),
    bursts=st.integers(1, 7),
)
def test_any_chunks_come_out_in_order_in_any_pieces(
    sent: list[int], wanted: list[int], bursts: int
) -> None:
    """Merging, cutting and keeping leftovers never lose, double or swap a byte."""
    content = bytes(number % 251 for number in range(sum(sent)))

    async def main() -> None:
        async with raw_session(V1, receive_window=2**20) as (session, peer):
            peer.send(peer.syn(3))
            stream = await session.accept_stream()
            received = bytearray()
            position = 0
            for number, size in enumerate(sent):
                peer.send(peer.data(3, content[position : position + size]))
                position += size
                if number % bursts == 0:
                    await wait_all_tasks_blocked()
                    received += await stream.receive_some(wanted[number % len(wanted)])
            peer.send(peer.data(3, fin=True))
            received += await read_all(stream)
            assert received == content

    trio.run(main)


@each_wire
async def test_cancelled_receive_loses_nothing(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        for waiting in (True, False):
            if waiting:
                await near.send_all(b"data")
                await wait_all_tasks_blocked()
            for number in range(5):
                if not await cancel_at_checkpoint(number, far.receive_some):
                    break
                if not waiting and number == 1:
                    await near.send_all(b"data")
            else:
                pytest.fail("receive_some has more checkpoints than expected")
        await near.aclose()
        assert await far.receive_some() == b""


@each_wire
async def test_two_receivers_are_a_bug_of_the_caller(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        results: list[Any] = []

        async def receive() -> None:
            results.append(await outcome_of(far.receive_some))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await far.receive_some()
            await near.send_all(b"for the first")
        assert results == [b"for the first"]


@each_wire
async def test_iteration_ends_with_the_stream(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(b"abc")
        await near.send_eof()
        assert b"".join([chunk async for chunk in far]) == b"abc"


# ---- sending


@each_wire
async def test_send_takes_any_buffer_of_bytes(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        for buffer in (
            b"bytes",
            bytearray(b"bytearray"),
            memoryview(b"memoryview")[3:],
            array.array("I", [1, 2, 3]),
            type("Bytes", (bytes,), {})(b"a kind of bytes"),
        ):
            await near.send_all(buffer)  # type: ignore[arg-type]
            assert await far.receive_some() == bytes(memoryview(buffer))


@each_wire
async def test_what_is_no_buffer_is_refused_and_nothing_breaks(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        with pytest.raises(TypeError):
            await near.send_all("text")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await near.send_all(memoryview(b"abcdef")[::2])
        await near.send_all(b"good")
        assert await far.receive_some() == b"good"


@each_wire
async def test_send_returns_once_all_but_the_buffer_is_on_its_way(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        with assert_checkpoints():
            await near.send_all(bytes(kind.window + SEND_BUFFER))
        done = False

        async def send_one_more() -> None:
            nonlocal done
            await near.send_all(b"x")
            done = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_one_more)
            await wait_all_tasks_blocked()
            assert not done
            await read_exactly(far, kind.window)
        assert done


@each_wire
async def test_a_large_bytearray_is_copied_piece_by_piece_and_arrives_whole(kind: Kind) -> None:
    content = bytearray(range(256)) * 4096  # 1 MiB: more than one piece, window and buffer
    async with stream_pair(kind, **STEADY) as (near, far):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await near.send_all(content)
                await near.send_eof()

            nursery.start_soon(send)
            assert await read_all(far) == content


@pytest.mark.parametrize("how", ["aclose", "reset", "peer resets", "session ends"])
@each_wire
async def test_a_stream_that_ends_between_two_pieces_of_a_bytearray(kind: Kind, how: str) -> None:
    """A large buffer is taken in pieces, and between them everybody else has a turn."""
    for turns in range(6):
        async with session_pair(kind, heartbeat=None) as (client, server):
            near = await client.open_stream()
            far = await server.accept_stream()
            outcomes: list[Any] = []

            async def send(near: MuxadoStream = near, outcomes: list[Any] = outcomes) -> None:
                outcomes.append(await outcome_of(lambda: near.send_all(bytearray(2**21))))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                if how == "peer resets":
                    await far.reset()
                elif how == "session ends":
                    await trio.aclose_forcefully(client)
                else:
                    await getattr(near, how)()
            assert isinstance(outcomes[0], MuxadoError)


@each_wire
async def test_nobody_can_change_what_has_been_sent(kind: Kind) -> None:
    transports = memory_stream_pair()
    gate = Gated(transports[0])
    async with stream_pair(kind, transports=(gate, transports[1]), heartbeat=None) as (near, far):
        gate.shut()
        buffer = bytearray(b"old" * 1000)
        await near.send_all(buffer)
        await near.send_all(memoryview(buffer)[:3])
        buffer[:] = b"new" * 1000
        gate.open()
        assert await read_exactly(far, 3003) == b"old" * 1001


@each_wire
async def test_nobody_can_change_what_a_cancelled_send_has_taken(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        buffer = bytearray(b"o" * (kind.window + 3 * SEND_BUFFER))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, buffer)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        buffer[:] = b"n" * len(buffer)
        await near.aclose()
        received = await read_all(far)
        assert received == b"o" * (kind.window + SEND_BUFFER)


@each_wire
async def test_a_send_cancelled_in_the_middle_leaves_a_prefix(kind: Kind) -> None:
    content = bytes(number % 251 for number in range(kind.window * 3))
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(b"before")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, content)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:

            async def go_on() -> None:
                await near.send_all(b"after")
                await near.send_eof()

            nursery.start_soon(go_on)
            received = await read_all(far)
        assert received.startswith(b"before")
        assert received.endswith(b"after")
        middle = received[len(b"before") : -len(b"after")]
        assert middle == content[: len(middle)]
        # What had been accepted is not taken back, and no more than the buffer stays behind.
        assert len(b"before" + middle) == kind.window + SEND_BUFFER


@each_kind
@pytest.mark.parametrize("send_buffer", [1, 3, SEND_BUFFER])
async def test_the_first_send_cancelled_anywhere_still_opens_the_stream(
    kind: Kind, send_buffer: int
) -> None:
    """Failure 2, at each checkpoint, with a transport that takes nothing meanwhile, and a free one.

    The stream's type rides in front of the first bytes on a typed session, so what a cancelled
    send leaves behind must not cut into it.
    """
    content = bytes(range(256)) * 4 * 400
    for shut in (False, True):
        number = 0
        cancelled = True
        while cancelled:
            transports = memory_stream_pair()
            gate = Gated(transports[0])
            async with session_pair(
                kind,
                transports=(gate, transports[1]),
                heartbeat=None,
                send_buffer=send_buffer,
                receive_window=2**20,
            ) as (client, server):
                await wait_all_tasks_blocked()
                if shut:
                    gate.shut()
                    # Something is under way already: the writer waits for the transport.
                    other = await client.open_stream()
                    await wait_all_tasks_blocked()
                stream_type = 0x01020304 if kind.typed or kind.wire == "v1" else 0
                near = await client.open_stream(type=stream_type)

                async def send(near: MuxadoStream = near, number: int = number) -> None:
                    nonlocal cancelled
                    cancelled = await cancel_at_checkpoint(number, lambda: near.send_all(content))

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send)
                    await wait_all_tasks_blocked()
                    gate.open()
                if shut:
                    assert (await server.accept_stream()).id == other.id
                far = await server.accept_stream()
                assert (far.id, far.type) == (near.id, stream_type)
                async with trio.open_nursery() as nursery:

                    async def go_on(near: MuxadoStream = near) -> None:
                        await near.send_all(b"the end")
                        await near.send_eof()

                    nursery.start_soon(go_on)
                    received = await read_all(far)
                assert received.endswith(b"the end")
                assert content.startswith(received.removesuffix(b"the end"))
            number += 1
        assert number > 1


@each_wire
async def test_wait_send_all_might_not_block_waits_for_room(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        with assert_checkpoints():
            await near.wait_send_all_might_not_block()
        await fill(near)
        woken = trio.Event()

        async def wait() -> None:
            with assert_checkpoints():
                await near.wait_send_all_might_not_block()
            woken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not woken.is_set()
            await read_exactly(far, kind.window)
            await woken.wait()


SENDING: dict[str, Callable[[MuxadoStream], Awaitable[None]]] = {
    "send_all": lambda stream: stream.send_all(b"x"),
    "send_nothing": lambda stream: stream.send_all(b""),
    "send_empty_bytearray": lambda stream: stream.send_all(bytearray()),
    "send_bytearray": lambda stream: stream.send_all(bytearray(b"x")),
    "wait": lambda stream: stream.wait_send_all_might_not_block(),
    "send_eof": lambda stream: stream.send_eof(),
}
each_sender = pytest.mark.parametrize("name", SENDING)


@each_sender
async def test_two_senders_are_a_bug_of_the_caller(name: str) -> None:
    async with stream_pair(V1, **STEADY) as (near, far):
        await fill(near)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, b"first")
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await SENDING[name](near)
            received = await read_exactly(far, V1.window + SEND_BUFFER + len(b"first"))
        assert received.endswith(b"first")
        await near.send_all(b"second")
        assert await far.receive_some() == b"second"


async def test_sending_and_receiving_at_once_is_what_a_stream_is_for() -> None:
    async with stream_pair(V1, **STEADY) as (near, far):
        await fill(near)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, b"x")
            nursery.start_soon(near.receive_some)
            await wait_all_tasks_blocked()
            await far.send_all(b"y")
            await read_exactly(far, V1.window + SEND_BUFFER + 1)


@each_sender
async def test_sending_is_a_checkpoint_even_of_nothing(name: str) -> None:
    async with stream_pair(V1, **STEADY) as (near, far):
        with trio.CancelScope() as scope:
            scope.cancel()
            await SENDING[name](near)
        assert scope.cancelled_caught
        with assert_checkpoints():
            await SENDING[name](near)
        if name == "send_eof":
            assert await far.receive_some() == b""


# ---- ending one direction


@each_kind
async def test_send_eof_ends_one_direction_only(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(b"question")
        await near.send_eof()
        for name in ("send_all", "send_nothing", "wait"):
            with pytest.raises(StreamClosedError):
                await SENDING[name](near)
        assert await read_all(far) == b"question"
        await far.send_all(b"answer")
        await far.send_eof()
        assert await read_all(near) == b"answer"
        with assert_checkpoints():
            await near.send_eof()
        with pytest.raises(StreamClosedError):
            await far.send_all(b"more")


@each_wire
async def test_send_eof_stays_behind_data_that_waits_for_window(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(bytes(kind.window) + b"the end")
        with assert_checkpoints():
            await near.send_eof()
        received = await read_all(far)
        assert len(received) == kind.window + 7
        assert received.endswith(b"the end")


@each_wire
async def test_send_eof_after_aclose_is_an_error(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, _):
        await near.aclose()
        with pytest.raises(StreamClosedError):
            await near.send_eof()


@each_wire
async def test_send_eof_on_a_reset_stream_is_an_error(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await far.reset()
        await wait_all_tasks_blocked()
        with pytest.raises(StreamResetError):
            await near.send_eof()


# ---- closing


@each_kind
async def test_aclose_delivers_all_that_was_sent(kind: Kind) -> None:
    content = bytes(kind.window + SEND_BUFFER)
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(content)
        async with near:
            pass
        assert await read_all(far) == content


CALLS: dict[str, Callable[[MuxadoStream], Awaitable[Any]]] = {
    **SENDING,
    "receive": lambda stream: stream.receive_some(),
}
each_call = pytest.mark.parametrize("name", CALLS)


@each_call
async def test_a_closed_stream_is_closed_for_every_call(name: str) -> None:
    async with stream_pair(V1, **STEADY) as (near, far):
        await far.send_all(b"never read")
        await near.aclose()
        seen: list[StreamClosedError] = []
        for _ in range(2):
            with pytest.raises(StreamClosedError, match="this end has closed") as caught:
                await CALLS[name](near)
            assert caught.value not in seen  # raised twice, it would collect both tracebacks
            seen.append(caught.value)
            assert isinstance(caught.value, trio.ClosedResourceError)
            assert (caught.value.code, caught.value.initiator) == (ErrorCode.NO_ERROR, "local")
            assert caught.value.__cause__ is None
            assert caught.value.__suppress_context__ or caught.value.__context__ is None


@each_call
async def test_closed_beats_broken(name: str) -> None:
    async with stream_pair(V1, **STEADY) as (near, far):
        await far.reset()
        await wait_all_tasks_blocked()
        await near.aclose()
        with pytest.raises(StreamClosedError):
            await CALLS[name](near)


@pytest.mark.parametrize("how", ["aclose", "reset", "forcefully"])
@pytest.mark.parametrize("name", ["send_all", "wait", "receive"])
async def test_closing_wakes_whoever_waits_on_the_stream(name: str, how: str) -> None:
    close: dict[str, Callable[[MuxadoStream], Awaitable[None]]] = {
        "aclose": lambda stream: stream.aclose(),
        "reset": lambda stream: stream.reset(),
        "forcefully": trio.aclose_forcefully,
    }
    async with stream_pair(V1, **STEADY) as (near, _):
        await fill(near)
        outcomes: list[Any] = []

        async def wait() -> None:
            outcomes.append(await outcome_of(lambda: CALLS[name](near)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not outcomes
            await close[how](near)
        assert isinstance(outcomes[0], StreamClosedError)


@pytest.mark.parametrize("leftover", [False, True])
@each_wire
async def test_closing_between_arrival_and_receipt(kind: Kind, leftover: bool) -> None:
    """Data is there for the receiver, and before that one runs another task closes the stream.

    Trio runs the two in random order, so it is tried until that has been seen.
    """
    seen = set()
    for _ in range(100):
        async with raw_session(kind) as (session, peer):
            peer.send(peer.syn(3), peer.data(3, b"data"))
            stream = await session.accept_stream()
            await wait_all_tasks_blocked()
            if leftover:
                assert await stream.receive_some(1) == b"d"
            outcomes: list[Any] = []

            async def receive(
                stream: MuxadoStream = stream, outcomes: list[Any] = outcomes
            ) -> None:
                outcomes.append(await outcome_of(stream.receive_some))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                nursery.start_soon(stream.aclose)
            assert type(outcomes[0]) in (bytes, StreamClosedError)
            seen.add(type(outcomes[0]))
    assert StreamClosedError in seen


@each_wire
async def test_a_cancelled_aclose_resets_the_stream(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(bytes(kind.window + 1000))
        await wait_all_tasks_blocked()  # the window is used up
        await trio.aclose_forcefully(near)
        await wait_all_tasks_blocked()
        received = bytearray()
        with pytest.raises(StreamResetError) as caught:
            while True:
                received += await far.receive_some()
        assert (caught.value.code, caught.value.initiator) == (ErrorCode.STREAM_CANCELLED, "remote")
        assert len(received) == kind.window  # what waited for window was dropped
        with pytest.raises(StreamClosedError):
            await near.send_all(b"x")


@each_wire
async def test_a_peer_that_waits_for_window_is_told_that_the_stream_is_closed(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await fill(near)
        outcomes: list[Any] = []

        async def send() -> None:
            outcomes.append(await outcome_of(lambda: near.send_all(bytes(10 * kind.window))))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await far.aclose()
        (error,) = outcomes
        assert isinstance(error, StreamResetError)
        assert (error.code, error.initiator) == (ErrorCode.STREAM_CLOSED, "remote")
        assert not error.safe_to_retry


@each_wire
async def test_aclose_gives_the_credit_back_and_answers_data_once(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, bytes(1000)))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        await stream.aclose()
        frames = await peer.frames()
        assert WndInc(3, 1000) in frames
        assert Data(3, 0, b"", syn=False, fin=True) in frames
        peer.send(peer.data(3, b"late"), peer.data(3, b"later"))
        code = peer.wire.code_to_wire(ErrorCode.STREAM_CLOSED)
        assert await peer.frames() == [Rst(3, code)]


@each_wire
async def test_aclose_after_the_peers_end_is_the_end_of_the_stream(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, fin=True))
        stream = await session.accept_stream()
        assert await stream.receive_some() == b""
        with assert_checkpoints():
            await stream.aclose()
        assert await peer.frames() == [Data(3, 0, b"", syn=False, fin=True)]
        with assert_checkpoints():
            await stream.aclose()
        assert await peer.frames() == []


# ---- resets


@each_kind
@pytest.mark.parametrize(
    "code, seen", [(ErrorCode.INTERNAL_ERROR, ErrorCode.INTERNAL_ERROR), (4711, 4711)]
)
async def test_reset_tells_the_peer_the_code(
    kind: Kind, code: ErrorCode | int, seen: ErrorCode | int
) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await wait_all_tasks_blocked()
        with assert_checkpoints():
            await near.reset(code)
        await wait_all_tasks_blocked()
        for name in ("send_all", "wait", "send_eof", "receive"):
            with pytest.raises(StreamResetError) as caught:
                await CALLS[name](far)
            assert isinstance(caught.value, trio.BrokenResourceError)
            assert (caught.value.code, caught.value.initiator) == (seen, "remote")


@pytest.mark.parametrize("code", [-1, 2**32, "CANCEL"])
async def test_reset_checks_the_code(code: Any) -> None:
    async with stream_pair(V1, **STEADY) as (near, far):
        with pytest.raises((ValueError, TypeError)):
            await near.reset(code)
        await near.send_all(b"nothing happened")
        assert await far.receive_some() == b"nothing happened"


@each_wire
async def test_reset_takes_effect_even_when_cancelled(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.reset(ErrorCode.INTERNAL_ERROR)
        assert scope.cancelled_caught
        with pytest.raises(StreamResetError, match="INTERNAL_ERROR"):
            await far.receive_some()


@each_wire
async def test_reset_after_aclose_drops_what_still_waits(kind: Kind) -> None:
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(bytes(kind.window + 1000))
        await near.aclose()
        await wait_all_tasks_blocked()  # the window is used up
        await near.reset()
        await wait_all_tasks_blocked()
        await read_exactly(far, kind.window)
        with pytest.raises(StreamResetError):
            await far.receive_some()


@each_wire
async def test_data_before_a_reset_can_still_be_read(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, b"data"), peer.rst(3, ErrorCode.STREAM_CANCELLED))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        assert await stream.receive_some(2) == b"da"
        assert await stream.receive_some() == b"ta"
        for _ in range(2):
            with pytest.raises(StreamResetError) as caught:
                await stream.receive_some()
            assert caught.value.code is ErrorCode.STREAM_CANCELLED


@each_wire
async def test_a_reset_wakes_a_receiver_and_a_sender(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        stream = await session.accept_stream()
        await fill(stream)
        outcomes: list[Any] = []

        async def call(name: str) -> None:
            outcomes.append(await outcome_of(lambda: CALLS[name](stream)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "receive")
            nursery.start_soon(call, "send_all")
            await wait_all_tasks_blocked()
            peer.send(peer.rst(3, ErrorCode.INTERNAL_ERROR))
        assert [type(outcome) for outcome in outcomes] == [StreamResetError] * 2
        assert outcomes[0] is not outcomes[1]


@each_wire
async def test_a_reset_behind_the_end_does_not_wipe_it_out(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(
            peer.syn(3), peer.data(3, b"data", fin=True), peer.rst(3, ErrorCode.STREAM_CLOSED)
        )
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        assert await stream.receive_some() == b"data"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""
        with pytest.raises(StreamResetError):
            await stream.send_all(b"x")


@each_wire
async def test_too_much_data_resets_the_stream_and_nothing_else(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        size = kind.window // 5
        peer.send(peer.syn(3), peer.syn(5), *(peer.data(3, bytes(size)) for _ in range(6)))
        stream = await session.accept_stream()
        other = await session.accept_stream()
        await wait_all_tasks_blocked()  # nothing is read before all has come
        assert len(await read_exactly(stream, 5 * size)) == 5 * size
        with pytest.raises(StreamResetError) as caught:
            await stream.receive_some()
        error = caught.value
        assert (error.code, error.initiator) == (ErrorCode.FLOW_CONTROL_ERROR, "local")
        peer.send(peer.data(5, b"fine"))
        assert await other.receive_some() == b"fine"


@each_wire
async def test_a_stream_refused_before_it_was_used_is_safe_to_retry(kind: Kind) -> None:
    for answered in (False, True):
        async with raw_session(kind, client=True) as (session, peer):
            stream = await session.open_stream()
            await stream.send_all(b"request")
            if answered:
                peer.send(peer.data(3, b"x"))
            peer.send(peer.rst(3, ErrorCode.STREAM_REFUSED))
            await wait_all_tasks_blocked()
            with pytest.raises(StreamResetError) as caught:
                await stream.send_all(b"more")
            assert caught.value.safe_to_retry is not answered


# ---- the session ends under a stream


@each_wire
async def test_the_sessions_end_is_no_end_of_the_stream(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), peer.data(3, b"data"), peer.syn(5), peer.data(5, b"all", fin=True))
        cut = await session.accept_stream()
        whole = await session.accept_stream()
        peer.end()
        await session.wait_closed()
        assert await cut.receive_some() == b"data"
        for name in ("receive", "send_all", "wait", "send_eof"):
            with pytest.raises(SessionEndedError) as caught:
                await CALLS[name](cut)
            assert caught.value.initiator == "transport"
            assert caught.value.code is ErrorCode.PEER_EOF
        assert await read_all(whole) == b"all"
        await cut.aclose()
        await whole.aclose()


@each_wire
async def test_every_error_is_new(kind: Kind) -> None:
    """An exception that is raised twice would collect both tracebacks, and anger both catchers."""
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        stream = await session.accept_stream()
        peer.end()
        await session.wait_closed()
        errors: list[MuxadoError] = []
        for name in ("receive", "receive", "send_all", "send_all"):
            with pytest.raises(MuxadoError) as caught:
                await CALLS[name](stream)
            errors.append(caught.value)
        assert len(set(map(id, errors))) == 4


@each_wire
async def test_closing_a_stream_frees_what_was_not_read(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), *(peer.data(3, b"x") for _ in range(100)))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        await stream.receive_some(10)
        await stream.aclose()
        assert (stream._received.size, stream._received.chunks) == (0, [])


def test_raw_peer_speaks_both_wires() -> None:
    """The helper itself: a SYN is a frame of its own on v1 and a flag on v2."""
    assert RawPeer(V1).syn(3).hex() == "0000000100000003"


@each_kind
async def test_using_a_closed_stream_tells_what_had_broken_it(kind: Kind) -> None:
    """Another task may have closed it for that, before this one could hear of it."""
    for broken in (True, False):
        async with stream_pair(kind) as (near, far):
            if broken:
                await far.reset(ErrorCode.INTERNAL_ERROR)
                await wait_all_tasks_blocked()
            await near.aclose()
            with pytest.raises(StreamClosedError) as caught:
                await near.receive_some()
            assert isinstance(caught.value.__cause__, StreamResetError) is broken
