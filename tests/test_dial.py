"""Dialling: which end of a session, or of an attempt at one, leads to what.

The server is in memory, and the clock a mocked one, but for TLS.
"""

import itertools
import re
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    Backoff,
    DialLoss,
    MuxadoConfig,
    MuxadoError,
    MuxadoSession,
    NoMoreStreamsError,
    OpenStreamError,
    SessionEndedError,
    StreamClosedError,
    StreamResetError,
    client_session,
    dial_muxado,
    serve_muxado,
    server_session,
)

from .helpers import Failing, echo, read_all

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

Handler = Callable[[MuxadoSession], Awaitable[Any]]

EVEN = Backoff(jitter=0)
QUIET = MuxadoConfig(heartbeat=None)


class Server:
    """What is dialled: each connection meets the next of the steps, and the last one stays."""

    def __init__(self, nursery: trio.Nursery, *steps: Any) -> None:
        self._nursery = nursery
        self._steps = list(steps)
        self.dialled_at: list[float] = []
        self.heard: list[Any] = []

    async def connect(self) -> trio.abc.Stream:
        self.dialled_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, BaseException):
            raise step
        near, far = memory_stream_pair()
        self._nursery.start_soon(step, far)
        return near

    def on_state(self, state: str, loss: DialLoss | None) -> None:
        self.heard.append(state if loss is None else loss.kind)


@asynccontextmanager
async def dialling(*steps: Any) -> AsyncGenerator[tuple[Server, Callable[..., Any]], None]:
    """A server, and ``dial_muxado`` for it; what still runs is cancelled at the end."""
    async with trio.open_nursery() as nursery:
        server = Server(nursery, *steps)
        options: dict[str, Any] = {"config": QUIET, "backoff": EVEN}
        options |= {"connect": server.connect, "on_state": server.on_state}

        async def dial(handler: Handler, **more: Any) -> None:
            await dial_muxado(handler, "memory", 0, **{**options, **more})

        yield server, dial
        nursery.cancel_scope.cancel()


# ---- what a server may do


async def stays(stream: trio.abc.Stream) -> None:
    async with server_session(stream, config=QUIET) as session:
        await session.wait_closed()


async def echoes(stream: trio.abc.Stream) -> None:
    with suppress(MuxadoError):
        async with server_session(stream, config=QUIET) as session:
            await session.serve_streams(echo)


def ends_after(seconds: float) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    async def ends(stream: trio.abc.Stream) -> None:
        async with server_session(stream, config=MuxadoConfig(heartbeat=None, wire="v1")):
            await trio.sleep(seconds)

    return ends


async def breaks(stream: trio.abc.Stream) -> None:
    await trio.aclose_forcefully(stream)


def answers(data: bytes) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    async def answer(stream: trio.abc.Stream) -> None:
        async with stream:
            await stream.send_all(data)
            await read_all(stream)

    return answer


# ---- what a handler may do


async def waits(session: MuxadoSession) -> None:
    await session.wait_closed()


async def returns(session: MuxadoSession) -> None:
    await trio.lowlevel.checkpoint()


async def accepts(session: MuxadoSession) -> None:
    await session.accept_stream()


async def serves(session: MuxadoSession) -> None:
    await session.serve_streams(echo)


async def receives(session: MuxadoSession) -> None:
    await (await session.open_stream()).receive_some()


async def receives_in_a_nursery(session: MuxadoSession) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receives, session)
        nursery.start_soon(accepts, session)


async def adapts(session: MuxadoSession) -> None:
    try:
        await receives(session)
    except MuxadoError as error:
        raise LookupError("as an adapter would") from error


# ---- the end of a handler


async def test_a_handler_that_returns_ends_the_dialling(autojump_clock: MockClock) -> None:
    async with dialling(stays) as (server, dial):
        await dial(returns)
    assert server.heard == ["connecting", "connected"]


async def test_it_has_closed_its_session_by_then(autojump_clock: MockClock) -> None:
    sessions: list[MuxadoSession] = []

    async def handler(session: MuxadoSession) -> None:
        sessions.append(session)

    async with dialling(stays) as (_, dial):
        await dial(handler)
    reason = sessions[0].close_reason
    assert reason is not None
    assert (reason.clean, reason.initiator) == (True, "local")


@pytest.mark.parametrize(
    "handler", [waits, accepts, serves, receives, receives_in_a_nursery, adapts]
)
@pytest.mark.parametrize("loses", [ends_after(1), breaks], ids=["ends", "breaks"])
async def test_when_its_session_ends_it_dials_again(
    handler: Handler, loses: Any, autojump_clock: MockClock
) -> None:
    """However the handler has heard of it."""
    async with dialling(loses, loses, stays) as (server, dial):
        with trio.move_on_after(1000):
            await dial(handler)
    once = ["connecting", "connected", "session"]
    assert server.heard == [*once, *once, "connecting", "connected"]


