"""What bounds a server: its sessions, its silent clients, and how long it takes to stop."""

import contextlib
import errno
import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    StreamResetError,
    client_session,
    serve_muxado_listeners,
)
from trio_muxado._server import ASSUMED_WAITING, GRACE, OVERLOADED

from .helpers import MemoryListener, each_wire, echo, read_all
from .helpers.kinds import Kind

Handler = Callable[[MuxadoSession], Awaitable[Any]]


async def waits(session: MuxadoSession) -> None:
    await session.wait_closed()


async def sleeps(session: MuxadoSession) -> None:
    await trio.sleep_forever()


class Endless(trio.abc.Listener[trio.abc.Stream]):
    """Clients connect faster than anybody accepts."""

    def __init__(self) -> None:
        self.accepted = 0
        self.far: list[trio.abc.Stream] = []

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        near, far = memory_stream_pair()
        self.accepted += 1
        self.far.append(far)
        await far.aclose()
        return near

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_stop_ends_listening_while_clients_connect_without_end() -> None:
    stop, listener = trio.Event(), Endless()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_muxado_listeners, waits, [listener], stop=stop)
        await nursery.start(serve)
        while listener.accepted < 20:
            await trio.lowlevel.checkpoint()
        before = listener.accepted
        stop.set()
    assert listener.accepted - before <= ASSUMED_WAITING + 10


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_says_nothing_holds_a_stop_up_for_a_second(
    tls: bool, autojump_clock: MockClock
) -> None:
    stop, listener = trio.Event(), MemoryListener()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    wrap = partial(trio.SSLStream, ssl_context=context, server_side=True) if tls else None
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_muxado_listeners, waits, [listener], stop=stop))
        silent = await listener.connect(wrap)
        await trio.sleep(10)
        stop.set()
        await read_all(silent)
    assert trio.current_time() == 10 + GRACE


async def test_handlers_that_do_not_end_are_cancelled_after_the_stop_timeout(
    autojump_clock: MockClock,
) -> None:
    stop, listener = trio.Event(), MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(serve_muxado_listeners, sleeps, [listener], stop=stop, stop_timeout=30)
        )
        async with client_session(await listener.connect()) as session:
            await trio.sleep(1)
            stop.set()
            await session.wait_closed()
    assert trio.current_time() == 31


@pytest.mark.parametrize("stop_timeout", [None, 30])
async def test_a_server_that_is_stopped_ends_with_its_last_handler(
    stop_timeout: float | None, autojump_clock: MockClock
) -> None:
    stop, listener = trio.Event(), MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(serve_muxado_listeners, waits, [listener], stop=stop, stop_timeout=stop_timeout)
        )
        async with client_session(await listener.connect()) as session:
            await session.ping()
            stop.set()
            await session.wait_closed()
    assert trio.current_time() == 0


async def test_clients_above_the_cap_are_disconnected_and_others_served(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_muxado_listeners, waits, [listener], max_sessions=2))
        first, second = await listener.connect(), await listener.connect()
        for _ in range(50):
            assert await read_all(await listener.connect()) == b""
        assert len(caplog.records) == 1
        await trio.sleep(1)
        assert await read_all(await listener.connect()) == b""
        assert len(caplog.records) == 2
        await first.aclose()
        await wait_all_tasks_blocked()
        async with client_session(await listener.connect()) as session:
            await session.ping()
        await second.aclose()
        nursery.cancel_scope.cancel()


@each_wire
@pytest.mark.parametrize("opens", [False, True])
async def test_a_client_that_opens_no_stream_is_ended(
    opens: bool, kind: Kind, autojump_clock: MockClock
) -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(serve_muxado_listeners, waits, [listener], first_stream_timeout=5)
        )
        async with client_session(await listener.connect(), config=kind.config()) as session:
            if opens:
                await session.open_stream()
            with trio.move_on_after(60) as patience:
                await session.wait_closed()
            assert patience.cancelled_caught is opens
        assert trio.current_time() == (60 if opens else 5)
        nursery.cancel_scope.cancel()


async def test_a_stream_of_an_extension_is_a_client_s_first_stream(
    autojump_clock: MockClock,
) -> None:
    async def hold(stream: MuxadoStream) -> None:
        await stream.receive_some()

    number = 0xFFFFFF01
    config = MuxadoConfig(wire="v2", typed=True, extensions={number: hold})
    listener = MemoryListener()
    serve = partial(serve_muxado_listeners, waits, [listener], config=config)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, first_stream_timeout=5))
        client = MuxadoConfig(wire="v2", typed=True)
        async with client_session(await listener.connect(), config=client) as session:
            await (await session.open_stream(type=number)).send_all(b"x")
            with trio.move_on_after(60) as patience:
                await session.wait_closed()
            assert patience.cancelled_caught
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("stop_timeout", 0, ValueError),
        ("stop_timeout", float("nan"), ValueError),
        ("stop_timeout", float("inf"), ValueError),
        ("stop_timeout", True, TypeError),
        ("stop_timeout", "1", TypeError),
        ("first_stream_timeout", -1, ValueError),
        ("first_stream_timeout", [], TypeError),
        ("max_sessions", 0, ValueError),
        ("max_sessions", 1.5, TypeError),
        ("max_sessions", True, TypeError),
    ],
)
async def test_a_limit_that_is_none_is_refused_before_anything_is_served(
    name: str, value: object, error: type[Exception]
) -> None:
    limits: dict[str, Any] = {name: value}
    listener = MemoryListener()
    with pytest.raises(error, match=name):
        await serve_muxado_listeners(waits, [listener], **limits)
    assert not listener.closed


