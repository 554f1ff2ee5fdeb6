"""What leaves the block of a session: what the body raised, what crashed, or an interrupt."""

import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Generator
from types import FrameType
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoStream,
    SessionClosedError,
    _connect,
    _nursery,
    _steps,
    client_session,
    server_session,
)
from trio_muxado._nursery import leaves
from trio_muxado._protocol.frames import GoAway

from .helpers import (
    V1,
    Deaf,
    Kind,
    RawPeer,
    each_wire,
    outcome_of,
    raw_session,
    session_pair,
    with_types,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

EXTENSION = 0xFFFFFF00


# ---- what the body raises comes out bare


def chained() -> Exception:
    """An exception with a cause and a context of its own."""
    try:
        try:
            raise LookupError("the context")
        except LookupError:
            raise ValueError("the body's own") from KeyError("the cause")
    except ValueError as error:
        return error


BODY_ERRORS: dict[str, Callable[[], BaseException]] = {
    "chained": chained,
    "plain": lambda: ValueError("plain"),
    "group": lambda: ExceptionGroup("the user's own group", [ValueError("one")]),
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "RuntimeError": lambda: RuntimeError("generator raised StopIteration"),
    "BrokenResourceError": lambda: trio.BrokenResourceError("of something else"),
    "MuxadoError": lambda: MuxadoError("not ours", code=0, initiator="local"),
}


@pytest.mark.parametrize("name", BODY_ERRORS)
@pytest.mark.parametrize("alive", [True, False])
async def test_what_the_body_raises_is_what_comes_out(name: str, alive: bool) -> None:
    error = BODY_ERRORS[name]()
    cause, context = error.__cause__, error.__context__
    near, far = memory_stream_pair()
    caught: BaseException | None = None
    try:
        async with client_session(near) as session:
            await session.open_stream()
            if not alive:
                await far.aclose()
                await session.wait_closed()
            raise error
    except BaseException as raised:
        caught = raised
    assert caught is error
    assert caught.__cause__ is cause
    assert caught.__context__ is context
    await far.aclose()


@each_wire
async def test_leaving_by_an_exception_is_at_once_and_without_a_word(
    kind: Kind, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    peer = RawPeer(kind)
    with pytest.raises(ValueError, match="at once"):
        async with server_session(peer.transport, config=kind.config(heartbeat=None)) as session:
            peer.send(peer.syn(3))
            stream = await session.accept_stream()
            await stream.send_all(b"x" * 100)
            raise ValueError("at once")
    assert trio.current_time() == start
    assert not [frame for frame in await peer.frames() if isinstance(frame, GoAway)]
    assert isinstance(await outcome_of(stream.receive_some), SessionClosedError)


async def test_an_outer_cancellation_stays_a_bare_cancelled() -> None:
    near, far = memory_stream_pair()
    for number in range(12):
        caught: BaseException | None = None
        near, far = memory_stream_pair()
        with trio.CancelScope() as scope:
            try:
                async with client_session(near) as session:
                    for _ in range(number):
                        await trio.lowlevel.checkpoint()
                    if number > 6:
                        await session.open_stream()
                    scope.cancel()
                    await trio.sleep_forever()
            except BaseException as error:
                caught = error
                raise
        assert type(caught) is trio.Cancelled
        assert scope.cancelled_caught
        await far.aclose()


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("attempt", range(10))
async def test_leaving_before_the_session_has_begun(turns: int, attempt: int) -> None:
    """In its first turns the tasks of a session have not all started; trio shuffles them."""
    near, far = memory_stream_pair()
    error = ValueError("too early")
    with pytest.raises(ValueError, match="too early") as caught:
        async with client_session(near):
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            raise error
    assert caught.value is error
    near, far = memory_stream_pair()
    with trio.CancelScope() as scope:
        async with client_session(near):
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    await far.aclose()


@each_wire
async def test_cancelled_while_leaving_is_at_once(kind: Kind, autojump_clock: MockClock) -> None:
    start = trio.current_time()
    with trio.move_on_after(1) as scope:
        async with client_session(Deaf(), config=kind.config(heartbeat=None)) as session:
            await session.open_stream()
    assert scope.cancelled_caught
    assert trio.current_time() - start == 1
    assert (await session.wait_closed()).clean


@each_wire
async def test_streams_still_work_in_the_clean_up_of_a_cancelled_body(kind: Kind) -> None:
    async with raw_session(kind) as (_, _peer):
        pass
    peer = RawPeer(kind)
    with trio.CancelScope() as scope:
        async with server_session(peer.transport, config=kind.config(heartbeat=None)) as session:
            peer.send(peer.syn(3))
            stream = await session.accept_stream()
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await stream.send_all(b"rollback")
                    await wait_all_tasks_blocked()
    await peer.frames()
    assert b"rollback" in peer.raw


# ---- crashes inside the session


@with_types
@pytest.mark.parametrize("body", ["waits on the session", "waits elsewhere", "in a nursery"])
@pytest.mark.parametrize("crash", [LookupError, SystemExit])
async def test_a_crash_in_an_extension_comes_out_bare(
    kind: Kind, body: str, crash: type[BaseException]
) -> None:
    """Whatever the body did when its session was taken away: the reason is the crash."""
    boom = crash("boom")

    async def handler(stream: MuxadoStream) -> None:
        await stream.receive_some()
        raise boom

    near, far = memory_stream_pair()
    async with client_session(near, config=kind.config()) as client:
        caught: BaseException | None = None
        stream = await client.open_stream(type=EXTENSION)
        await stream.send_all(b"go")
        try:
            config = kind.config(wire="auto", extensions={EXTENSION: handler})
            async with server_session(far, config=config) as server:
                if body == "waits on the session":
                    await server.accept_stream()
                elif body == "waits elsewhere":
                    await trio.sleep_forever()
                else:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(server.accept_stream)
                        nursery.start_soon(server.accept_stream)
        except BaseException as error:
            caught = error
        assert caught is boom
        reason = await server.wait_closed()
        assert (reason.code, reason.initiator) == (ErrorCode.INTERNAL_ERROR, "local")
        assert reason.error is boom


@with_types
async def test_a_crash_does_not_hide_what_the_body_raises(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: MuxadoStream) -> None:
        raise LookupError("the crash")

    near, far = memory_stream_pair()
    async with client_session(near, config=kind.config()) as client:
        await client.open_stream(type=EXTENSION)
        config = kind.config(wire="auto", extensions={EXTENSION: handler})
        with pytest.raises(ValueError, match="the body's own"):
            async with server_session(far, config=config) as server:
                try:
                    await server.accept_stream()
                finally:
                    raise ValueError("the body's own")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


@with_types
async def test_a_crash_in_a_nursery_of_an_extension_while_the_session_ends(kind: Kind) -> None:
    """What is Cancelled and what crashed come as one group; only the crash is the user's."""

    async def crash_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("while cancelled")

    async def handler(stream: MuxadoStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash_when_cancelled)
            await trio.sleep_forever()

    near, far = memory_stream_pair()
    async with client_session(near, config=kind.config()) as client:
        await client.open_stream(type=EXTENSION)
        config = kind.config(wire="auto", extensions={EXTENSION: handler})
        with pytest.raises(ExceptionGroup) as caught:
            async with server_session(far, config=config):
                await wait_all_tasks_blocked()
        assert [type(error) for error in caught.value.exceptions] == [LookupError]


async def test_a_tracer_that_crashes_comes_out_bare() -> None:
    boom = LookupError("in the tracer")

    def tracer(*args: Any) -> None:
        raise boom

    near, far = memory_stream_pair()
    with pytest.raises(LookupError) as caught:
        async with client_session(near, config=V1.config(tracer=tracer)) as session:
            await session.open_stream()
            await session.accept_stream()
    assert caught.value is boom
    await far.aclose()


# ---- KeyboardInterrupt: trio gives it to the main task, so these run trio by themselves


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible() -> Generator[None, None, None]:
    """A test run in the background may have been started with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("where", ["body", "leaving", "serve_streams"])
def test_an_interrupt_comes_out_bare(where: str) -> None:
    async def interrupt_soon() -> None:
        await wait_all_tasks_blocked()
        trio.lowlevel.spawn_system_task(interrupted)

    async def interrupted() -> None:
        # In a system task, which is protected: trio hands the interrupt to the main task.
        interrupt()

    async def main() -> None:
        near, far = memory_stream_pair()
        if where == "leaving":
            async with client_session(Deaf()) as session:
                await session.open_stream()
                trio.lowlevel.spawn_system_task(interrupt_soon)
        elif where == "body":
            async with client_session(near):
                trio.lowlevel.spawn_system_task(interrupt_soon)
                await trio.sleep_forever()
        else:
            # The peer has closed, and serve_streams waits for a handler.
            async with session_pair(V1, transports=(near, far)) as (client, server):
                await client.open_stream()
                await wait_all_tasks_blocked()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.aclose)
                    nursery.start_soon(interrupt_soon)

                    async def handler(stream: MuxadoStream) -> None:
                        await trio.sleep_forever()

                    await server.serve_streams(handler)

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        trio.run(main)
    error: BaseException = caught.value
    if where == "serve_streams" and isinstance(error, BaseExceptionGroup):
        # The nursery of the test itself makes one group, and nothing else does.
        (error,) = error.exceptions
    assert type(error) is KeyboardInterrupt


INTERRUPTED = {module.__file__ for module in (_nursery, _connect, _steps)}
"""Where an interrupt in the middle would leave what a nursery or a session can't go on with."""


def lines_until_interrupt(main: Callable[[], Awaitable[None]], number: int) -> int:
    """Run ``main`` with an interrupt at so many lines of these modules; return how many it ran."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in INTERRUPTED:
            return None
        if event == "line":
            lines += 1
            if lines == number:
                interrupt()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        trio.run(main)
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_at_any_line_leaves_nothing_half_done() -> None:
    async def main() -> None:
        async with session_pair(V1) as (client, server), await client.open_stream() as stream:
            await stream.send_all(b"hello")
            async with await server.accept_stream() as accepted:
                assert await accepted.receive_some() == b"hello"
                await accepted.send_all(bytes(100_000))
                assert await stream.receive_some()
                await accepted.reset()

    every_line = lines_until_interrupt(main, -1)
    assert every_line > 100
    for number in range(1, every_line + 1):
        caught: BaseException | None = None
        try:
            lines = lines_until_interrupt(main, number)
        except BaseException as error:
            caught = error
        if caught is None:
            assert lines < number  # tasks took other turns, and so fewer lines
        else:
            assert {type(leaf) for leaf in leaves(caught)} == {KeyboardInterrupt}, number