async def test_a_stream_that_breaks_is_no_end_of_the_session(autojump_clock: MockClock) -> None:
    async def resets(stream: trio.abc.Stream) -> None:
        async with server_session(stream, config=QUIET) as session:
            await (await session.accept_stream()).reset()
            await session.wait_closed()

    async with dialling(resets) as (_, dial):
        with pytest.raises(StreamResetError):
            await dial(receives)


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("a file"), SystemExit(3)])
async def test_any_other_error_is_raised_as_it_is(
    error: BaseException, autojump_clock: MockClock
) -> None:
    async def handler(session: MuxadoSession) -> None:
        raise error

    async with dialling(stays) as (_, dial):
        with pytest.raises(type(error)) as caught:
            await dial(handler)
    assert caught.value is error


async def test_so_is_a_bug_that_comes_with_the_end(autojump_clock: MockClock) -> None:
    """In one group, of a nursery of the handler's own."""

    async def handler(session: MuxadoSession) -> None:
        async def fail() -> None:
            try:
                await session.wait_closed()
            finally:
                raise ValueError("a bug")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receives, session)
            nursery.start_soon(fail)

    async with dialling(ends_after(1)) as (_, dial):
        with pytest.raises(ExceptionGroup) as caught:
            await dial(handler)
    assert caught.group_contains(ValueError)


async def test_the_use_of_what_the_handler_has_closed_is_its_bug(autojump_clock: MockClock) -> None:
    async def handler(session: MuxadoSession) -> None:
        stream = await session.open_stream()
        await stream.aclose()
        await stream.send_all(b"x")

    async with dialling(stays) as (_, dial):
        with pytest.raises(StreamClosedError):
            await dial(handler)


async def test_a_session_that_the_handler_closes_was_not_lost(autojump_clock: MockClock) -> None:
    async def handler(session: MuxadoSession) -> None:
        await session.aclose()

    async with dialling(stays) as (server, dial):
        await dial(handler)
    assert server.heard == ["connecting", "connected"]


async def test_an_error_of_another_session_is_raised(autojump_clock: MockClock) -> None:
    async def handler(session: MuxadoSession) -> None:
        async with session_pair_broken() as other:
            await receives(other)

    async with dialling(stays) as (_, dial):
        with pytest.raises(SessionEndedError):
            await dial(handler)


async def test_so_is_one_of_another_session_when_its_own_has_ended_as_well(
    autojump_clock: MockClock,
) -> None:
    async def handler(session: MuxadoSession) -> None:
        async with session_pair_broken() as other:
            await session.wait_closed()
            await receives(other)

    async with dialling(breaks) as (_, dial):
        with pytest.raises(SessionEndedError):
            await dial(handler)


@asynccontextmanager
async def session_pair_broken() -> AsyncGenerator[MuxadoSession, None]:
    near, far = memory_stream_pair()
    async with client_session(near, config=QUIET) as session:
        await trio.aclose_forcefully(far)
        yield session


async def test_a_session_that_opens_no_more_streams_is_lost(autojump_clock: MockClock) -> None:
    """The peer is going away, and has not gone yet."""

    async def goes(stream: trio.abc.Stream) -> None:
        async with server_session(stream, config=QUIET) as session:
            await session.accept_stream()
            await session.goaway()
            await session.wait_closed()

    async def handler(session: MuxadoSession) -> None:
        while True:
            await session.open_stream()
            await trio.sleep(1)

    async with dialling(goes, stays) as (server, dial):
        with trio.move_on_after(20):
            await dial(handler)
    assert server.heard[:5] == ["connecting", "connected", "session", "connecting", "connected"]


# ---- attempts that fail


def chain(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


BIO = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")


@pytest.mark.parametrize(
    "error, message",
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service"),
        (chain(OSError("all attempts failed"), ConnectionRefusedError(111, "no")), "no"),
        (trio.BrokenResourceError("the proxy hung up"), "hung up"),
    ],
)
async def test_a_connection_that_cannot_be_made(
    error: BaseException, message: str, autojump_clock: MockClock
) -> None:
    losses: list[DialLoss] = []

    def on_state(state: str, loss: DialLoss | None) -> None:
        losses.extend([] if loss is None else [loss])

    async with dialling(error, stays) as (_, dial):
        await dial(returns, on_state=on_state)
    (loss,) = losses
    assert loss.kind == "unreachable"
    assert message in loss.message
    assert "\n" not in loss.message
    assert (loss.error, loss.pause, loss.close_reason) == (error, 0.5, None)