# ---- one budget for all sessions

WINDOW = {"v1": 65_536, "v2": 262_144}


async def fill_all(session: MuxadoSession, refused: list[bool]) -> None:
    """Open streams and fill their windows, until one is refused."""
    while not refused:
        stream = await session.open_stream()
        try:
            await stream.send_all(bytes(WINDOW[session.wire or "v1"] - 2))
            for _ in range(2):
                await wait_all_tasks_blocked()
                await stream.send_all(b"x")
        except StreamResetError as error:
            refused.append(error.safe_to_retry)


@each_wire
async def test_sessions_that_never_read_share_a_budget_and_leave_some_to_others(kind: Kind) -> None:
    """Forty of them held 640 MiB: each session had a budget of its own."""
    listener, sessions = MemoryListener(), list[MuxadoSession]()
    greedy, budget = 6, 16 * WINDOW[kind.wire]

    async def handle(session: MuxadoSession) -> None:
        sessions.append(session)
        if len(sessions) > greedy:
            await session.serve_streams(echo)
        else:
            await session.wait_closed()

    config = kind.config(heartbeat=None)
    async with trio.open_nursery() as nursery:
        serve = partial(serve_muxado_listeners, handle, [listener], config=config)
        await nursery.start(partial(serve, receive_budget=budget))
        async with contextlib.AsyncExitStack() as clients:
            for _ in range(greedy):
                transport = await listener.connect()
                client = client_session(transport, config=config)
                refused: list[bool] = []
                await fill_all(await clients.enter_async_context(client), refused)
                assert refused == [True]
            promised = sum(session.statistics().receive_windows for session in sessions)
            assert budget <= promised <= budget + greedy * 2 * WINDOW[kind.wire]

            async with client_session(await listener.connect(), config=config) as honest:
                for _ in range(20):
                    async with await honest.open_stream() as stream:
                        await stream.send_all(b"still served?")
                        await stream.send_eof()
                        assert await read_all(stream) == b"still served?"
        await wait_all_tasks_blocked()
        # All of them are gone, and what they had can be had again.
        async with client_session(await listener.connect(), config=config) as later:
            streams = [await later.open_stream() for _ in range(8)]
            for stream in streams:
                await stream.send_all(b"and now?")
                await stream.send_eof()
                assert await read_all(stream) == b"and now?"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1"])
async def test_a_receive_budget_is_checked_before_anything_listens(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^receive_budget"):
        await serve_muxado_listeners(waits, [MemoryListener()], receive_budget=wrong)


class Failing(MemoryListener):
    """Raises an error where it should accept, for as long as it has one."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error: OSError | None = error
        self.tries = 0

    async def accept(self) -> trio.abc.Stream:
        self.tries += 1
        if self.error is not None:
            await trio.lowlevel.checkpoint()
            raise self.error
        return await super().accept()


@pytest.mark.parametrize("number", sorted(OVERLOADED))
async def test_a_server_without_descriptors_says_so_once_a_second_and_recovers(
    number: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Failing(OSError(number, os.strerror(number)))
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_muxado_listeners, waits, [listener])
        await trio.sleep(2.95)
        assert listener.tries == 30
        texts = [record.getMessage() for record in caplog.records]
        assert texts == [f"no client can be accepted: {listener.error}"] * 3
        listener.error = None
        async with client_session(await listener.connect()) as session:
            await session.ping()
        nursery.cancel_scope.cancel()


async def test_clients_above_the_cap_do_not_hide_that_descriptors_lack(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of the two lines comes once a second at most, for itself."""
    caplog.set_level(logging.INFO, "trio_muxado")
    listener = Failing(OSError(errno.EMFILE, "none left"))
    error, listener.error = listener.error, None
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_muxado_listeners, waits, [listener], max_sessions=1))
        async with client_session(await listener.connect()) as session:
            await session.ping()
            listener.error = error
            await (await listener.connect()).aclose()
            await trio.sleep(0.5)
            texts = sorted(record.getMessage() for record in caplog.records)
            assert texts == [
                "more than 1 clients: the next are disconnected",
                f"no client can be accepted: {error}",
            ]
        nursery.cancel_scope.cancel()


async def test_any_other_error_of_a_listener_ends_the_server_as_it_is() -> None:
    working, broken = MemoryListener(), Failing(OSError(errno.EBADF, "bad"))
    with pytest.raises(OSError, match="bad") as caught:
        await serve_muxado_listeners(waits, [working, broken])
    assert caught.value is broken.error
    assert working.closed
    assert broken.closed
