"""A pool of sessions: streams on whichever lives, and work done again where that is safe."""

import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    CloseReason,
    ErrorCode,
    MuxadoConfig,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    SessionEndedError,
    SessionPool,
    StreamResetError,
    client_session,
    dial_muxado,
    serve_muxado_listeners,
    server_session,
)

from .helpers import (
    V1,
    V2,
    Kind,
    MemoryListener,
    each_wire,
    echo,
    fill,
    read_all,
    session_pair,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


class Pooled:
    """A pool, and sessions that a test adds to it and ends."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.pool = SessionPool()
        self.nursery = nursery

    async def connect(self, kind: Kind = V1, **choices: Any) -> tuple[MuxadoSession, MuxadoSession]:
        """A session in the pool, and the peer's."""

        async def run(*, task_status: trio.TaskStatus[Any]) -> None:
            async with session_pair(kind, heartbeat=None, **choices) as pair:
                task_status.started(pair)
                await trio.sleep_forever()

        client, server = await self.nursery.start(run)
        self.pool.add(client)
        return client, server

    async def later(self, call: Any, *args: Any) -> list[Any]:
        """Start it, and give a list that its result comes into."""
        results: list[Any] = []

        async def run() -> None:
            results.append(await call(*args))

        self.nursery.start_soon(run)
        await wait_all_tasks_blocked()
        return results


@asynccontextmanager
async def pooled() -> AsyncGenerator[Pooled, None]:
    async with trio.open_nursery() as nursery:
        yield Pooled(nursery)
        nursery.cancel_scope.cancel()


async def ask(stream: MuxadoStream, question: bytes = b"?") -> bytes:
    await stream.send_all(question)
    await stream.send_eof()
    return await read_all(stream)


# ---- opening


@each_wire
async def test_streams_are_spread_over_the_sessions_in_turn(kind: Kind) -> None:
    async with pooled() as room:
        first, _ = await room.connect(kind)
        second, _ = await room.connect(kind)
        opened = [(await room.pool.open_stream()).session for _ in range(4)]
        assert opened == [first, second, first, second]
        assert room.pool.sessions == (first, second)


async def test_it_waits_while_there_is_no_session() -> None:
    async with pooled() as room:
        streams = await room.later(room.pool.open_stream)
        assert streams == []
        client, _ = await room.connect()
        await wait_all_tasks_blocked()
        assert [stream.session for stream in streams] == [client]


@each_wire
async def test_nowait_opens_in_turn_where_there_is_a_slot(kind: Kind) -> None:
    async with pooled() as room:
        with pytest.raises(trio.WouldBlock):
            room.pool.open_stream_nowait()
        first, _ = await room.connect(kind, max_outbound_streams=1)
        second, _ = await room.connect(kind)
        opened = [room.pool.open_stream_nowait(priority=3) for _ in range(3)]
        assert [stream.session for stream in opened] == [first, second, second]
        assert {stream.priority for stream in opened} == {3}
        room.pool.close()
        await opened[1].session.aclose()
        with pytest.raises(trio.WouldBlock):
            room.pool.open_stream_nowait()  # the slot of the other one may become free
        await first.aclose()
        with pytest.raises(trio.ClosedResourceError, match="no session lives"):
            room.pool.open_stream_nowait()


@pytest.mark.parametrize("sessions", [0, 1])
async def test_nowait_checks_what_a_stream_is_opened_with(sessions: int) -> None:
    async with pooled() as room:
        for _ in range(sessions):
            await room.connect(max_outbound_streams=1)
        for name, wrong, error in (
            ("type", -1, ValueError),
            ("type", "a", TypeError),
            ("priority", 2**31, ValueError),
            ("priority", None, TypeError),
        ):
            with pytest.raises(error, match=name):
                room.pool.open_stream_nowait(**{name: wrong})  # type: ignore[arg-type]
        assert len(await room.later(room.pool.open_stream)) == sessions  # the slot is still free


async def test_type_and_priority_are_the_stream_s() -> None:
    async with pooled() as room:
        _, server = await room.connect()
        stream = await room.pool.open_stream(type=7, priority=9)
        assert (stream.type, stream.priority) == (7, 9)
        assert (await server.accept_stream()).type == 7
        with pytest.raises(ValueError, match="type"):
            await room.pool.open_stream(type=-1)


async def test_a_session_without_a_slot_is_passed_over() -> None:
    async with pooled() as room:
        full, _ = await room.connect(max_outbound_streams=1)
        await full.open_stream()
        free, _ = await room.connect()
        assert [(await room.pool.open_stream()).session for _ in range(3)] == [free] * 3


@pytest.mark.parametrize("which", [0, 1])
async def test_while_all_are_full_the_first_slot_is_taken(which: int) -> None:
    async with pooled() as room:
        pairs = [await room.connect(max_outbound_streams=1) for _ in range(2)]
        held = [await client.open_stream() for client, _ in pairs]
        streams = await room.later(room.pool.open_stream)
        assert streams == []
        await held[which].reset()
        await wait_all_tasks_blocked()
        assert [stream.session for stream in streams] == [pairs[which][0]]


async def test_of_two_slots_at_once_one_is_taken() -> None:
    for _ in range(20):  # tasks run in random order
        async with pooled() as room:
            pairs = [await room.connect(max_outbound_streams=1) for _ in range(2)]
            held = [await client.open_stream() for client, _ in pairs]
            streams = await room.later(room.pool.open_stream)
            for stream in held:
                with trio.CancelScope() as scope:  # without a turn in between
                    scope.cancel()
                    await stream.reset()
            await wait_all_tasks_blocked()
            (stream,) = streams
            await stream.reset()
            again = [await room.pool.open_stream() for _ in range(2)]
            assert {stream.session for stream in again} == {client for client, _ in pairs}


async def test_while_all_are_full_a_new_session_is_taken() -> None:
    async with pooled() as room:
        full, _ = await room.connect(max_outbound_streams=1)
        await full.open_stream()
        streams = await room.later(room.pool.open_stream)
        client, _ = await room.connect()
        await wait_all_tasks_blocked()
        assert [stream.session for stream in streams] == [client]


async def test_a_client_that_says_nothing_holds_nobody_up() -> None:
    """A server's session opens no stream before it has heard what its client speaks."""
    async with pooled() as room:
        near, far = memory_stream_pair()
        quiet = MuxadoConfig(heartbeat=None)
        async with server_session(far, config=quiet) as silent:
            room.pool.add(silent)
            streams = await room.later(room.pool.open_stream)
            assert streams == []
            client, _ = await room.connect()
            await wait_all_tasks_blocked()
            assert [stream.session for stream in streams] == [client]
            await trio.aclose_forcefully(near)


@pytest.mark.parametrize("how", ["goaway", "close", "break"])
async def test_a_session_that_opens_no_more_is_left_out(how: str) -> None:
    async with pooled() as room:
        gone, server = await room.connect()
        first = await room.pool.open_stream()
        if how == "goaway":
            await server.goaway()
        elif how == "close":
            await server.aclose()
        else:
            await trio.aclose_forcefully(server)
        await wait_all_tasks_blocked()
        assert room.pool.sessions == ()
        streams = await room.later(room.pool.open_stream)
        assert streams == []
        other, _ = await room.connect()
        await wait_all_tasks_blocked()
        assert [stream.session for stream in streams] == [other]
        assert first.session is gone


async def test_a_waiter_whose_session_goes_away_waits_for_another() -> None:
    async with pooled() as room:
        full, server = await room.connect(max_outbound_streams=1)
        await full.open_stream()
        streams = await room.later(room.pool.open_stream)
        await server.goaway()
        await wait_all_tasks_blocked()
        assert streams == []
        other, _ = await room.connect()
        await wait_all_tasks_blocked()
        assert [stream.session for stream in streams] == [other]


async def test_a_discarded_session_keeps_its_streams() -> None:
    async with pooled() as room:
        client, server = await room.connect()
        stream = await room.pool.open_stream()
        room.pool.discard(client)
        room.pool.discard(client)  # again: nothing
        await stream.send_all(b"still here")
        assert await (await server.accept_stream()).receive_some() == b"still here"
        assert await room.later(room.pool.open_stream) == []


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_closed_pool_without_a_session_is_told(waiting: bool) -> None:
    async with pooled() as room:
        client, _ = await room.connect()
        room.pool.discard(client)

        async def opens() -> str:
            try:
                await room.pool.open_stream()
            except trio.ClosedResourceError:
                return "closed"
            return "opened"

        if waiting:
            results = await room.later(opens)
            room.pool.close()
        else:
            room.pool.close()
            results = await room.later(opens)
        await wait_all_tasks_blocked()
        assert results == ["closed"]
        room.pool.add(client)
        assert await opens() == "opened"


async def test_cancelled_at_any_turn_no_stream_is_left() -> None:
    """Where it waits for slots on two sessions, which both have one in the meantime."""
    for moment in range(12):
        async with pooled() as room:
            pairs = [await room.connect(max_outbound_streams=1) for _ in range(2)]
            held = [await client.open_stream() for client, _ in pairs]
            opened: list[MuxadoStream] = []
            scope = trio.CancelScope()

            async def wait(room: Any = room, scope: Any = scope, opened: Any = opened) -> None:
                with scope:
                    opened.append(await room.pool.open_stream())

            room.nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            for stream in held:
                with trio.CancelScope() as now:
                    now.cancel()
                    await stream.reset()
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await wait_all_tasks_blocked()
            for client, _ in pairs:
                live = client.statistics().streams.total()  # type: ignore[attr-defined]
                assert live == sum(stream.session is client for stream in opened)


# ---- where sessions come from


async def test_a_session_is_held_until_it_ends(autojump_clock: MockClock) -> None:
    pool = SessionPool()
    answers: list[bytes] = []

    async def serve(stream: trio.abc.Stream, seconds: float) -> None:
        with suppress(MuxadoError):
            async with server_session(stream, config=MuxadoConfig(heartbeat=None)) as session:
                with trio.move_on_after(seconds):
                    await session.serve_streams(echo)

    async with trio.open_nursery() as nursery:

        async def connect() -> trio.abc.Stream:
            near, far = memory_stream_pair()
            nursery.start_soon(serve, far, 10)
            return near

        nursery.start_soon(partial(dial_muxado, pool.hold, "memory", 0, connect=connect))
        for _ in range(50):
            answers.append(await pool.request(ask))
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert answers == [b"?"] * 50
    assert pool.sessions == ()


@pytest.mark.parametrize("ends", ["handler", "peer", "cancelled"])
async def test_a_server_tells_of_each_session_and_its_end(ends: str) -> None:
    heard: list[Any] = []
    finish = trio.Event()
    listener = MemoryListener()

    async def handler(session: MuxadoSession) -> None:
        await finish.wait()

    def on_session(session: MuxadoSession, reason: CloseReason | None) -> None:
        heard.append((session, reason))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_muxado_listeners, handler, [listener], on_session=on_session)
        )
        async with client_session(await listener.connect()) as client:
            await client.ping()
            ((session, reason),) = heard
            assert reason is None
            if ends == "handler":
                finish.set()
                await client.wait_closed()
            elif ends == "cancelled":
                nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        finish.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [s for s, _ in heard] == [session, session]
    assert heard[1][1] is session.close_reason
    assert heard[1][1].initiator == ("remote" if ends == "peer" else "local")


