"""What joins two streams: an end comes over as an end, and a break as a break, from any kind of
stream to any other.

TCP and TLS are here because memory knows neither a reset nor a lost close_notify.
"""

import random
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    Forwarded,
    ForwardedDirection,
    MuxadoStream,
    SessionClosedError,
    SessionEndedError,
    StreamResetError,
    forward,
)
from trio_muxado._transport.peer import lowest

from .helpers import (
    V1,
    HalfCloseable,
    Kind,
    Transport,
    Turns,
    each_wire,
    read_all,
    read_exactly,
    session_pair,
    stream_pair,
)
from .helpers.carriers import (
    CARRIERS,
    CODE,
    MEMORY,
    STREAM_V1,
    STREAM_V2,
    TCP,
    TLS,
    TLS_IN_STREAM,
    Carrier,
    Contexts,
    Ends,
    break_far,
    codes_of,
    open_ends,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

IDLE = 10.0


@pytest.fixture
def contexts(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> Contexts:
    return Contexts(client_context, server_context)


each_a = pytest.mark.parametrize("kind_a", CARRIERS, ids=str)
each_b = pytest.mark.parametrize("kind_b", CARRIERS, ids=str)


class Joined:
    """A forward that runs, and whoever is at the other ends of its streams."""

    def __init__(self, a: Ends, b: Ends) -> None:
        self.a = a
        self.b = b
        self.result: Forwarded | None = None
        self.scope = trio.CancelScope()
        self.done = trio.Event()

    async def run(self, **options: Any) -> None:
        try:
            with self.scope:
                self.result = await forward(self.a.near, self.b.near, **options)
        finally:
            self.done.set()

    async def ended(self) -> Forwarded:
        await self.done.wait()
        assert self.result is not None
        return self.result


@asynccontextmanager
async def joined(
    kind_a: Carrier, kind_b: Carrier, contexts: Contexts, **options: Any
) -> AsyncGenerator[Joined, None]:
    async with open_ends(kind_a, contexts) as a, open_ends(kind_b, contexts) as b:
        async with trio.open_nursery() as nursery:
            join = Joined(a, b)
            nursery.start_soon(lambda: join.run(**options))
            yield join


async def end(far: Any) -> None:
    """End a direction; of TLS, which returns when the other direction has ended as well."""
    if isinstance(far, trio.SSLStream):
        await far.unwrap()
    else:
        await far.send_eof()


async def expect_break(kind: Carrier, far: Any, code: Any = None) -> None:
    """All that is left to receive is a break, with its code where the kind has codes."""
    if kind.breaks:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await read_all(far)
        if kind.has_codes and code is not None:
            assert code in codes_of(caught.value)
    with pytest.raises(trio.BrokenResourceError):
        while True:  # the first bytes may be on their way before the news has come
            await far.send_all(bytes(100_000))


def whole(there: int, back: int) -> Forwarded:
    return Forwarded(ForwardedDirection(there, "eof"), ForwardedDirection(back, "eof"))


# ---- an end


@each_a
@each_b
async def test_an_end_comes_over_and_the_other_direction_goes_on(
    kind_a: Carrier, kind_b: Carrier, contexts: Contexts
) -> None:
    async with joined(kind_a, kind_b, contexts) as join:
        near, far = join.a.far, join.b.far
        if not kind_a.half_closes:
            near, far = far, near  # it is the other that ends first
        if isinstance(near, trio.SSLStream):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.unwrap)
                await wait_all_tasks_blocked()
                assert join.result is None
                await far.unwrap()
            assert await join.ended() == whole(0, 0)
            return
        await near.send_all(b"a question")
        await end(near)
        if isinstance(far, trio.SSLStream):
            assert await read_exactly(far, 10) == b"a question"
            await wait_all_tasks_blocked()
        else:
            assert await read_all(far) == b"a question"
        await far.send_all(b"answer")
        await end(far)
        assert await read_all(near) == b"answer"
        result = await join.ended()
        assert result == (whole(10, 6) if near is join.a.far else whole(6, 10))
        assert result.clean


@cache
def payload(number: int, size: int) -> bytes:
    """What that side sends: bytes that are nowhere the same."""
    return random.Random(number).randbytes(size)


@each_a
@each_b
async def test_much_comes_over_in_both_directions_at_once(
    kind_a: Carrier, kind_b: Carrier, contexts: Contexts
) -> None:
    """More than all windows and buffers hold."""
    size = 3_000_000
    received: dict[int, bytes] = {}

    async def send(far: Any, data: bytes) -> None:
        await far.send_all(data)

    async def receive(far: Any, number: int) -> None:
        received[number] = await read_exactly(far, size)

    async with joined(kind_a, kind_b, contexts) as join:
        async with trio.open_nursery() as nursery:
            for number, far in enumerate((join.a.far, join.b.far)):
                nursery.start_soon(send, far, payload(number, size))
                nursery.start_soon(receive, far, 1 - number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end, join.a.far)
            nursery.start_soon(end, join.b.far)
        assert await join.ended() == whole(size, size)
    for number in (0, 1):
        same = received[number] == payload(number, size)
        assert same  # pytest would look for the difference for minutes


async def test_a_side_that_cannot_be_half_closed_is_closed_when_both_directions_have_ended(
    contexts: Contexts,
) -> None:
    """Any wrapper may lack ``send_eof``, not TLS alone."""
    a, far_a = memory_stream_pair()
    b, far_b = memory_stream_pair()
    wrapper = Transport(b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forward, a, wrapper)
        await far_a.send_eof()
        await wait_all_tasks_blocked()
        assert not wrapper.closed
        await far_b.send_eof()
        await wait_all_tasks_blocked()
        assert wrapper.closed


class Endless(HalfCloseable):
    """Has always more to give, and counts it."""

    given = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        self.given += 65536
        return bytes(65536)


async def test_a_sink_that_takes_nothing_stops_its_source() -> None:
    a = Endless(memory_stream_pair()[0])
    async with stream_pair(V1, heartbeat=None) as (b, far_b):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward, a, b)
            await wait_all_tasks_blocked()
            assert a.given < 1_000_000
            await read_exactly(far_b, 5_000_000)
            await wait_all_tasks_blocked()
            assert 5_000_000 < a.given < 9_000_000
            nursery.cancel_scope.cancel()


