"""How a session ends: gracefully, at once, by force, by a crash, and never by hanging."""

import logging
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from itertools import chain, count, repeat
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    ErrorCode,
    MuxadoError,
    MuxadoSession,
    MuxadoStream,
    SessionClosedError,
    SessionEndedError,
    StreamResetError,
    _transport,
    _writer,
    client_session,
    server_session,
)
from trio_muxado._batches import FIRST
from trio_muxado._nursery import open_bare_nursery
from trio_muxado._protocol.frames import GoAway
from trio_muxado._transport import LOOKS

from .helpers import (
    SEND_BUFFER,
    STEADY,
    V1,
    V2_TYPED,
    Deaf,
    DeafHalfCloseable,
    Failing,
    Gated,
    HalfCloseable,
    Kind,
    RawPeer,
    Transport,
    each_kind,
    each_wire,
    echo,
    fill,
    outcome_of,
    raw_session,
    read_all,
    read_exactly,
    session_pair,
    socket_pair,
    tcp_pair,
    tls_pair,
    with_types,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

EXTENSION = 0xFFFFFF00
CLOSE_TIMEOUT = 5.0


# ---- gracefully


@each_kind
async def test_what_was_sent_arrives_although_the_session_closes_at_once(kind: Kind) -> None:
    content = bytes(range(256)) * 4096  # 1 MiB, far more than a window
    received: list[bytes] = []
    near, far = memory_stream_pair()

    async def serve() -> None:
        async with server_session(far, config=kind.config(wire="auto")) as server:
            received.append(await read_all(await server.accept_stream()))
            async for _ in server:
                raise AssertionError("there is one stream")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with client_session(near, config=kind.config(send_buffer=len(content))) as client:
            stream = await client.open_stream()
            await stream.send_all(content)
            await stream.aclose()
    assert received == [content]


@each_wire
async def test_closing_waits_as_long_as_the_peer_reads_however_slowly(
    kind: Kind, autojump_clock: MockClock
) -> None:
    size = kind.window * 4
    async with trio.open_nursery() as nursery:
        near, far = memory_stream_pair()
        received = bytearray()

        async def serve() -> None:
            config = kind.config(wire="auto", **STEADY)
            async with server_session(far, config=config) as server:
                stream = await server.accept_stream()
                unpaid = 0
                while chunk := await stream.receive_some(kind.window // 2):
                    received.extend(chunk)
                    unpaid += len(chunk)
                    if unpaid >= kind.window // 2:  # with less the peer hears nothing of it
                        unpaid = 0
                        await trio.sleep(CLOSE_TIMEOUT - 1)

        nursery.start_soon(serve)
        async with client_session(near, config=kind.config(send_buffer=size)) as client:
            stream = await client.open_stream()
            await stream.send_all(bytes(size))
            await stream.aclose()
            start = trio.current_time()
        assert trio.current_time() > start + CLOSE_TIMEOUT
    assert len(received) == size


@pytest.mark.parametrize("shown_by", ["its parts", "the system"])
@each_wire
async def test_closing_waits_as_long_as_a_socket_takes_more_of_a_batch(
    kind: Kind, shown_by: str, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory takes a batch as a whole, however long it is at it."""
    size = FIRST - 1000  # one batch
    near, far = socket_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    transport: trio.abc.Stream = near
    falling = shown_by == "the system"
    if falling:
        transport = HalfCloseable(near)  # as TLS: it shows no parts

    def held(transport: trio.abc.Stream) -> int:
        return 1000 - falling * int(trio.current_time())

    monkeypatch.setattr(_writer, "unacknowledged", held)
    received = 0
    async with trio.open_nursery() as nursery, far:

        async def send_and_close() -> None:
            async with client_session(transport, config=kind.config(heartbeat=None)) as session:
                async with await session.open_stream() as stream:
                    await stream.send_all(bytes(size))

        nursery.start_soon(send_and_close)
        await wait_all_tasks_blocked()
        while received < size:
            mock_clock.jump(CLOSE_TIMEOUT - 1)
            await wait_all_tasks_blocked()
            chunk = await far.receive_some(8192)
            assert chunk, f"given up after {trio.current_time()} s and {received} bytes"
            received += len(chunk)
            await wait_all_tasks_blocked()
        assert trio.current_time() > 2 * CLOSE_TIMEOUT
        await read_all(far)


async def test_linux_tells_what_of_a_socket_s_bytes_the_peer_has_not_got(
    client_context: ssl.SSLContext,
) -> None:
    """Nothing but a socket has a system below that holds bytes."""
    linux = sys.platform == "linux"
    near, far = socket_pair()
    tls = trio.SSLStream(near, client_context)
    async with near, far:
        assert _transport.unacknowledged(near) == 0
        await near.send_all(bytes(1000))
        assert (_transport.unacknowledged(near) > 0) is linux
        assert _transport.unacknowledged(tls) == _transport.unacknowledged(near)
        await read_exactly(far, 1000)
        assert _transport.unacknowledged(near) == 0
    assert _transport.unacknowledged(near) == 0
    async with tcp_pair() as (tcp, _):
        await fill(tcp)
        assert (_transport.unacknowledged(tcp) > 0) is linux
    assert _transport.unacknowledged(Deaf()) == 0


@with_types
async def test_heartbeats_are_no_progress_of_closing(
    kind: Kind, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that lives, but whose application does not read, cannot hold up closing for ever."""
    beats_held = iter(range(100, 0, -1))  # the system gets rid of them
    monkeypatch.setattr(_writer, "unacknowledged", lambda transport: next(beats_held))
    async with trio.open_nursery() as nursery:
        near, far = memory_stream_pair()

        async def serve() -> None:
            async with server_session(far, config=kind.config(wire="auto")) as server:
                await server.accept_stream()
                await server.wait_closed()

        nursery.start_soon(serve)
        async with client_session(near, config=kind.config()) as client:
            stream = await client.open_stream()
            await fill(stream)
            start = trio.current_time()
        assert trio.current_time() - start == CLOSE_TIMEOUT


@each_wire
async def test_closing_says_goaway_flushes_and_half_closes(kind: Kind) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.syn(3))
        stream = await session.accept_stream()
        async with trio.open_nursery() as nursery:
            await stream.send_all(b"last words")
            nursery.start_soon(session.aclose)
            frames = await peer.frames()
            assert [f for f in frames if isinstance(f, GoAway)] == [GoAway(3, 0)]
            assert b"last words" in bytes(peer.raw)
            assert peer.has_ended
            # The peer may still say what it has to say, until it ends too.
            peer.send(peer.data(3, b"answer"))
            assert await stream.receive_some() == b"answer"
            peer.end()
    assert (await session.wait_closed()).clean


@each_wire
async def test_closing_is_bounded_when_the_peer_does_not_end(
    kind: Kind, autojump_clock: MockClock
) -> None:
    peer = RawPeer(kind)
    start = trio.current_time()
    async with server_session(peer.transport, config=kind.config(heartbeat=None)) as session:
        peer.send(peer.syn(3))
        await session.accept_stream()
    assert trio.current_time() - start == CLOSE_TIMEOUT
    assert (await session.wait_closed()).clean


HELD_FOR = {
    "nothing held, or nobody tells": (0, CLOSE_TIMEOUT),
    "held, and not taken": (1, CLOSE_TIMEOUT),
    "taken for a while": (11, 10 * CLOSE_TIMEOUT / LOOKS + CLOSE_TIMEOUT),
    "taken for ever": (10_000, 60),
}


@pytest.mark.parametrize("case", HELD_FOR)
@each_wire
async def test_closing_waits_while_the_peer_takes_what_the_system_holds(
    kind: Kind, case: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed earlier, TCP would drop it as soon as the peer sends anything.

    The peer never ends, and takes some of it each time that somebody looks, until the last.
    """
    looks, seconds = HELD_FOR[case]
    held = chain(range(looks, 0, -1), repeat(min(looks, 1)))
    monkeypatch.setattr(_transport, "unacknowledged", lambda transport: next(held))
    peer = RawPeer(kind)
    start = trio.current_time()
    async with server_session(peer.transport, config=kind.config(heartbeat=None)) as session:
        peer.send(peer.syn(3))
        await session.accept_stream()
    assert trio.current_time() - start == seconds


@each_wire
async def test_a_peer_that_ends_while_it_takes_the_last_is_waited_for_no_longer(
    kind: Kind, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = count(10_000, -1)
    monkeypatch.setattr(_transport, "unacknowledged", lambda transport: next(held))
    peer = RawPeer(kind)
    async with trio.open_nursery() as nursery:

        async def end_late() -> None:
            await trio.sleep(20.1)
            peer.end()

        nursery.start_soon(end_late)
        async with server_session(peer.transport, config=kind.config(heartbeat=None)) as session:
            peer.send(peer.syn(3))
            await session.accept_stream()
            start = trio.current_time()
        assert trio.current_time() - start == pytest.approx(20.1)


@pytest.mark.parametrize("make", [Deaf, DeafHalfCloseable])
@each_wire
async def test_closing_is_bounded_on_a_transport_that_takes_nothing(
    kind: Kind, make: Callable[[], Deaf], autojump_clock: MockClock
) -> None:
    transport = make()
    start = trio.current_time()
    async with client_session(transport, config=kind.config(heartbeat=None)) as session:
        await (await session.open_stream()).send_all(b"x")
    assert trio.current_time() - start == CLOSE_TIMEOUT
    assert transport.closed


@each_wire
async def test_closing_is_bounded_on_a_transport_whose_close_hangs(
    kind: Kind, autojump_clock: MockClock
) -> None:
    class HangsInClose(Transport):
        async def aclose(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                await trio.aclose_forcefully(self.inner)

    near, _ = memory_stream_pair()
    start = trio.current_time()
    async with client_session(HangsInClose(near), config=kind.config(heartbeat=None)) as session:
        await session.open_stream()
    assert trio.current_time() - start == CLOSE_TIMEOUT


async def test_closing_is_bounded_when_half_closing_hangs(autojump_clock: MockClock) -> None:
    class HangsInSendEof(HalfCloseable):
        async def send_eof(self) -> None:
            await trio.sleep_forever()

    near, _ = memory_stream_pair()
    start = trio.current_time()
    async with client_session(HangsInSendEof(near)):
        pass
    assert trio.current_time() - start == CLOSE_TIMEOUT


@each_wire
async def test_a_peer_that_ends_while_we_close_costs_no_time(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """The frame reader sees the end before the frame writer has run: both ends close at once."""
    for _ in range(20):
        peer = RawPeer(kind)
        start = trio.current_time()
        async with server_session(peer.transport, config=kind.config(heartbeat=None)) as session:
            peer.send(peer.syn(3))
            await session.accept_stream()
            await wait_all_tasks_blocked()
            peer.end()
        assert trio.current_time() == start


@each_wire
async def test_a_transport_that_cannot_be_half_closed_is_closed(kind: Kind) -> None:
    near, far = memory_stream_pair()
    transports = (Transport(near), Transport(far))
    async with session_pair(kind, transports=transports) as (client, server):
        stream = await client.open_stream()
        await stream.send_all(b"x")
        await server.accept_stream()
        await client.aclose()
        assert (await server.wait_closed()).clean
    assert transports[0].closed
    assert transports[1].closed


@each_wire
async def test_aclose_again_does_nothing(kind: Kind) -> None:
    async with session_pair(kind) as (client, _):
        await client.aclose()
        for _ in range(2):
            with assert_checkpoints():
                await client.aclose()
        assert await outcome_of(client.wait_closed) == await client.wait_closed()


@each_wire
async def test_two_acloses_at_once_lose_nothing(kind: Kind) -> None:
    """The second must not cut short what the first one still waits for."""
    size = kind.window + SEND_BUFFER
    async with session_pair(kind, **STEADY) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        await near.send_all(bytes(size))
        await near.aclose()
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await read_all(far))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            nursery.start_soon(client.aclose)
            await wait_all_tasks_blocked()
            nursery.start_soon(receive)
    assert len(received[0]) == size


@each_wire
async def test_leaving_the_block_waits_for_an_aclose_under_way(kind: Kind) -> None:
    size = kind.window + SEND_BUFFER
    near, far = memory_stream_pair()
    received: list[bytes] = []
    async with trio.open_nursery() as nursery:
        async with server_session(far, config=kind.config(wire="auto", **STEADY)) as server:
            async with client_session(near, config=kind.config(**STEADY)) as client:
                stream = await client.open_stream()
                await stream.send_all(bytes(size))
                await stream.aclose()
                nursery.start_soon(client.aclose)
                await wait_all_tasks_blocked()

                async def receive() -> None:
                    received.append(await read_all(await server.accept_stream()))

                nursery.start_soon(receive)
    assert [len(content) for content in received] == [size]


@each_wire
async def test_aclose_from_inside_a_handler(kind: Kind) -> None:
    async with session_pair(kind) as (client, server):
        outcomes: list[Any] = []

        async def handler(stream: MuxadoStream) -> None:
            await stream.send_all(b"bye")
            await stream.session.aclose()
            outcomes.append(await outcome_of(stream.receive_some))

        stream = await client.open_stream()
        await server.serve_streams(handler)
        assert type(outcomes[0]) is SessionClosedError
        assert await stream.receive_some() == b"bye"


@pytest.mark.parametrize(
    "window, announced, safe", [(None, False, True), (None, True, True), (1 << 20, False, False)]
)
@each_kind
async def test_streams_that_nobody_has_accepted_are_refused_and_never_handed_out(
    kind: Kind, window: int | None, announced: bool, safe: bool
) -> None:
    """Where a larger window has been granted on them already, their opener cannot know that."""
    choices = {"receive_window": window}
    async with session_pair(kind, heartbeat=None, server=choices) as (client, server):
        streams = [await client.open_stream() for _ in range(3)]
        for stream in streams:
            await stream.send_all(b"pay 100")
        taken = await server.accept_stream()
        await wait_all_tasks_blocked()
        if announced:
            await server.goaway()
        await server.aclose()
        assert type(await outcome_of(server.accept_stream)) is SessionClosedError
        errors = [await outcome_of(stream.receive_some) for stream in streams]
        assert taken.id == streams[0].id
        assert [type(e) for e in errors] == [SessionEndedError] + [StreamResetError] * 2
        assert [e.safe_to_retry for e in errors] == [False, safe, safe]


@with_types
async def test_aclose_from_inside_an_extension_handler(kind: Kind) -> None:
    ended: list[str] = []

    async def handler(stream: MuxadoStream) -> None:
        try:
            await stream.session.aclose()
        finally:
            ended.append("ended")

    async with session_pair(kind, server={"extensions": {EXTENSION: handler}}) as (client, server):
        stream = await client.open_stream(type=EXTENSION)
        assert (await server.wait_closed()).initiator == "local"
        assert (await client.wait_closed()).clean
        assert isinstance(await outcome_of(stream.receive_some), SessionEndedError)
    assert ended == ["ended"]


@each_wire
async def test_no_stream_is_opened_while_the_session_closes(kind: Kind) -> None:
    async with session_pair(kind, max_outbound_streams=1, heartbeat=None) as (client, _):
        stream = await client.open_stream()
        await fill(stream)
        outcomes: list[Any] = []

        async def open_one() -> None:
            outcomes.append(await outcome_of(client.open_stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one)
            await wait_all_tasks_blocked()
            nursery.start_soon(client.aclose)
            await wait_all_tasks_blocked()
            assert type(outcomes[0]) is SessionClosedError
            for call in (client.open_stream, client.goaway, client.drain):
                with pytest.raises(SessionClosedError):
                    await call()
            await stream.reset()


@each_wire
async def test_leaving_while_a_send_is_blocked(kind: Kind, autojump_clock: MockClock) -> None:
    outcomes: list[Any] = []
    async with trio.open_nursery() as nursery:
        async with session_pair(kind, heartbeat=None) as (client, server):
            stream = await client.open_stream()
            await server.accept_stream()
            await fill(stream)

            async def send() -> None:
                outcomes.append(await outcome_of(lambda: stream.send_all(b"x")))

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            await client.aclose()
    assert type(outcomes[0]) is SessionClosedError


@each_wire
async def test_closing_forcefully_is_at_once(kind: Kind, autojump_clock: MockClock) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        stream = await client.open_stream()
        await server.accept_stream()
        await fill(stream)
        start = trio.current_time()
        await trio.aclose_forcefully(client)
        assert (await client.wait_closed()).initiator == "local"
        assert (await server.wait_closed()).code is ErrorCode.PEER_EOF
        assert trio.current_time() == start
        await trio.aclose_forcefully(client)


@each_wire
async def test_closing_forcefully_cuts_short_what_is_under_way(
    kind: Kind, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    async with client_session(Deaf(), config=kind.config(heartbeat=None)) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.aclose)
            await wait_all_tasks_blocked()
            await trio.aclose_forcefully(session)
    assert trio.current_time() == start


@each_wire
async def test_a_violation_is_answered_before_the_session_is_gone(kind: Kind) -> None:
    """The body learns of it at the same moment as the frame writer; the GOAWAY still goes out."""
    for _ in range(20):
        peer = RawPeer(kind)
        with pytest.raises(SessionEndedError):
            async with server_session(peer.transport, config=kind.config()) as session:
                async with trio.open_nursery() as nursery:
                    nursery.cancel_scope.cancel()
                peer.send(peer.syn(3), peer.violation())
                peer.end()
                async for _stream in session:
                    pass
        frames = await peer.frames()
        assert [f.error_code for f in frames if isinstance(f, GoAway)] == [1]


@each_wire
async def test_what_a_violator_still_sends_is_read_only_so_long(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with raw_session(kind) as (session, peer):
        peer.send(peer.violation())
        await session.wait_closed()
        await wait_all_tasks_blocked()
        start = trio.current_time()
        for _ in range(4):
            peer.send(bytes(256 * 1024))
        await session.aclose()
        assert trio.current_time() == start
        with pytest.raises(trio.ClosedResourceError):
            peer.send(b"more")


@each_wire
async def test_a_violator_that_never_ends_is_dropped_in_time(
    kind: Kind, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    peer = RawPeer(kind)
    async with server_session(peer.transport, config=kind.config(heartbeat=None)) as session:
        peer.send(peer.violation())
        await session.wait_closed()
    assert trio.current_time() - start == CLOSE_TIMEOUT


@each_wire
async def test_lingering_ends_when_the_block_is_cancelled(
    kind: Kind, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    peer = RawPeer(kind)
    config = kind.config(heartbeat=None)
    with trio.move_on_after(1) as scope:
        with pytest.raises(SessionEndedError):
            async with server_session(peer.transport, config=config) as session:
                peer.send(peer.violation())
                await session.accept_stream()
    assert not scope.cancelled_caught  # the error is what comes out, also then
    assert trio.current_time() - start == 1


# ---- the transport dies under it


WAITING: dict[str, Callable[[MuxadoSession, MuxadoStream], Awaitable[Any]]] = {
    "open_stream": lambda session, stream: session.open_stream(),
    "accept_stream": lambda session, stream: session.accept_stream(),
    "accept": lambda session, stream: session.accept(),
    "serve_streams": lambda session, stream: session.serve_streams(echo),
    "anext": lambda session, stream: session.__anext__(),
    "drain": lambda session, stream: session.drain(),
    "ping": lambda session, stream: session.ping(),
    "send_all": lambda session, stream: stream.send_all(b"x"),
    "send_bytearray": lambda session, stream: stream.send_all(bytearray(300_000)),
    "wait": lambda session, stream: stream.wait_send_all_might_not_block(),
    "receive_some": lambda session, stream: stream.receive_some(),
}


class Oddity(Exception):
    """Nothing that a trio stream should raise."""


@pytest.mark.parametrize("death", ["end", "receive_some", "send_all"])
@pytest.mark.parametrize("name", WAITING)
@each_wire
async def test_whoever_waits_is_told_when_the_transport_dies(
    kind: Kind, name: str, death: str, autojump_clock: MockClock
) -> None:
    """Failure 7, for every public call that can wait."""
    if name == "ping" and kind is not V1:
        kind = V2_TYPED
    outcomes: list[Any] = []
    near, far = memory_stream_pair()
    transport = Failing(near)
    peer = RawPeer(kind)  # for its frames only
    config = kind.config(max_outbound_streams=1, heartbeat=None, **STEADY)
    async with client_session(transport, config=config) as session:
        await (await session.open_stream()).aclose()
        await far.send_all(peer.data(3, fin=True))  # an answer, which frees its place
        stream = await session.open_stream()
        await fill(stream)

        async def wait() -> None:
            outcomes.append(await outcome_of(lambda: WAITING[name](session, stream)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            assert not outcomes
            if death == "end":
                await trio.aclose_forcefully(far)
            else:
                transport.fail(death, Oddity("the cable is out"))
            if death == "send_all":
                await far.send_all(peer.data(3, b"must be answered"))
        (error,) = outcomes
        assert isinstance(error, SessionEndedError)
        assert isinstance(error, trio.BrokenResourceError)
        assert error.initiator == "transport"
        if death == "end":
            assert error.__cause__ is None
            assert error.code is ErrorCode.PEER_EOF
        else:
            assert isinstance(error.__cause__, Oddity)
            assert error.code is ErrorCode.INTERNAL_ERROR
        reason = await session.wait_closed()
        assert not reason.clean
        assert reason.error is error.__cause__


@each_wire
async def test_what_has_come_can_be_read_although_nothing_can_be_written(
    kind: Kind, autojump_clock: MockClock
) -> None:
    near, far = memory_stream_pair()
    transport = Failing(near)
    peer = RawPeer(kind)
    async with client_session(transport, config=kind.config(heartbeat=None)) as session:
        stream = await session.open_stream()
        await wait_all_tasks_blocked()
        transport.fail("send_all", Oddity("nobody listens"))
        await stream.send_all(b"question")
        await wait_all_tasks_blocked()
        await far.send_all(peer.data(3, b"the answer came before", fin=True))
        await far.send_all(peer.goaway(3, ErrorCode.NO_ERROR))
        await far.send_eof()
        assert await read_all(stream) == b"the answer came before"
        assert (await session.wait_closed()).clean


@each_wire
async def test_a_transport_that_cannot_be_written_ends_the_session_in_time(
    kind: Kind, autojump_clock: MockClock
) -> None:
    near, far = memory_stream_pair()
    transport = Failing(near)
    error = Oddity("nobody listens")
    transport.fail("send_all", error)
    start = trio.current_time()
    async with client_session(transport, config=kind.config(heartbeat=None)) as session:
        stream = await session.open_stream()
        with pytest.raises(SessionEndedError) as caught:
            await stream.receive_some()
        assert caught.value.__cause__ is error
        assert (await session.wait_closed()).error is error
        assert trio.current_time() - start == CLOSE_TIMEOUT
    await far.aclose()


@each_wire
async def test_closing_after_writing_has_failed(kind: Kind, autojump_clock: MockClock) -> None:
    near, far = memory_stream_pair()
    transport = Failing(near)
    transport.fail("send_all", Oddity("nobody listens"))
    async with client_session(transport, config=kind.config(heartbeat=None)) as session:
        await session.open_stream()
        await wait_all_tasks_blocked()
        start = trio.current_time()
        transport.fail("send_eof", Oddity("nor here"))
    assert trio.current_time() == start
    assert transport.closed
    await far.aclose()


@pytest.mark.parametrize("method", ["send_eof", "aclose"])
@each_wire
async def test_odd_errors_while_closing_are_swallowed(
    kind: Kind, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    near, far = memory_stream_pair()
    transport = Failing(near)
    transport.fail(method, Oddity("no"))
    async with session_pair(kind, transports=(transport, far)) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        await client.aclose()
    assert transport.closed
    assert any("Oddity" in record.getMessage() for record in caplog.records)


async def test_odd_errors_while_closing_what_cannot_be_half_closed() -> None:
    class FailsToClose(Transport):
        async def aclose(self) -> None:
            await super().aclose()
            raise Oddity("no")

    near, far = memory_stream_pair()
    async with session_pair(V1, transports=(FailsToClose(near), far)) as (client, server):
        await client.open_stream()
        await server.accept_stream()
        await client.aclose()


@each_wire
async def test_an_odd_error_while_lingering_is_swallowed(kind: Kind) -> None:
    near, far = memory_stream_pair()
    transport = Failing(near)
    peer = RawPeer(kind)
    async with server_session(transport, config=kind.config(heartbeat=None)) as session:
        await far.send_all(peer.violation())
        await session.wait_closed()
        await wait_all_tasks_blocked()
        transport.fail("receive_some", Oddity("gone"))
    assert transport.closed
    await far.aclose()


@each_wire
async def test_a_transport_that_takes_nothing_for_too_long_is_given_up(
    kind: Kind, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    async with client_session(Deaf(), config=kind.config(heartbeat=None)) as session:
        stream = await session.open_stream()
        with pytest.raises(SessionEndedError) as caught:
            await stream.receive_some()
        assert caught.value.code is ErrorCode.WRITE_TIMEOUT
        assert caught.value.initiator == "transport"
        assert trio.current_time() - start == 60


@each_wire
async def test_a_slow_transport_is_not_given_up(kind: Kind, autojump_clock: MockClock) -> None:
    class Slow(HalfCloseable):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep(59)
            await super().send_all(data)

    near, far = memory_stream_pair()
    transports = (Slow(near), far)
    async with session_pair(kind, transports=transports, heartbeat=None) as (client, server):
        for _ in range(3):
            stream = await client.open_stream()
            await stream.send_all(b"x")
            assert await (await server.accept_stream()).receive_some() == b"x"
            await trio.sleep(1000)  # being idle is not being slow
        await stream.aclose()
        await trio.sleep(60)


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


# ---- the nursery under all this


async def test_a_bare_nursery_waits_for_its_tasks() -> None:
    done: list[str] = []

    async def task(name: str) -> None:
        await trio.lowlevel.checkpoint()
        done.append(name)

    async with open_bare_nursery() as nursery:
        nursery.start_soon(task, "task")
    assert done == ["task"]


async def test_a_bare_nursery_that_is_cancelled_while_it_waits() -> None:
    with trio.CancelScope() as scope:
        caught: BaseException | None = None
        try:
            async with open_bare_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
        except BaseException as error:
            caught = error
            raise
    assert type(caught) is trio.Cancelled
    assert scope.cancelled_caught


async def test_a_bare_nursery_prefers_a_failure_to_its_own_cancellation() -> None:
    async def crash() -> None:
        raise LookupError("bare")

    with pytest.raises(LookupError, match="bare"):
        async with open_bare_nursery() as nursery:
            nursery.start_soon(crash)
            await trio.sleep_forever()


# ---- nothing is left


@each_wire
async def test_nothing_survives_a_session(kind: Kind) -> None:
    """Not a task, also where a session was torn down in the middle of everything."""

    def tasks() -> set[trio.lowlevel.Task]:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        found = set()
        waiting = [root]
        while waiting:
            task = waiting.pop()
            found.add(task)
            for nursery in task.child_nurseries:
                waiting += nursery.child_tasks
        return found

    before = tasks()
    with pytest.raises(ValueError, match="torn down"):
        async with session_pair(kind) as (client, server):
            stream = await client.open_stream()
            await server.accept_stream()
            await fill(stream)
            raise ValueError("torn down")
    assert tasks() == before


@each_wire
async def test_a_session_over_tcp_closes_its_socket(kind: Kind) -> None:
    """TCP, because only a real socket warns when it is left open."""
    async with tcp_pair() as (near, far):
        async with session_pair(kind, transports=(near, far)) as (client, server):
            stream = await client.open_stream()
            await stream.send_all(b"x")
            await server.accept_stream()
        for transport in (near, far):
            assert isinstance(transport, trio.SocketStream)
            assert transport.socket.fileno() == -1


@each_wire
async def test_a_gate_that_opens_late_lets_the_rest_out(kind: Kind) -> None:
    """Closing while the transport is stuck: what was accepted goes out once it moves."""
    near, far = memory_stream_pair()
    gate = Gated(near)
    async with session_pair(kind, transports=(gate, far), heartbeat=None) as (client, server):
        stream = await client.open_stream()
        inbound = await server.accept_stream()
        gate.shut()
        await stream.send_all(b"the last words")
        await stream.aclose()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            await wait_all_tasks_blocked()
            gate.open()
            assert await read_all(inbound) == b"the last words"
            assert (await server.wait_closed()).clean


@each_wire
async def test_a_reset_stream_does_not_hold_up_closing(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with session_pair(kind, heartbeat=None) as (client, server):
        stream = await client.open_stream()
        inbound = await server.accept_stream()
        await fill(stream)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            await wait_all_tasks_blocked()
            await inbound.reset()
        assert trio.current_time() == start
        assert isinstance(await outcome_of(stream.receive_some), StreamResetError)


@each_wire
async def test_over_tls_the_last_data_arrives_while_the_peer_still_sends(kind: Kind) -> None:
    """Closing a TLS stream over unread bytes would make TCP drop what is on its way."""
    authority = trustme.CA()
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    async with (
        tls_pair(client_context, server_context) as (near, far),
        session_pair(kind, transports=(near, far)) as (client, server),
        trio.open_nursery() as nursery,
    ):

        async def upload() -> None:
            stream = await client.open_stream()
            with pytest.raises(MuxadoError):
                while True:
                    await stream.send_all(bytes(50_000))

        async def answer_and_leave() -> None:
            upward = await server.accept_stream()
            nursery.start_soon(outcome_of, partial(read_all, upward))
            downward = await server.open_stream()
            await downward.send_all(bytes(1_000_000))
            await downward.aclose()
            await server.aclose()

        nursery.start_soon(upload)
        nursery.start_soon(answer_and_leave)
        assert len(await read_all(await client.accept_stream())) == 1_000_000
        assert (await client.wait_closed()).clean
