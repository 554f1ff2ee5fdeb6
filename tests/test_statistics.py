"""``session.statistics()`` counts what happened, and tells what is there."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_muxado import MuxadoConfig, SessionStatistics, client_session, server_session
from trio_muxado.testing import Link, open_session_pair

from .helpers import SEND_BUFFER, STEADY, Kind, each_wire, fill, read_exactly, stream_pair


@pytest.mark.parametrize("wire", ["v1", "v2"])
async def test_both_ends_count_the_same_things(wire) -> None:
    one, other = trio.testing.memory_stream_pair()
    async with (
        client_session(one, config=MuxadoConfig(wire=wire, heartbeat=None)) as client,
        server_session(other, config=MuxadoConfig(heartbeat=None, accept_backlog=2)) as server,
    ):
        streams = [await client.open_stream() for _ in range(3)]
        for stream in streams[:2]:
            await stream.send_all(b"12345")
        await trio.testing.wait_all_tasks_blocked()
        there = server.statistics()
        assert (there.offered, there.refused, there.reset_by_us, there.waiting) == (2, 1, 1, 2)
        assert there.streams == {"open": 2}

        accepted = await server.accept_stream()
        assert await accepted.receive_some() == b"12345"
        await accepted.send_eof()
        await streams[1].reset()
        await trio.testing.wait_all_tasks_blocked()
        here, there = client.statistics(), server.statistics()
        assert here.streams == {"half_closed_remote": 1}
        assert there.streams == {"half_closed_local": 1}
        assert (here.opened, here.reset_by_us, here.reset_by_peer) == (3, 1, 1)
        assert (there.waiting, there.reset_by_peer) == (1, 1)
        assert here.frames_sent == there.frames_received
        assert here.frames_received == there.frames_sent
        assert here.bytes_sent == there.bytes_received > 0
        assert here.bytes_received == there.bytes_sent > 0
        initial = {"v1": 65536, "v2": 262144}[wire]
        assert (there.receive_windows, there.largest_receive_window) == (initial, initial)
        assert here.latency is None
    over = client.statistics()
    assert over.streams == {}
    assert over.largest_receive_window == 0


async def test_the_latency_is_that_of_the_latest_heartbeat() -> None:
    one, other = trio.testing.memory_stream_pair()
    async with client_session(one) as client, server_session(other):
        seconds = await client.ping()
        assert client.statistics().latency == client.latency == seconds


class _Slow(trio.abc.SendStream):
    """Takes a second for whatever it is given."""

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self._stream = stream

    async def send_all(self, data) -> None:
        await trio.sleep(1)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def statistics_of_a_blocked_sender(slow: bool) -> SessionStatistics:
    one, other = trio.testing.memory_stream_pair()
    transport: trio.abc.Stream = one
    if slow:
        transport = trio.StapledStream(_Slow(one.send_stream), one.receive_stream)
    config = MuxadoConfig(heartbeat=None)
    async with (
        client_session(transport, config=config) as client,
        server_session(other, config=config) as server,
    ):
        stream = await client.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(65536 + config.send_buffer + 1))
            accepted = await server.accept_stream()
            await trio.sleep(10)
            while client.statistics().streams and stream._core.outgoing.size:
                await accepted.receive_some()
        return client.statistics()


@each_wire
async def test_only_the_time_of_a_send_that_waits_for_window_is_counted(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with stream_pair(kind, heartbeat=None, **STEADY) as (near, far):
        session = near.session

        async def send_for(seconds: float) -> None:
            with trio.move_on_after(seconds):
                await near.send_all(bytes(1_000_000))

        for before in (0, 10):  # the second begins when the window is used up already
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_for, 10)
                await trio.sleep(4)
                # It is counted while it still waits.
                assert session.statistics().waited_for_window == pytest.approx(before + 4)
            await trio.sleep(1000)
            assert session.statistics().waited_for_window == pytest.approx(before + 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_for, 1000)
            await trio.sleep(5)
            await read_exactly(far, 1_000_000 + SEND_BUFFER + kind.window)
        assert session.statistics().waited_for_window == pytest.approx(25)
        assert far.session.statistics().waited_for_window == 0


@each_wire
async def test_waiting_in_wait_send_all_might_not_block_counts_too(
    kind: Kind, autojump_clock: MockClock
) -> None:
    async with stream_pair(kind, heartbeat=None, **STEADY) as (near, _):
        await fill(near)
        with trio.move_on_after(10):
            await near.wait_send_all_might_not_block()
        await trio.sleep(1000)
        assert near.session.statistics().waited_for_window == pytest.approx(10)
        await near.reset()
        await trio.sleep(1000)
    assert near.session.statistics().waited_for_window == pytest.approx(10)


async def test_waiting_for_window_is_told_apart_from_waiting_for_the_transport(
    autojump_clock,
) -> None:
    by_window = await statistics_of_a_blocked_sender(slow=False)
    assert by_window.waited_for_window == pytest.approx(10)
    assert by_window.waited_for_transport == 0
    by_transport = await statistics_of_a_blocked_sender(slow=True)
    assert by_transport.waited_for_transport >= 2


@pytest.mark.parametrize("end", ["thaw", "cut", "give up"])
async def test_a_batch_that_the_transport_has_not_taken_yet_is_counted(
    end: str, autojump_clock: MockClock
) -> None:
    """Of all links it is the one that hangs that somebody wants to see."""
    link = Link(0.01, 1e6)
    config = MuxadoConfig(heartbeat=None, send_timeout=60)
    async with open_session_pair(config=config, link=link) as (session, _):
        stream = await session.open_stream()
        await trio.sleep(1)
        link.freeze()
        before = session.statistics().waited_for_transport
        await stream.send_all(b"x")
        for seconds in (10, 30):
            await trio.sleep_until(1 + seconds)
            waited = session.statistics().waited_for_transport - before
            assert waited == pytest.approx(seconds)
        if end == "thaw":
            link.thaw()
            await trio.sleep(1000)
        elif end == "cut":
            link.cut()
        else:
            await session.wait_closed()
            seconds = 60
        await trio.sleep(1000)
        waited = session.statistics().waited_for_transport - before
        assert waited == pytest.approx(seconds, abs=1e-3)
