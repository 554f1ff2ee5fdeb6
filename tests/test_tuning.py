"""How sessions use a link: windows that grow until it is full, fair shares, and who goes first.

All of it over `trio_muxado.testing.Link` on trio's mocked clock, so the rates and the waits here
are facts of the algorithms, the same on every machine.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_muxado import (
    Heartbeat,
    MuxadoConfig,
    MuxadoSession,
    MuxadoStream,
    _line,
    server_session,
    testing,
)
from trio_muxado._protocol.connection import Connection
from trio_muxado._protocol.frames import WndInc
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.outbox import QUANTUM
from trio_muxado._protocol.wire import WIRES
from trio_muxado._transport.sending import BatchSize
from trio_muxado._writer import CREDIT_PATIENCE
from trio_muxado.testing import Link, open_session_pair

from .helpers import Kind, each_wire, fill, raw_session, read_exactly, together, waits_of

KB, MB = 1_000, 1_000_000

ROUND_TRIP = 0.1
BANDWIDTH = 100 * MB

BATCH = 256 * 1024
"""What the frame writer gives to the transport at a time, at most."""

HIGHEST = 2**31 - 1
"""The highest priority that a user can choose."""

SEGMENT = 0.001
"""Seconds that the link takes, at most, for the segment in which something small travels."""


def one_batch(kind: Kind, bandwidth: float) -> float:
    """Seconds that something urgent may wait on a full link.  A batch ends with a whole frame."""
    batch = BatchSize()
    for _ in range(10):
        batch.taken(batch.bytes, batch.bytes / bandwidth)
    return (batch.bytes + min(batch.bytes, WIRES[kind.wire].max_payload)) / bandwidth + SEGMENT


def long_fat_link() -> Link:
    """10 MB are on their way in a round trip, where a new v1 stream may have 64 KiB."""
    return Link(latency=ROUND_TRIP / 2, bandwidth=BANDWIDTH)


@pytest.fixture
def large_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link cuts what it carries into a quarter of the segments, each of which is a few turns of
    trio's loop: for tests of what becomes of whole batches."""
    monkeypatch.setattr(testing, "_SEGMENT_TIME", 0.004)
    for module in (testing, _line):
        monkeypatch.setattr(module, "READ_SIZE", BATCH)


async def send(stream: MuxadoStream, size: int) -> None:
    """Send so many bytes, and the end."""
    chunk = bytes(BATCH)
    while size > 0:
        await stream.send_all(chunk[:size])
        size -= len(chunk)
    await stream.send_eof()


async def drain(stream: MuxadoStream) -> int:
    """Read as fast as it comes; how much it was."""
    received = 0
    while chunk := await stream.receive_some():
        received += len(chunk)
    return received


@asynccontextmanager
async def bulk(
    link: Link, kind: Kind, **choices: Any
) -> AsyncGenerator[tuple[MuxadoSession, MuxadoSession], None]:
    """Sessions for as many streams as a test likes, without heartbeats between the data.

    They end at once: what is still queued would have to cross the link first.
    """
    choices = {"heartbeat": None, "max_outbound_streams": None, **choices}
    with trio.CancelScope() as scope:
        async with open_session_pair(config=kind.config(**choices), link=link) as sessions:
            yield sessions
            scope.cancel()


async def rate_of_one_stream(kind: Kind, size: int, **choices: Any) -> float:
    """Bytes per second of one transfer, from the moment its stream is opened."""
    async with bulk(long_fat_link(), kind, **choices) as (client, server):
        start = trio.current_time()
        near = await client.open_stream()
        far = await server.accept_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, size)
            assert await drain(far) == size
        return size / (trio.current_time() - start)


# ---- windows on a long fat link


@pytest.mark.usefixtures("large_segments")
@each_wire
async def test_one_stream_fills_a_long_fat_link(kind: Kind, autojump_clock: MockClock) -> None:
    """18: 100 MB/s and 100 ms.

    The beginning counts: until the window has grown, which takes a round trip for each doubling,
    the link is nearly empty.  In 300 MB, 3 seconds of the link, that is amortised.
    """
    assert await rate_of_one_stream(kind, 300 * MB) > 0.8 * BANDWIDTH


