"""What MuxadoStream promises of closing and resetting."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_muxado import ErrorCode, MuxadoStream, StreamClosedError, StreamResetError
from trio_muxado._protocol.frames import Data, Rst, WndInc

from .helpers import (
    CALLS,
    SEND_BUFFER,
    STEADY,
    V1,
    Kind,
    each_call,
    each_kind,
    each_wire,
    fill,
    outcome_of,
    raw_session,
    read_all,
    read_exactly,
    stream_pair,
)

# ---- closing


@each_kind
async def test_aclose_delivers_all_that_was_sent(kind: Kind) -> None:
    content = bytes(kind.window + SEND_BUFFER)
    async with stream_pair(kind, **STEADY) as (near, far):
        await near.send_all(content)
        async with near:
            pass
        assert await read_all(far) == content


@each_call
async def test_a_closed_stream_is_closed_for_every_call(name: str) -> None:
    async with stream_pair(V1, **STEADY) as (near, far):
        await far.send_all(b"never read")
        await near.aclose()
        seen: list[StreamClosedError] = []
        for _ in range(2):
            with pytest.raises(StreamClosedError, match="this side has closed") as caught:
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
        eighth = peer.wire.initial_window // 8
        peer.send(peer.syn(3), *[peer.data(3, bytes(eighth))] * 4)
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        await stream.aclose()
        frames = await peer.frames()
        assert WndInc(3, 4 * eighth) in frames
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


@each_wire
async def test_closing_a_stream_frees_what_was_not_read(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3), *(peer.data(3, b"x") for _ in range(100)))
        stream = await session.accept_stream()
        await wait_all_tasks_blocked()
        await stream.receive_some(10)
        await stream.aclose()
        assert stream._received.size == 0


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