async def test_an_error_of_on_session_is_raised() -> None:
    listener = MemoryListener()

    def on_session(session: MuxadoSession, reason: CloseReason | None) -> None:
        raise LookupError("a bug")

    near = await listener.connect()
    with pytest.raises(LookupError):
        await serve_muxado_listeners(
            lambda session: session.drain(), [listener], on_session=on_session
        )
    await near.aclose()


async def test_a_relay_opens_streams_to_its_agents() -> None:
    pool = SessionPool()
    listener = MemoryListener()

    async def wait(session: MuxadoSession) -> None:
        await session.wait_closed()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_muxado_listeners, wait, [listener], on_session=pool.on_session)
        )
        async with client_session(await listener.connect()) as older:
            nursery.start_soon(older.serve_streams, echo)
            async with client_session(await listener.connect()) as newer:
                nursery.start_soon(newer.serve_streams, echo)
                await newer.ping()
                await older.ping()
                assert [await pool.request(ask) for _ in range(4)] == [b"?"] * 4
                assert len(pool.sessions) == 2
            await wait_all_tasks_blocked()
            assert [await pool.request(ask) for _ in range(4)] == [b"?"] * 4
            assert len(pool.sessions) == 1
        nursery.cancel_scope.cancel()


# ---- requests


async def serve(session: MuxadoSession, done: Counter[bytes]) -> None:
    async def handler(stream: MuxadoStream) -> None:
        question = await read_all(stream)
        done[question] += 1
        await stream.send_all(b"done: " + question)

    with suppress(SessionEndedError):
        await session.serve_streams(handler)