# ---- a break


@each_a
@each_b
async def test_a_break_comes_over_as_a_break(
    kind_a: Carrier, kind_b: Carrier, contexts: Contexts
) -> None:
    async with joined(kind_a, kind_b, contexts) as join:
        await join.a.far.send_all(b"so far")
        assert await read_exactly(join.b.far, 6) == b"so far"
        await break_far(join.a.far)
        if not kind_a.breaks:
            await join.b.far.send_all(b"who is there?")
        result = await join.ended()
        await expect_break(kind_b, join.b.far, CODE if kind_a.has_codes else None)
        assert result.a_to_b == ForwardedDirection(6, "broken")
        assert result.b_to_a.end == "broken"
        assert isinstance(result.error, trio.BrokenResourceError)
        assert not result.clean
        if kind_a.has_codes:
            assert CODE in codes_of(result.error)


ROUNDS = 6
"""Which of two tasks that a socket wakes runs first is chance: one of each in so many rounds."""


@pytest.mark.parametrize("kind_a", [TCP, TLS], ids=str)
@each_b
async def test_a_break_of_a_side_that_is_being_sent_to_is_no_end(
    kind_a: Carrier, kind_b: Carrier, contexts: Contexts
) -> None:
    """Sending takes the only error of a socket that was reset: receiving is left with an end."""
    for _ in range(ROUNDS):
        async with joined(kind_a, kind_b, contexts) as join:
            for each, option in ((join.a.near, socket.SO_SNDBUF), (join.a.far, socket.SO_RCVBUF)):
                lowest(each).setsockopt(socket.SOL_SOCKET, option, 4096)
            await join.a.far.send_all(b"so far")
            assert await read_exactly(join.b.far, 6) == b"so far"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(join.b.far.send_all, bytes(1_000_000))
                await wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
            await break_far(join.a.far)
            result = await join.ended()
            assert (result.a_to_b.end, result.b_to_a.end) == ("broken", "broken")
            await expect_break(kind_b, join.b.far)