async def test_a_connection_that_is_never_made_is_given_up(autojump_clock: MockClock) -> None:
    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async with dialling(stays) as (server, dial):
        with trio.move_on_after(31):
            await dial(returns, connect=never)
    assert server.heard == ["connecting", "unreachable", "connecting"]


async def test_what_a_certificate_has_to_be_for_is_checked_with_connect_as_well() -> None:
    async def connect() -> trio.abc.Stream:
        raise AssertionError("it has dialled")

    for host in ("", "ex..ample"):
        with pytest.raises(ValueError, match=r"^host must "):
            await dial_muxado(
                returns, host, 0, ssl_context=ssl.create_default_context(), connect=connect
            )


async def test_another_error_of_connect_is_raised(autojump_clock: MockClock) -> None:
    async with dialling(LookupError("a bug")) as (_, dial):
        with pytest.raises(LookupError):
            await dial(returns)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
        b"220 mail.example ESMTP\r\n",
        bytes.fromhex("0000080100000000 0000000000000000"),  # a frame of v2
    ],
)
async def test_a_peer_that_does_not_speak_muxado_is_tried_again_late(
    data: bytes, autojump_clock: MockClock
) -> None:
    async with dialling(answers(data), answers(data), stays) as (server, dial):
        with trio.move_on_after(1000):
            await dial(waits)
    once = ["connecting", "connected", "not_muxado"]
    assert server.heard == [*once, *once, "connecting", "connected"]
    assert [round(t) for t in server.dialled_at] == [0, 60, 120]


async def test_a_peer_that_breaks_the_protocol_later_is_lost_as_any_other(
    autojump_clock: MockClock,
) -> None:
    async def turns_bad(stream: trio.abc.Stream) -> None:
        near, far = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echoes, far)

            async def up() -> None:
                async for chunk in stream:
                    await near.send_all(chunk)

            async def down() -> None:
                async for chunk in near:
                    await stream.send_all(chunk)

            nursery.start_soon(up)
            nursery.start_soon(down)
            await trio.sleep(1)
            await stream.send_all(b"\xff" * 100)
            nursery.cancel_scope.cancel()

    async def handler(session: MuxadoSession) -> None:
        for _ in range(5):
            stream = await session.open_stream()
            await stream.send_all(b"x")
            await stream.receive_some()
        await session.wait_closed()

    async with dialling(turns_bad, echoes) as (server, dial):
        with trio.move_on_after(100):
            await dial(handler)
    assert server.heard == ["connecting", "connected", "session", "connecting", "connected"]


# ---- pauses


async def test_pauses_grow_and_begin_anew_behind_a_session_that_lived(
    autojump_clock: MockClock,
) -> None:
    refused = ConnectionRefusedError()
    steps = [refused] * 9, [ends_after(59)], [ends_after(60)], [refused] * 2
    async with dialling(*(step for row in steps for step in row), stays) as (server, dial):
        with trio.move_on_after(10_000):
            await dial(waits)
    starts = server.dialled_at
    pauses = [b - a for a, b in itertools.pairwise(starts)]
    expected = [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 59 + 60, 60 + 0.5, 1, 2]
    assert pauses == pytest.approx(expected)


async def test_pauses_have_jitter(autojump_clock: MockClock) -> None:
    async with dialling(ConnectionRefusedError()) as (server, dial):
        with trio.move_on_after(10_000):
            await dial(waits, backoff=Backoff(first=10, factor=1, longest=10))
    starts = server.dialled_at
    pauses = {round(b - a, 6) for a, b in itertools.pairwise(starts)}
    assert len(pauses) > 500
    assert all(8 <= pause <= 10 for pause in pauses)


# ---- stopping, and being cancelled


async def test_stopped_before_anything(autojump_clock: MockClock) -> None:
    stop = trio.Event()
    stop.set()
    async with dialling(stays) as (server, dial):
        await dial(waits, stop=stop)
    assert server.heard == []


@pytest.mark.parametrize("step", [ConnectionRefusedError(), "never"])
async def test_stopped_between_sessions(step: Any, autojump_clock: MockClock) -> None:
    stop = trio.Event()

    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async with dialling(step) as (server, dial):
        async with trio.open_nursery() as nursery:
            options = {"connect": never} if step == "never" else {}
            nursery.start_soon(partial(dial, waits, stop=stop, **options))
            await trio.sleep(20)
            stop.set()
        assert trio.current_time() == 20
    assert "connected" not in server.heard


