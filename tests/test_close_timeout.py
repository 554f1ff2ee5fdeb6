"""How long closing takes: while the peer still reads or takes, and bounded when it does not."""

import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from itertools import chain, count, repeat

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import (
    SessionEndedError,
    StreamResetError,
    _writer,
    client_session,
    server_session,
)
from trio_muxado._timeouts import LOOKS
from trio_muxado._transport import closing
from trio_muxado._transport.sending import FIRST
from trio_muxado.testing import Link

from .helpers import (
    STEADY,
    Deaf,
    DeafHalfCloseable,
    HalfCloseable,
    Kind,
    RawPeer,
    Transport,
    each_wire,
    fill,
    outcome_of,
    raw_session,
    read_all,
    read_exactly,
    session_pair,
    socket_pair,
    tcp_pair,
    with_types,
)

CLOSE_TIMEOUT = 5.0


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
    tls = trio.SSLStream(near, client_context, server_hostname="localhost")
    async with near, far:
        assert closing.unacknowledged(near) == 0
        await near.send_all(bytes(1000))
        assert (closing.unacknowledged(near) > 0) is linux
        assert closing.unacknowledged(tls) == closing.unacknowledged(near)
        await read_exactly(far, 1000)
        assert closing.unacknowledged(near) == 0
    assert closing.unacknowledged(near) == 0
    async with tcp_pair() as (tcp, _):
        await fill(tcp)
        assert (closing.unacknowledged(tcp) > 0) is linux
    assert closing.unacknowledged(Deaf()) == 0


@with_types
async def test_heartbeats_are_no_progress_of_closing(
    kind: Kind, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that lives, but whose application does not read, cannot hold up closing forever."""
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
async def test_closing_has_a_deadline_progress_or_not(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """A link that needs longer for what was accepted, and a peer that reads all of it."""
    link, size = Link(bandwidth=20_000), 1_000_000
    deadlines = {"close_timeout": 15, "close_deadline": 20}
    async with session_pair(
        kind, transports=(link.client, link.server), client=deadlines, send_buffer=size
    ) as (near, far):
        sending = await near.open_stream()
        await sending.send_all(bytes(size))
        await sending.aclose()
        receiving = await far.accept_stream()
        outcomes: list[object] = []

        async def receive() -> None:
            outcomes.append(await outcome_of(partial(read_all, receiving)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            start = trio.current_time()
            await near.aclose()
            assert trio.current_time() == start + 20
        assert isinstance(outcomes[0], SessionEndedError)


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
    "taken forever": (10_000, 60),
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
    monkeypatch.setattr(_writer, "unacknowledged", lambda transport: next(held))
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
    monkeypatch.setattr(_writer, "unacknowledged", lambda transport: next(held))
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
    """The frame reader sees the end before the frame writer has run: both sides close at once."""
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


class StuckInClose(Transport):
    """A transport without half-close, whose first ``aclose`` does not return."""

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            await trio.sleep_forever()
        await super().aclose()


class StuckInEof(StuckInClose, trio.abc.HalfCloseableStream):
    """One whose ``send_eof`` does not return."""

    async def send_eof(self) -> None:
        await trio.sleep_forever()


@each_wire
@pytest.mark.parametrize("transport", [StuckInEof, StuckInClose])
@pytest.mark.parametrize("after", [0.0, 1.0, CLOSE_TIMEOUT + 1])
async def test_a_transport_that_holds_up_closing_as_the_peer_ends(
    kind: Kind,
    transport: Callable[[trio.abc.Stream], trio.abc.Stream],
    after: float,
    autojump_clock: MockClock,
) -> None:
    """The peer's end ends the session, and its timers with it: nothing else may go on waiting."""
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def end_later() -> None:
            await trio.sleep(after)
            await far.aclose()

        start = trio.current_time()
        with trio.fail_after(10 * CLOSE_TIMEOUT):
            config = kind.config(close_timeout=CLOSE_TIMEOUT, heartbeat=None)
            async with client_session(transport(near), config=config) as session:
                await wait_all_tasks_blocked()
                nursery.start_soon(end_later)
                await session.aclose()
        assert trio.current_time() - start <= CLOSE_TIMEOUT
        assert session.close_reason is not None