class ResetWhileSending(HalfCloseable):
    """As trio's socket: sending takes the only error, and raises it in a later pass of the loop."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._was_reset = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._was_reset.set()
        await trio.lowlevel.cancel_shielded_checkpoint()
        raise trio.BrokenResourceError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._was_reset.wait()
        return b""


async def test_a_break_that_sending_has_not_raised_yet_is_no_end() -> None:
    for _ in range(20):  # tasks run in random order
        async with stream_pair(V1, heartbeat=None) as (b, far_b):
            a = ResetWhileSending(memory_stream_pair()[0])
            await far_b.send_all(b"for whom?")
            result = await forward(a, b)
            assert (result.a_to_b.end, result.b_to_a.end) == ("broken", "broken")
            with pytest.raises(StreamResetError):
                await far_b.receive_some()


@each_a
@each_b
async def test_a_break_behind_an_end_comes_over_as_well(
    kind_a: Carrier, kind_b: Carrier, contexts: Contexts
) -> None:
    """A whole upload, and then nobody is there for the answer."""
    if not kind_a.half_closes:
        kind_a, kind_b = kind_b, kind_a
    if not kind_a.half_closes:
        return  # neither can end and go on
    async with joined(kind_a, kind_b, contexts) as join:
        await join.a.far.send_all(b"upload")
        await end(join.a.far)
        assert await read_exactly(join.b.far, 6) == b"upload"
        await wait_all_tasks_blocked()
        await break_far(join.a.far)
        with pytest.raises(trio.BrokenResourceError):
            while True:  # nothing tells of the break until something is sent
                await join.b.far.send_all(b"answer")
                await wait_all_tasks_blocked()
        result = await join.ended()
        assert result.b_to_a.end == "broken"
        assert result.a_to_b.end == ("eof" if kind_b.half_closes else "broken")


@pytest.mark.parametrize("kind_a", [STREAM_V1, STREAM_V2], ids=str)
@each_b
async def test_a_reset_behind_an_end_comes_over_before_anything_is_sent(
    kind_a: Carrier, kind_b: Carrier, contexts: Contexts
) -> None:
    """A request that was cancelled while its answer is being made."""
    async with joined(kind_a, kind_b, contexts) as join:
        await join.a.far.send_all(b"upload")
        await join.a.far.send_eof()
        assert await read_exactly(join.b.far, 6) == b"upload"
        await wait_all_tasks_blocked()
        await join.a.far.reset(CODE)
        result = await join.ended()
        assert result.b_to_a.end == "broken"
        assert isinstance(result.error, StreamResetError)
        assert result.error.code == CODE


async def test_a_reset_behind_both_ends_breaks_nothing() -> None:
    (a, far_a), pair = memory_stream_pair(), stream_pair(V1, heartbeat=None)
    async with pair as (b, far_b):
        await far_b.send_eof()
        await far_a.send_eof()
        result = await forward(a, b)
        await far_b.reset()
        assert result == whole(0, 0)
        assert await far_a.receive_some() == b""


class Script(HalfCloseable):
    """Receives what a test says, one after the other and without a wait, then raises."""

    def __init__(self, inner: Any, *script: bytes | BaseException) -> None:
        super().__init__(inner)
        self._script = list(script)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await trio.lowlevel.checkpoint()
        step = self._script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step


@each_b
async def test_what_came_before_a_break_comes_over_before_it(
    kind_b: Carrier, contexts: Contexts
) -> None:
    for _ in range(20):  # tasks run in random order
        near, _far = memory_stream_pair()
        async with open_ends(kind_b, contexts) as b:
            source = Script(near, b"an answer, ", b"cut off", trio.BrokenResourceError())
            result = await forward(source, b.near)
            assert result.a_to_b == ForwardedDirection(18, "broken")
            assert await read_exactly(b.far, 18) == b"an answer, cut off"
            await expect_break(kind_b, b.far, ErrorCode.STREAM_CANCELLED)


@each_wire
@pytest.mark.parametrize("here", [False, True], ids=["broke", "closed here"])
@pytest.mark.parametrize("has_ended", [False, True], ids=["both run", "one has ended"])
async def test_the_end_of_a_session_breaks_the_other_side(
    kind: Kind, here: bool, has_ended: bool
) -> None:
    """Closed here it is no error of the forward either: who stops a session ends what runs."""
    async with stream_pair(V1, heartbeat=None) as (a, far_a):
        async with session_pair(kind, heartbeat=None) as (client, server):
            b = await client.open_stream()
            far_b = await server.accept_stream()
            async with trio.open_nursery() as nursery:
                join = Joined(Ends(a, far_a), Ends(b, None))
                nursery.start_soon(join.run)
                if has_ended:
                    await far_b.send_eof()
                    assert await far_a.receive_some() == b""
                await wait_all_tasks_blocked()
                if here:
                    await client.aclose()
                else:
                    await trio.aclose_forcefully(server)
            error = SessionClosedError if here else SessionEndedError
            result = await join.ended()
            assert isinstance(result.error, error)
            assert result.a_to_b.end == "broken"
            broken = await far_a.wait_broken()
            assert isinstance(broken, StreamResetError)
            assert broken.code is ErrorCode.STREAM_CANCELLED


async def test_two_halves_break_as_one() -> None:
    """What is stapled of two streams, each of which could be read as ended."""
    async with stream_pair(V1, heartbeat=None) as (out, far_out):
        async with stream_pair(V1, heartbeat=None) as (back, far_back):
            a = Script(memory_stream_pair()[0], trio.BrokenResourceError())
            await forward(a, trio.StapledStream(out, back))
            for far in (far_out, far_back):
                with pytest.raises(StreamResetError):
                    await far.receive_some()


async def test_a_wrapper_that_shows_what_it_wraps_breaks_it() -> None:
    async with stream_pair(V1, heartbeat=None) as (inner, far):
        wrapper = Transport(inner)
        wrapper.transport_stream = inner  # type: ignore[attr-defined]
        a = Script(memory_stream_pair()[0], trio.BrokenResourceError())
        await forward(a, wrapper)
        assert wrapper.closed
        with pytest.raises(StreamResetError):
            await far.receive_some()


# ---- cancellation


@each_a
@each_b
async def test_cancelling_breaks_both(kind_a: Carrier, kind_b: Carrier, contexts: Contexts) -> None:
    async with joined(kind_a, kind_b, contexts) as join:
        await join.a.far.send_all(b"part")
        assert await read_exactly(join.b.far, 4) == b"part"
        await wait_all_tasks_blocked()
        join.scope.cancel()
        await join.done.wait()
        assert join.scope.cancelled_caught
        await expect_break(kind_a, join.a.far, ErrorCode.STREAM_CANCELLED)
        await expect_break(kind_b, join.b.far, ErrorCode.STREAM_CANCELLED)


class CancelInTurn(trio.abc.Instrument):
    """Cancels a scope in the given turn of trio's loop, between the tasks' steps."""

    def __init__(self, turns: int, scope: trio.CancelScope) -> None:
        self._left = turns
        self._scope = scope

    def after_io_wait(self, timeout: float) -> None:
        self._left -= 1
        if self._left < 0:
            self._scope.cancel()


@each_wire
async def test_cancelled_at_any_moment_it_never_makes_a_part_look_whole(kind: Kind) -> None:
    """An upload goes from one session to another and is cut somewhere."""
    size = 200_000
    outcomes: list[bool] = []
    while outcomes[-3:] != [True] * 3:
        async with stream_pair(kind, heartbeat=None) as (a, far_a):
            async with stream_pair(kind, heartbeat=None) as (b, far_b):
                async with trio.open_nursery() as nursery:
                    join = Joined(Ends(a, far_a), Ends(b, far_b))
                    cut = CancelInTurn(3 * len(outcomes), join.scope)
                    trio.lowlevel.add_instrument(cut)
                    nursery.start_soon(join.run)
                    try:
                        await far_a.send_all(bytes(size))
                        await far_a.send_eof()
                        assert len(await read_all(far_b)) == size
                        await far_b.send_all(b"thanks")
                        await far_b.send_eof()
                        assert await read_all(far_a) == b"thanks"
                        outcomes.append(True)
                    except trio.BrokenResourceError:
                        outcomes.append(False)
                    await join.done.wait()
                    trio.lowlevel.remove_instrument(cut)
    assert outcomes.count(False) > 5


# ---- errors


@pytest.mark.parametrize("first", [True, False], ids=["reads", "writes"])
async def test_two_breaks_at_once_are_one(first: bool) -> None:
    """As when a visitor resets a download: neither a group nor a raise."""
    a = Script(memory_stream_pair()[0], trio.BrokenResourceError("one"))
    b = Script(memory_stream_pair()[0], trio.BrokenResourceError("two"))
    result = await (forward(a, b) if first else forward(b, a))
    assert str(result.error) in ("one", "two")
    assert (result.a_to_b.end, result.b_to_a.end) == ("broken", "broken")


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), SystemExit(3)])
async def test_an_error_of_the_program_comes_out_bare(error: BaseException) -> None:
    for other in (ValueError("another"), trio.BrokenResourceError()):
        async with stream_pair(V1, heartbeat=None) as (b, _):
            a = Script(memory_stream_pair()[0], b"part", error)
            failing = Script(b, b"x", b"x", b"x", other)
            with pytest.raises(BaseException) as caught:  # noqa: PT011
                await forward(a, failing)
            assert not isinstance(caught.value, BaseExceptionGroup)
            assert caught.value in (error, other)


async def test_an_error_of_the_program_breaks_both() -> None:
    async with stream_pair(V1, heartbeat=None) as (b, far_b):
        with pytest.raises(ValueError, match="a bug"):
            await forward(Script(memory_stream_pair()[0], ValueError("a bug")), _shown(b))
        with pytest.raises(StreamResetError) as caught:
            await far_b.receive_some()
        assert caught.value.code is ErrorCode.INTERNAL_ERROR


def _shown(stream: MuxadoStream) -> Transport:
    wrapper = Transport(stream)
    wrapper.transport_stream = stream  # type: ignore[attr-defined]
    return wrapper


async def test_a_stream_that_this_program_closes_is_its_error() -> None:
    async with stream_pair(V1, heartbeat=None) as (a, _), stream_pair(V1, heartbeat=None) as (b, f):
        with pytest.raises(trio.ClosedResourceError):
            async with _alone() as nursery:
                nursery.start_soon(forward, a, b)
                await wait_all_tasks_blocked()
                await a.aclose()
        with pytest.raises(StreamResetError):
            await f.receive_some()


async def test_a_stream_that_another_task_uses_is_its_error() -> None:
    async with (
        stream_pair(V1, heartbeat=None) as (a, _),
        stream_pair(V1, heartbeat=None) as (b, _f),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_receive_and_be_closed, a)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await forward(a, b)


@pytest.mark.parametrize("kind", [TCP, STREAM_V1], ids=str)
async def test_a_side_that_cannot_be_used_is_the_program_s_error(
    kind: Carrier, contexts: Contexts
) -> None:
    """Sockets and streams of a session are copied to and from in fewer steps, but no less."""

    for ended in ("aclose", "send_eof"):
        a, far_a = memory_stream_pair()
        async with open_ends(kind, contexts) as b:
            await getattr(b.near, ended)()
            await far_a.send_all(b"for nobody")
            with pytest.raises(trio.ClosedResourceError):
                await forward(a, b.near)
    a, far_a = memory_stream_pair()
    async with open_ends(kind, contexts) as b, trio.open_nursery() as nursery:
        nursery.start_soon(_receive_and_be_closed, b.near)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await forward(a, b.near)
    async with open_ends(kind, contexts) as b:
        with pytest.raises(trio.ClosedResourceError):
            async with _alone() as nursery:
                nursery.start_soon(forward, memory_stream_pair()[0], b.near)
                await wait_all_tasks_blocked()
                await b.near.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="its sockets keep trio's own methods")
@each_wire
async def test_a_message_costs_a_step_each_way(kind: Kind, contexts: Contexts) -> None:
    """Of the forward's own tasks: each step is a pass of the loop that the message waits for."""
    async with open_ends(TCP, contexts) as a, stream_pair(kind, heartbeat=None) as b:
        async with trio.open_nursery() as nursery:
            join = Joined(a, Ends(*b))
            nursery.start_soon(join.run)
            await wait_all_tasks_blocked()
            turns = Turns("_serve")
            trio.lowlevel.add_instrument(turns)
            for _ in range(10):
                for far, other in ((a.far, b[1]), (b[1], a.far)):
                    await far.send_all(b"message")
                    assert await read_exactly(other, 7) == b"message"
                await wait_all_tasks_blocked()
            trio.lowlevel.remove_instrument(turns)
            assert turns.count == 20
            nursery.cancel_scope.cancel()