async def test_a_session_is_drained_when_it_is_stopped(autojump_clock: MockClock) -> None:
    """A stream of the peer that runs is finished; a new one is refused."""
    stop = trio.Event()
    seen: list[Any] = []

    async def asks(stream: trio.abc.Stream) -> None:
        config = MuxadoConfig(heartbeat=None, wire="v1")
        async with server_session(stream, config=config) as session:
            slow = await session.open_stream()
            await slow.send_all(b"slow")
            await trio.sleep(2)
            with pytest.raises(OpenStreamError) as refused:
                await session.open_stream()
            assert refused.value.safe_to_retry
            await trio.sleep(2)
            await slow.send_eof()
            seen.append(await read_all(slow))
            await slow.aclose()
            seen.append((await session.wait_closed()).clean)

    async with dialling(asks) as (server, dial):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(dial, serves, stop=stop))
            await trio.sleep(1)
            stop.set()
        assert trio.current_time() >= 4
        await wait_all_tasks_blocked()
        assert seen == [b"slow", True]
    assert server.heard == ["connecting", "connected"]


@pytest.mark.parametrize(
    "handler", [waits, accepts, serves, receives, receives_in_a_nursery, adapts]
)
async def test_no_handler_that_hears_of_the_stop_is_an_error(
    handler: Handler, autojump_clock: MockClock
) -> None:
    stop = trio.Event()

    async def closes_streams(stream: trio.abc.Stream) -> None:
        async with server_session(stream, config=QUIET) as session:
            with pytest.raises(NoMoreStreamsError):
                while True:
                    opened = await session.accept_stream()
                    await trio.sleep(2)
                    await opened.reset()

    async def tolerant(session: MuxadoSession) -> None:
        try:
            await handler(session)
        except StreamResetError:
            await session.wait_closed()

    async with dialling(closes_streams) as (_, dial):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(dial, tolerant if handler is receives else handler, stop=stop)
            )
            await trio.sleep(1)
            stop.set()


async def test_cancelled_at_any_turn_nothing_is_left(autojump_clock: MockClock) -> None:
    for moment in range(0, 40):
        opened: list[trio.abc.Stream] = []
        async with dialling(echoes) as (server, dial):

            async def connect(server: Server = server, opened: Any = opened) -> trio.abc.Stream:
                opened.append(Failing(await server.connect()))  # type: ignore[arg-type]
                return opened[-1]

            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(dial, serves, connect=connect))
                    for _ in range(moment):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        assert all(stream.closed for stream in opened)  # type: ignore[attr-defined]


# ---- task_status, arguments


async def test_started_gives_the_first_session(autojump_clock: MockClock) -> None:
    async with dialling(ConnectionRefusedError(), echoes) as (_, dial):
        async with trio.open_nursery() as nursery:
            session = await nursery.start(dial, waits)
            assert isinstance(session, MuxadoSession)
            stream = await session.open_stream()
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            nursery.cancel_scope.cancel()


async def test_started_gives_nothing_when_it_was_stopped_before(autojump_clock: MockClock) -> None:
    stop = trio.Event()
    stop.set()
    async with dialling(stays) as (_, dial):
        async with trio.open_nursery() as nursery:
            assert await nursery.start(partial(dial, waits, stop=stop)) is None


async def test_an_error_of_on_state_is_raised(autojump_clock: MockClock) -> None:
    def on_state(state: str, loss: DialLoss | None) -> None:
        if state == "connected":
            raise LookupError("a bug")

    async with dialling(stays) as (_, dial):
        with pytest.raises(LookupError):
            await dial(waits, on_state=on_state)


@pytest.mark.parametrize(
    "name, value",
    [
        ("handle_session", None),
        ("connect", "localhost"),
        ("backoff", 5),
        ("stop", True),
        ("on_state", 1),
    ],
)
async def test_a_wrong_argument_is_named(name: str, value: Any) -> None:
    options: dict[str, Any] = {"handle_session": waits, "host": "localhost", "port": 1}
    with pytest.raises(TypeError, match=rf"\b{name}\b"):
        await dial_muxado(**{**options, name: value})


# ---- over TCP and TLS