@each_wire
async def test_a_request_returns_what_its_work_returns(kind: Kind) -> None:
    async with pooled() as room:
        client, server = await room.connect(kind)
        done: Counter[bytes] = Counter()
        room.nursery.start_soon(serve, server, done)
        assert await room.pool.request(partial(ask, question=b"one")) == b"done: one"
        await wait_all_tasks_blocked()
        assert not client.statistics().streams
        assert done == {b"one": 1}


@each_wire
@pytest.mark.parametrize("how", ["goes", "closes"])
async def test_what_is_safe_to_retry_is_done_on_another_session(kind: Kind, how: str) -> None:
    async with pooled() as room:
        _, server = await room.connect(kind)
        tries = 0

        async def work(stream: MuxadoStream) -> bytes:
            nonlocal tries
            tries += 1
            await stream.send_all(b"part, ")
            return await ask(stream, b"whole")

        answers = await room.later(room.pool.request, work)
        if how == "goes":
            await server.goaway()
            await (await server.accept_stream()).reset(ErrorCode.STREAM_REFUSED)
        else:
            await server.aclose()  # nobody has accepted it
        await wait_all_tasks_blocked()
        assert (tries, answers) == (1, [])
        _, other = await room.connect(kind)
        done: Counter[bytes] = Counter()
        room.nursery.start_soon(serve, other, done)
        await wait_all_tasks_blocked()
        assert answers == [b"done: part, whole"]
        assert (tries, done) == (2, {b"part, whole": 1})


