"""What MuxadoStream promises of sending, ending its direction, and being cancelled in either."""

import array
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import MuxadoError, MuxadoStream, StreamClosedError, StreamResetError

from .helpers import (
    SEND_BUFFER,
    SENDING,
    STEADY,
    V1,
    Gated,
    Kind,
    cancel_at_checkpoint,
    each_kind,
    each_sender,
    each_wire,
    fill,
    outcome_of,
    read_all,
    read_exactly,
    session_pair,
    stream_pair,
)

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
        received = await read_exactly(far, kind.window + SEND_BUFFER)
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