async def test_a_window_that_never_grows_moves_itself_once_in_a_round_trip(
    autojump_clock: MockClock,
) -> None:
    """18: what one stream had without growing windows, 0.65 of 100 MB/s."""
    kind = Kind("v1", "v1")
    rate = await rate_of_one_stream(kind, 5 * MB, max_receive_window=kind.window)
    assert rate == pytest.approx(kind.window / ROUND_TRIP, rel=0.02)


@pytest.mark.usefixtures("large_segments")
@each_wire
async def test_a_window_doubles_in_every_round_trip_until_the_link_is_full(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """18: no window stays stuck at a fraction of the link."""
    grown: dict[int, float] = {}  # sizes, and when each was reached
    async with bulk(long_fat_link(), kind) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, 100 * MB)
            while await far.receive_some():
                size = server.statistics().largest_receive_window
                if size:  # else the peer has ended the stream, and the rest of it is read
                    grown.setdefault(size, trio.current_time() - start)
    assert list(grown) == [kind.window << n for n in range(len(grown))]
    assert max(grown) == MuxadoConfig().max_receive_window
    needed = [time for size, time in grown.items() if size <= 2 * BANDWIDTH * ROUND_TRIP]
    assert needed[-1] < (len(needed) + 1) * ROUND_TRIP


@pytest.mark.usefixtures("large_segments")
@each_wire
@pytest.mark.parametrize("bandwidth, latency", [(10 * MB, 0.05), (12.5 * MB, 0.01), (3 * MB, 0.1)])
async def test_a_window_ends_a_few_times_as_large_as_the_link_needs(
    kind: Kind, bandwidth: float, latency: float, autojump_clock: MockClock
) -> None:
    on_its_way = bandwidth * 2 * latency
    largest = 0
    async with bulk(Link(latency, bandwidth), kind) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, round(20 * on_its_way))
            while await far.receive_some():
                largest = max(largest, server.statistics().largest_receive_window)
    assert on_its_way <= largest <= 10 * max(on_its_way, kind.window)