@asynccontextmanager
async def listening(**options: Any) -> AsyncGenerator[int, None]:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_muxado, serves, 0, host="127.0.0.1", **options)
        (listener,) = await nursery.start(serve)
        listener = getattr(listener, "transport_listener", listener)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def first_loss(port: int, host: str = "localhost", **options: Any) -> DialLoss | None:
    """The first thing that goes wrong; None if nothing does."""
    losses: list[DialLoss | None] = []
    scope = trio.CancelScope()

    def on_state(state: str, loss: DialLoss | None) -> None:
        if loss is not None:
            losses.append(loss)
            scope.cancel()

    async def handler(session: MuxadoSession) -> None:
        stream = await session.open_stream()
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"

    with scope:
        await dial_muxado(handler, host, port, on_state=on_state, **options)
    return losses[0] if losses else None


async def test_over_tcp() -> None:
    async with listening() as port:
        assert await first_loss(port) is None
    loss = await first_loss(port)
    assert loss is not None
    assert loss.kind == "unreachable"
    assert "refused" in loss.message


@pytest.mark.parametrize("error", [OSError("no route"), trio.BrokenResourceError("it broke")])
@pytest.mark.parametrize("when", ["connecting", "handshake"])
async def test_a_connection_that_fails_in_a_group_is_tried_again(
    when: str, error: Exception, client_context: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    """``connect``, or the stream that it gives, may have a nursery of its own."""
    losses: list[DialLoss] = []
    group = ExceptionGroup("of a nursery", [ExceptionGroup("of another", [error])])

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if len(losses) == 2:
            raise ZeroDivisionError
        if when == "connecting":
            raise group
        near, _ = memory_stream_pair()
        stream = Failing(near)
        for method in ("receive_some", "aclose"):
            stream.fail(method, group)
        return stream

    def on_state(state: str, loss: DialLoss | None) -> None:
        if loss is not None:
            losses.append(loss)

    with pytest.raises(ZeroDivisionError):
        await dial_muxado(
            MuxadoSession.wait_closed,
            "localhost",
            0,
            connect=connect,
            ssl_context=client_context,
            on_state=on_state,
        )
    kind = "unreachable" if when == "connecting" else "tls"
    assert [loss.kind for loss in losses] == [kind, kind]
    assert str(error) in losses[0].message


async def test_over_tls(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> None:
    async with listening(ssl_context=server_context) as port:
        assert await first_loss(port, ssl_context=client_context) is None


async def test_a_certificate_that_this_side_refuses(server_context: ssl.SSLContext) -> None:
    async with listening(ssl_context=server_context) as port:
        loss = await first_loss(port, ssl_context=ssl.create_default_context())
    assert loss is not None
    assert loss.kind == "certificate"
    assert 48 <= loss.pause <= 60


async def test_a_certificate_for_another_host(
    client_context: ssl.SSLContext, authority: trustme.CA
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    async with listening(ssl_context=context) as port:
        loss = await first_loss(port, ssl_context=client_context)
    assert loss is not None
    assert loss.kind == "certificate"


@pytest.mark.parametrize(
    "version, stranger",
    [
        (ssl.TLSVersion.TLSv1_2, True),  # without one, its alert does not say why
        (ssl.TLSVersion.TLSv1_3, True),
        (ssl.TLSVersion.TLSv1_3, False),
    ],
)
async def test_a_certificate_that_the_server_refuses(
    version: ssl.TLSVersion, stranger: bool, authority: trustme.CA
) -> None:
    """By an alert, which Python's blocking server sends."""
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_tls)
    authority.configure_trust(server_tls)
    server_tls.verify_mode = ssl.CERT_REQUIRED
    client_tls = ssl.create_default_context()
    authority.configure_trust(client_tls)
    client_tls.maximum_version = version
    if stranger:
        trustme.CA().issue_cert("mallory.example").configure_cert(client_tls)

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, pytest.raises(ssl.SSLError):
            server_tls.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, refuse, listener)
            loss = await first_loss(listener.getsockname()[1], ssl_context=client_tls)
    assert loss is not None
    assert loss.kind == "certificate", loss


async def test_a_server_without_tls(client_context: ssl.SSLContext) -> None:
    async with await_plain() as port:
        loss = await first_loss(port, ssl_context=client_context)
    assert loss is not None
    assert loss.kind == "tls"
    assert re.search("; the server .*TLS", loss.message)


@asynccontextmanager
async def await_plain() -> AsyncGenerator[int, None]:
    async def handler(tcp: trio.SocketStream) -> None:
        await tcp.send_all(b"220 plain text\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_over_a_unix_socket(tmp_path: Any) -> None:
    path = str(tmp_path / "muxado")
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await sock.bind(path)
    sock.listen()
    from trio_muxado import serve_muxado_listeners

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_muxado_listeners, serves, [trio.SocketListener(sock)])
        assert await first_loss(0, "unused", connect=partial(trio.open_unix_socket, path)) is None
        nursery.cancel_scope.cancel()