class OneBuffer(HalfCloseable):
    """Receives into the same buffer each time."""

    buffer = bytearray(1)
    left = 100

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await trio.lowlevel.checkpoint()
        if not self.left:
            return b""
        self.left -= 1
        self.buffer[0] = self.left
        return self.buffer


@each_b
async def test_what_a_source_still_changes_is_sent_as_it_was(
    kind_b: Carrier, contexts: Contexts
) -> None:
    async with open_ends(kind_b, contexts) as b, trio.open_nursery() as nursery:
        nursery.start_soon(forward, OneBuffer(memory_stream_pair()[0]), b.near)
        assert await read_exactly(b.far, 100) == bytes(reversed(range(100)))
        nursery.cancel_scope.cancel()


class GrowingBuffer(HalfCloseable):
    """Receives into the same buffer, which is as large as what comes: much, and then a byte."""

    def __init__(self, inner: Any, sizes: list[int]) -> None:
        super().__init__(inner)
        self._sizes = sizes
        self._buffer = bytearray()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await trio.lowlevel.checkpoint()
        self._buffer.clear()
        if self._sizes:
            self._buffer.extend(payload(0, self._sizes.pop(0)))
        return self._buffer


@each_b
async def test_a_source_can_use_its_buffer_again(kind_b: Carrier, contexts: Contexts) -> None:
    """Also where the sink did not take all of it at once."""
    sizes = [3_000_000, 1, 3_000_000]
    expected = b"".join(payload(0, size) for size in sizes)
    async with open_ends(kind_b, contexts) as b, trio.open_nursery() as nursery:
        source = GrowingBuffer(memory_stream_pair()[0], list(sizes))
        nursery.start_soon(forward, source, b.near)
        same = await read_exactly(b.far, len(expected)) == expected
        assert same
        nursery.cancel_scope.cancel()