async def test_what_may_have_been_done_is_not_done_again() -> None:
    async with pooled() as room:
        _, server = await room.connect()
        errors = await room.later(outcome, room.pool, ask)
        stream = await server.accept_stream()
        assert await read_all(stream) == b"?"
        await trio.aclose_forcefully(server)
        await wait_all_tasks_blocked()
        (error,) = errors
        assert isinstance(error, SessionEndedError)
        assert not error.safe_to_retry


async def outcome(pool: SessionPool, work: Any, **options: Any) -> Any:
    try:
        return await pool.request(work, **options)
    except Exception as error:
        return error


async def refuse_all(session: MuxadoSession) -> None:
    async for stream in session:
        await stream.reset(ErrorCode.STREAM_REFUSED)


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_it_is_done_again_a_bounded_number_of_times(
    attempts: int, autojump_clock: MockClock
) -> None:
    async with pooled() as room:
        _, server = await room.connect()
        room.nursery.start_soon(refuse_all, server)
        tries: list[float] = []

        async def work(stream: MuxadoStream) -> None:
            tries.append(trio.current_time())
            await ask(stream)

        error = await outcome(room.pool, work, attempts=attempts)
        assert isinstance(error, StreamResetError)
        assert error.safe_to_retry
        assert len(tries) == attempts
        assert tries[:2] == [0] * min(2, attempts)  # the first time again without a pause
        assert tries[-1] <= 3


async def test_the_peer_of_failed_work_is_told() -> None:
    async with pooled() as room:
        _, server = await room.connect()

        async def work(stream: MuxadoStream) -> None:
            await stream.send_all(b"half")
            raise LookupError("a bug")

        with pytest.raises(LookupError):
            await room.pool.request(work)
        stream = await server.accept_stream()
        with pytest.raises(StreamResetError) as caught:
            await read_all(stream)
        assert caught.value.code is ErrorCode.INTERNAL_ERROR