@pytest.mark.usefixtures("large_segments")
@each_wire
async def test_windows_of_many_streams_stay_within_the_budget(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """18: two hundred streams at once share 64 MiB, and can hold no more than that unread."""
    budget, streams, initial = MuxadoConfig().receive_budget, 200, WIRES[kind.wire].initial_window
    inbound: list[MuxadoStream] = []
    received = 0

    async def read(stream: MuxadoStream) -> None:
        nonlocal received
        while chunk := await stream.receive_some():
            received += len(chunk)

    async with bulk(long_fat_link(), kind, accept_backlog=streams) as (client, server):
        async with trio.open_nursery() as senders:
            async with trio.open_nursery() as readers:
                for _ in range(streams):
                    senders.start_soon(send, await client.open_stream(), 100 * MB)
                for _ in range(streams):
                    inbound.append(await server.accept_stream())
                    readers.start_soon(read, inbound[-1])
                await trio.sleep(1.5)  # the windows have grown after a third of that
                readers.cancel_scope.cancel()
            assert received > 1 * BANDWIDTH
            now = server.statistics()
            assert streams * initial < now.receive_windows <= budget
            await trio.sleep(60)  # nobody reads, and the senders send until they may not any more
            then = server.statistics()
            assert then.receive_windows == now.receive_windows
            unread = sum(stream._received.size for stream in inbound)
            # Up to half of each initial window was read, and is not granted again yet.
            assert then.receive_windows - streams * initial // 2 <= unread <= 1.01 * budget
            senders.cancel_scope.cancel()
        for stream in inbound:
            await stream.aclose()
        assert server._engine.connection.streams.spare_window == budget  # all of it came back


@each_wire
async def test_a_reader_that_does_not_read_keeps_its_window(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with bulk(long_fat_link(), kind) as (client, server):
        near = await client.open_stream()
        await server.accept_stream()
        with trio.move_on_after(60):
            await send(near, 10 * MB)
        now = server.statistics()
        assert now.largest_receive_window == kind.window
        assert now.bytes_received < 1.01 * kind.window
        assert near._core.send_window == 0
        await near.reset()


@each_wire
async def test_a_reader_that_is_slower_than_the_link_gets_no_larger_window_than_it_uses(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """What the application takes in a pause of its own may come meanwhile, and no 16 MiB."""
    async with bulk(long_fat_link(), kind) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, 5 * MB)
            largest = taken = 0
            while chunk := await far.receive_some(20_000):
                await trio.sleep(0.01)
                taken = max(taken, len(chunk))
                largest = max(largest, server.statistics().largest_receive_window)
    assert taken == 20_000
    assert largest <= 4 * kind.window


# ---- a peer that clamps


class ClampingPeer:
    """A client that sends one stream over a transport, as the protocol without sessions does it.

    Its window is never larger than it began: what would make it so is lost, as in the Rust peers.
    """

    def __init__(self, transport: trio.abc.Stream, kind: Kind) -> None:
        self.transport = transport
        self.wire = WIRES[kind.wire]
        self.connection = Connection(client=True, wire=self.wire, limits=Limits())
        self.changed = trio.Event()
        self.stream = self.connection.open_stream()
        self.lost = 0

    def queue(self, size: int) -> None:
        """Queue all that it will send."""
        self.connection.send(self.stream, bytes(size))
        self.connection.end_sending(self.stream)

    async def run(self) -> None:
        """Send and receive until the other end has ended the transport."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            while data := await self.transport.receive_some():
                self.connection.receive_data(bytes(data), trio.current_time())
                surplus = max(0, self.stream.send_window - self.wire.initial_window)
                self.stream.send_window -= surplus
                self.lost += surplus
                self.changed.set()
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        while True:
            self.changed = trio.Event()
            while self.connection.wants_to_send:
                batch, _ = self.connection.data_to_send(BATCH)
                await self.transport.send_all(b"".join(batch))
            await self.changed.wait()


@pytest.mark.usefixtures("large_segments")
@each_wire
async def test_a_peer_that_drops_the_surplus_of_a_grant_is_never_stalled(
    kind: Kind, autojump_clock: MockClock
) -> None:
    size = 40 * kind.window
    link = Link(latency=ROUND_TRIP / 2, bandwidth=1 * MB)
    peer = ClampingPeer(link.client, kind)
    peer.queue(size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        async with server_session(link.server, config=kind.config(heartbeat=None)) as server:
            far = await server.accept_stream()
            received, largest = 0, 0
            with trio.fail_after(60):
                while chunk := await far.receive_some():
                    received += len(chunk)
                    largest = max(largest, server.statistics().largest_receive_window)
            assert received == size
            assert largest > kind.window
            assert peer.lost > kind.window  # so nothing could have come without being granted
            nursery.cancel_scope.cancel()


# ---- fair shares, and who goes first


class Way(NamedTuple):
    """Which end opens a test's streams, and which of the two sends on them."""

    opener: str
    sender: str

    async def open(
        self, client: MuxadoSession, server: MuxadoSession, priority: int = 0
    ) -> tuple[MuxadoStream, MuxadoStream]:
        """The end of a new stream that sends, and the one that receives."""
        opens, accepts = (client, server) if self.opener == "client" else (server, client)
        near = await opens.open_stream(priority=priority)
        far = await accepts.accept_stream()
        if accepts.wire == "v2":
            far.priority = priority
        assert far.priority == priority  # v1 has told it
        return (near, far) if self.sender == "opener" else (far, near)


each_way = pytest.mark.parametrize(
    "way",
    [Way(opener, sender) for opener in ("client", "server") for sender in ("opener", "acceptor")],
    ids="-".join,
)


@pytest.mark.usefixtures("large_segments")
@each_wire
@each_way
async def test_equal_streams_get_equal_shares(
    kind: Kind, way: Way, autojump_clock: MockClock
) -> None:
    """At any time between the first bytes and the last, not only in the end.

    Streams take turns: one may just have had its quantum that another is to have next.
    """
    streams = 5
    received = [0] * streams

    async def read(number: int, stream: MuxadoStream) -> None:
        while chunk := await stream.receive_some():
            received[number] += len(chunk)

    async with bulk(Link(latency=0.001, bandwidth=10 * MB), kind) as sessions:
        async with trio.open_nursery() as nursery:
            for number in range(streams):
                sender, receiver = await way.open(*sessions)
                nursery.start_soon(send, sender, 100 * MB)
                nursery.start_soon(read, number, receiver)
            for _ in range(3):
                before = received.copy()
                await trio.sleep(0.5)
                shares = [now - then for now, then in zip(received, before, strict=True)]
                assert sum(shares) == pytest.approx(5 * MB, rel=0.02)
                assert shares == pytest.approx([1 * MB] * streams, abs=QUANTUM)
            nursery.cancel_scope.cancel()


@each_wire
async def test_a_small_answer_does_not_wait_for_large_ones(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """Equals take turns, so it waits for one batch and one turn of each other stream."""
    streams, bandwidth = 10, 10 * MB
    async with bulk(Link(bandwidth=bandwidth), kind) as (client, server):
        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(send, await client.open_stream(), 100 * MB)
                nursery.start_soon(drain, await server.accept_stream())
            await trio.sleep(1)
            small = await client.open_stream()
            start = trio.current_time()
            await small.send_all(b"answer")
            await (await server.accept_stream()).receive_some()
            turn = one_batch(kind, bandwidth) / 2
            assert trio.current_time() - start < one_batch(kind, bandwidth) + 1.05 * streams * turn
            nursery.cancel_scope.cancel()


@each_wire
@each_way
@pytest.mark.parametrize("low_streams", [1, 20])
async def test_high_priority_waits_for_one_batch_at_most(
    kind: Kind, way: Way, low_streams: int, autojump_clock: MockClock
) -> None:
    latency, bandwidth = 0.001, 50 * MB
    async with bulk(Link(latency, bandwidth), kind) as sessions:
        async with trio.open_nursery() as nursery:
            for _ in range(low_streams):
                sender, receiver = await way.open(*sessions, priority=1)
                nursery.start_soon(send, sender, 100 * MB)
                nursery.start_soon(drain, receiver)
            urgent, far = await way.open(*sessions, priority=2)
            await trio.sleep(0.1)
            waits = await waits_of(urgent, far, times=25, pause=0.00143)
            nursery.cancel_scope.cancel()
    assert max(waits) <= one_batch(kind, bandwidth) + latency
    assert max(waits) > 2 * latency  # there was something to wait for


@each_wire
async def test_a_high_priority_transfer_takes_all_of_the_link(
    kind: Kind, autojump_clock: MockClock
) -> None:
    bandwidth, size = 50 * MB, 50 * MB
    async with bulk(Link(bandwidth=bandwidth), kind) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, await client.open_stream(priority=1), 500 * MB)
            nursery.start_soon(drain, await server.accept_stream())
            await trio.sleep(0.2)
            start = trio.current_time()
            nursery.start_soon(send, await client.open_stream(priority=2), size)
            assert await drain(await server.accept_stream()) == size
            # Until its window has grown past a batch it leaves gaps, which the other may use.
            others = (trio.current_time() - start) * bandwidth - size
            assert others < 10 * BATCH
            nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("large_segments")
@each_wire
@each_way
async def test_a_transfer_that_runs_takes_all_of_the_link_once_its_priority_is_higher(
    kind: Kind, way: Way, autojump_clock: MockClock
) -> None:
    streams, bandwidth, period = 5, 10 * MB, 0.5
    received = [0] * streams

    async def read(number: int, stream: MuxadoStream) -> None:
        while chunk := await stream.receive_some():
            received[number] += len(chunk)

    async with bulk(Link(latency=0.001, bandwidth=bandwidth), kind) as sessions:
        async with trio.open_nursery() as nursery:
            senders: list[MuxadoStream] = []
            for number in range(streams):
                sender, receiver = await way.open(*sessions)
                senders.append(sender)
                nursery.start_soon(send, sender, 100 * MB)
                nursery.start_soon(read, number, receiver)
            await trio.sleep(period)
            senders[4].priority = 1
            await trio.sleep(0.1)  # what was on its way
            before = received.copy()
            await trio.sleep(period)
            shares = [now - then for now, then in zip(received, before, strict=True)]
            assert shares[4] > 0.95 * period * bandwidth
            senders[4].priority = 0
            await trio.sleep(0.1)
            before = received.copy()
            await trio.sleep(period)
            shares = [now - then for now, then in zip(received, before, strict=True)]
            assert shares == pytest.approx([period * bandwidth / streams] * streams, rel=0.1)
            nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("large_segments")
@pytest.mark.parametrize("kind", [Kind("v1", "v1"), Kind("v2", "v2", typed=True)], ids=str)
async def test_heartbeats_overtake_what_waits(kind: Kind, autojump_clock: MockClock) -> None:
    """On a link so slow that a batch takes longer than their patience, in both directions.

    What waits has the highest priority that can be chosen.
    """
    bandwidth = 100 * KB
    beats, link = Heartbeat(interval=1, tolerance=1), Link(bandwidth=bandwidth)
    async with bulk(link, kind, heartbeat=beats, send_timeout=3600) as sessions:
        async with trio.open_nursery() as nursery:
            for opener, acceptor in (sessions, reversed(sessions)):
                for _ in range(20):
                    nursery.start_soon(send, await opener.open_stream(priority=HIGHEST), 100 * MB)
                    nursery.start_soon(drain, await acceptor.accept_stream())
            await trio.sleep(5)
            for session in sessions:
                with trio.fail_after(2 * one_batch(kind, bandwidth)):
                    await session.ping()
            nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("large_segments")
@each_wire
async def test_a_full_stream_that_nobody_reads_costs_the_others_nothing(
    kind: Kind, autojump_clock: MockClock
) -> None:
    bandwidth = 10 * MB
    async with bulk(Link(latency=0.001, bandwidth=bandwidth), kind) as (client, server):
        stuck = await client.open_stream(priority=9)
        await fill(stuck)
        await server.accept_stream()
        await wait_all_tasks_blocked()
        start = trio.current_time()
        near = await client.open_stream()
        far = await server.accept_stream()
        await together(lambda: send(near, 20 * MB), lambda: drain(far))
        assert trio.current_time() - start < 1.05 * 20 * MB / bandwidth
        await stuck.reset()


# ---- credit that may wait


@pytest.mark.usefixtures("large_segments")
@each_wire
async def test_credit_that_nobody_waits_for_is_granted_once_in_a_while(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """Each grant is a frame, a write and a wake-up on both sides."""
    async with bulk(Link(latency=0.002, bandwidth=1000 * MB), kind) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, near, 200 * MB)
            received = 0
            while received < 100 * MB:
                received += len(await far.receive_some())
            before, start = server.statistics().frames_sent, trio.current_time()
            assert await drain(far) == 200 * MB - received
            grants = server.statistics().frames_sent - before
            assert grants <= (trio.current_time() - start) / CREDIT_PATIENCE + 2


@each_wire
async def test_a_peer_that_clamps_its_window_does_not_wait_for_long(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """All that such a peer may send has come, and half of the window that we know is not used."""
    async with raw_session(kind, receive_window=8 * kind.window) as (session, peer):
        peer.send(peer.syn(3), *(peer.data(3, bytes(8192)) for _ in range(kind.window // 8192)))
        stream = await session.accept_stream()
        await peer.frames()
        assert len(await read_exactly(stream, kind.window)) == kind.window
        assert await peer.frames() == []
        await trio.sleep(CREDIT_PATIENCE)
        (grant,) = await peer.frames()
        assert isinstance(grant, WndInc)
        assert grant.increment >= kind.window // 2