async def _receive_and_be_closed(stream: trio.abc.Stream) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


@asynccontextmanager
async def _alone() -> AsyncGenerator[trio.Nursery, None]:
    """A nursery whose only error comes out bare."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        (error,) = group.exceptions
        raise error from None


@pytest.mark.parametrize(
    "make, error, name",
    [
        (lambda a, b: forward(a, None), TypeError, "b"),  # type: ignore[arg-type]
        (lambda a, b: forward("a", b), TypeError, "a"),  # type: ignore[arg-type]
        (lambda a, b: forward(a, a), ValueError, "same"),
        (lambda a, b: forward(a, b, idle_timeout=0), ValueError, "idle_timeout"),
        (lambda a, b: forward(a, b, idle_timeout=-1.0), ValueError, "idle_timeout"),
        (lambda a, b: forward(a, b, idle_timeout=float("nan")), ValueError, "idle_timeout"),
        (lambda a, b: forward(a, b, idle_timeout=True), TypeError, "idle_timeout"),
        (lambda a, b: forward(a, b, idle_timeout="1"), TypeError, "idle_timeout"),  # type: ignore[arg-type]
    ],
)
async def test_a_wrong_argument_is_named_before_anything_happens(
    make: Callable[..., Any], error: type[Exception], name: str
) -> None:
    (a, far_a), (b, _) = memory_stream_pair(), memory_stream_pair()
    with pytest.raises(error, match=rf"\b{name}\b"):
        await make(a, b)
    await a.send_all(b"still open")
    assert await far_a.receive_some() == b"still open"


# ---- idle


async def let_pass(clock: MockClock, seconds: float) -> None:
    """In steps that are too small for a pause of the process."""
    for _ in range(int(seconds)):
        clock.jump(1)
        await wait_all_tasks_blocked()


@each_a
@each_b
async def test_idle_streams_are_broken(
    kind_a: Carrier, kind_b: Carrier, contexts: Contexts, mock_clock: MockClock
) -> None:
    async with joined(kind_a, kind_b, contexts, idle_timeout=IDLE) as join:
        for far, other in ((join.a.far, join.b.far), (join.b.far, join.a.far)):
            await wait_all_tasks_blocked()
            await let_pass(mock_clock, IDLE - 1)  # each time anew
            await far.send_all(b"here")
            assert await read_exactly(other, 4) == b"here"
            await wait_all_tasks_blocked()
        await let_pass(mock_clock, IDLE - 1)
        assert join.result is None
        await let_pass(mock_clock, 1)
        result = await join.ended()
        idle = ForwardedDirection(4, "idle")
        assert result == Forwarded(idle, idle)
        await expect_break(kind_a, join.a.far, ErrorCode.STREAM_CANCELLED)
        await expect_break(kind_b, join.b.far, ErrorCode.STREAM_CANCELLED)


@pytest.mark.parametrize("kind_a", [MEMORY, TCP, STREAM_V1], ids=str)
@pytest.mark.parametrize("kind_b", [TLS, TLS_IN_STREAM], ids=str)
async def test_an_idle_side_that_waits_to_hear_the_end_hears_it(
    kind_a: Carrier, kind_b: Carrier, contexts: Contexts, mock_clock: MockClock
) -> None:
    """All that the one sent has come over; what the other might have sent has not."""
    async with joined(kind_a, kind_b, contexts, idle_timeout=IDLE) as join:
        await join.a.far.send_all(b"all of it")
        await join.a.far.send_eof()
        assert await read_exactly(join.b.far, 9) == b"all of it"
        await wait_all_tasks_blocked()
        await let_pass(mock_clock, IDLE - 1)
        assert join.result is None
        await let_pass(mock_clock, 1)
        assert await join.b.far.receive_some() == b""
        result = await join.ended()
        assert result == Forwarded(ForwardedDirection(9, "eof"), ForwardedDirection(0, "idle"))
        if kind_a.breaks:
            with pytest.raises(trio.BrokenResourceError):
                await join.a.far.receive_some()


async def test_a_sink_that_takes_nothing_is_idle(autojump_clock: MockClock) -> None:
    a, far_a = memory_stream_pair()
    async with stream_pair(V1, heartbeat=None) as (b, _):
        await far_a.send_all(bytes(10_000_000))
        result = await forward(a, b, idle_timeout=IDLE)
        assert result.a_to_b.end == "idle"
        assert trio.current_time() == IDLE


async def test_a_close_that_never_ends_is_idle(autojump_clock: MockClock) -> None:
    """TLS says goodbye through the flow control of what is below it."""

    class NeverCloses(Transport):
        async def aclose(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                self.closed = True

    (a, far_a), (b, far_b) = memory_stream_pair(), memory_stream_pair()
    never = NeverCloses(b)
    await far_a.send_eof()
    await far_b.send_eof()
    result = await forward(a, never, idle_timeout=IDLE)
    assert never.closed
    assert result == Forwarded(ForwardedDirection(0, "idle"), ForwardedDirection(0, "eof"))
    assert trio.current_time() == 2 * IDLE


async def test_a_pause_of_this_process_is_no_idle_time(mock_clock: MockClock) -> None:
    (a, far_a), (b, far_b) = memory_stream_pair(), memory_stream_pair()
    async with trio.open_nursery() as nursery:
        join = Joined(Ends(a, far_a), Ends(b, far_b))
        nursery.start_soon(lambda: join.run(idle_timeout=IDLE))
        await wait_all_tasks_blocked()
        mock_clock.jump(100 * IDLE)
        await wait_all_tasks_blocked()
        assert join.result is None
        await let_pass(mock_clock, IDLE - 1)
        assert join.result is None
        await let_pass(mock_clock, 1)
        assert (await join.ended()).a_to_b.end == "idle"


async def test_without_a_timeout_nothing_is_idle(autojump_clock: MockClock) -> None:
    (a, _), (b, _far) = memory_stream_pair(), memory_stream_pair()
    with trio.move_on_after(1e6) as scope:
        await forward(a, b)
    assert scope.cancelled_caught


async def test_filling_a_session_does_not_stop_another(contexts: Contexts) -> None:
    """Two forwards on one session: one whose sink takes nothing, one that goes on."""
    async with session_pair(V1, heartbeat=None) as (client, server):
        (a, far_a), (c, far_c) = memory_stream_pair(), memory_stream_pair()
        stuck, free = await client.open_stream(), await client.open_stream()
        await server.accept_stream()
        other = await server.accept_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward, a, stuck)
            nursery.start_soon(forward, c, free)
            await far_a.send_all(bytes(10_000_000))
            await far_c.send_all(b"through")
            assert await read_exactly(other, 7) == b"through"
            nursery.cancel_scope.cancel()