async def test_the_peer_of_cancelled_work_is_told() -> None:
    async with pooled() as room:
        _, server = await room.connect()

        async def work(stream: MuxadoStream) -> None:
            await stream.send_all(b"half")
            await stream.receive_some()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(room.pool.request, work)
                stream = await server.accept_stream()
                await wait_all_tasks_blocked()
                scope.cancel()
        with pytest.raises(StreamResetError) as caught:
            await read_all(stream)
        assert caught.value.code is ErrorCode.STREAM_CANCELLED


@pytest.mark.parametrize("wrap", ["bare", "group", "adapter"])
@pytest.mark.parametrize("own", [True, False])
async def test_only_the_end_of_its_own_stream_is_safe(wrap: str, own: bool) -> None:
    """What another stream heard says nothing of this one, which may have been processed."""
    async with pooled() as room:
        _, server = await room.connect()
        foreign = StreamResetError(
            "of another", code=ErrorCode.STREAM_REFUSED, initiator="remote", safe_to_retry=True
        )
        tries = 0

        async def work(stream: MuxadoStream) -> str:
            nonlocal tries
            tries += 1
            if tries > 1:
                return "done"
            try:
                if own:
                    await ask(stream)
                raise foreign
            except MuxadoError as error:
                if wrap == "group":
                    raise ExceptionGroup("of a nursery", [error]) from None
                if wrap == "adapter":
                    raise LookupError("as an adapter would") from error
                raise

        results = await room.later(outcome, room.pool, work)
        if own:
            await (await server.accept_stream()).reset(ErrorCode.STREAM_REFUSED)
            await wait_all_tasks_blocked()
            assert results == ["done"]
        else:
            assert tries == 1
            assert isinstance(results[0], Exception)


async def test_work_that_closes_its_stream_is_done_again_as_well() -> None:
    """``async with stream`` in it, as everywhere."""
    async with pooled() as room:
        _, server = await room.connect()

        async def work(stream: MuxadoStream) -> bytes:
            async with stream:
                return await ask(stream)

        results = await room.later(room.pool.request, work)
        await (await server.accept_stream()).reset(ErrorCode.STREAM_REFUSED)
        await wait_all_tasks_blocked()
        done: Counter[bytes] = Counter()
        room.nursery.start_soon(serve, server, done)
        await wait_all_tasks_blocked()
        assert results == [b"done: ?"]


async def test_a_bug_beside_a_safe_end_is_raised() -> None:
    async with pooled() as room:
        _, server = await room.connect()

        async def work(stream: MuxadoStream) -> None:
            try:
                await ask(stream)
            except MuxadoError as error:
                raise ExceptionGroup("both", [error, LookupError("a bug")]) from None

        results = await room.later(outcome, room.pool, work)
        await (await server.accept_stream()).reset(ErrorCode.STREAM_REFUSED)
        await wait_all_tasks_blocked()
        assert isinstance(results[0], ExceptionGroup)


async def test_work_on_a_full_stream_that_did_not_break_is_not_done_again(
    autojump_clock: MockClock,
) -> None:
    async with pooled() as room:
        await room.connect()
        foreign = StreamResetError("x", code=0, initiator="remote", safe_to_retry=True)

        async def work(stream: MuxadoStream) -> None:
            await fill(stream)
            raise foreign

        assert await outcome(room.pool, work) is foreign


@pytest.mark.parametrize(
    "arguments, error, name",
    [
        ({"work": None}, TypeError, "work"),
        ({"attempts": 0}, ValueError, "attempts"),
        ({"attempts": 1.0}, TypeError, "attempts"),
        ({"attempts": True}, TypeError, "attempts"),
    ],
)
async def test_a_wrong_argument_is_named(
    arguments: dict[str, Any], error: type[Exception], name: str
) -> None:
    async with pooled() as room:
        client, _ = await room.connect(V2)
        with pytest.raises(error, match=rf"\b{name}\b"):
            await room.pool.request(**{"work": ask, **arguments})
        assert client.statistics().opened == 0
        with pytest.raises(TypeError, match="session"):
            room.pool.add(None)  # type: ignore[arg-type]
