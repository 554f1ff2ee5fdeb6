"""How much goes to the transport at a time, alone and on links of every speed.

Over `trio_muxado.testing.Link` on trio's mocked clock: what takes long there takes no time here.
"""

from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_muxado import ErrorCode, Heartbeat, MuxadoError, client_session, server_session
from trio_muxado._protocol.codec import HEADER_SIZE
from trio_muxado._protocol.frames import Data
from trio_muxado._protocol.wire import WIRES, Decoder
from trio_muxado._transport.sending import (
    FIRST,
    LARGEST,
    LARGEST_TLS,
    LONG,
    SHORT,
    SMALLEST,
    BatchSize,
)
from trio_muxado._transport.tls import RECORD
from trio_muxado.testing import Link, open_session_pair

from .helpers import (
    Kind,
    Recording,
    each_kind,
    each_wire,
    read_all,
    session_pair,
    together,
    waits_of,
    with_types,
)

# ---- the size alone


def after(*batches: tuple[int, float]) -> int:
    """The size of the next batch after those that took so many bytes in so many seconds."""
    size = BatchSize()
    for batch in batches:
        size.taken(*batch)
    return size.bytes


def test_a_full_batch_that_is_taken_at_once_doubles_the_next_up_to_the_largest() -> None:
    sizes = [after(*[(LARGEST, 0.0)] * number) for number in range(6)]
    assert sizes == [FIRST, 2 * FIRST, 4 * FIRST, LARGEST, LARGEST, LARGEST]


def test_tls_gets_smaller_ones_of_whole_records() -> None:
    size = BatchSize(LARGEST_TLS)
    for _ in range(5):
        size.taken(size.bytes, 0.0)
    assert size.bytes == LARGEST_TLS < LARGEST
    assert LARGEST_TLS % RECORD == 0


def test_a_batch_that_takes_long_halves_the_next_down_to_the_smallest() -> None:
    sizes = [after(*[(FIRST, 2 * LONG)] * number) for number in range(5)]
    assert sizes == [FIRST, FIRST // 2, FIRST // 4, SMALLEST, SMALLEST]


def test_a_batch_that_was_not_full_shows_nothing_by_being_taken_at_once() -> None:
    assert after((FIRST - 1, 0.0)) == FIRST


def test_a_small_batch_that_takes_long_shows_a_slow_link() -> None:
    assert after((1, 2 * LONG)) == FIRST // 2


@pytest.mark.parametrize("seconds", [SHORT, LONG])
def test_between_short_and_long_the_size_stays(seconds: float) -> None:
    assert after((FIRST, seconds)) == FIRST


@pytest.mark.parametrize("bandwidth", [10**power for power in range(3, 10)])
def test_a_steady_link_finds_one_size_and_keeps_it(bandwidth: int) -> None:
    size = BatchSize()
    sizes = []
    for _ in range(20):
        size.taken(size.bytes, size.bytes / bandwidth)
        sizes.append(size.bytes)
    assert len(set(sizes[6:])) == 1


# ---- slow links


def slow(kind: Kind, bandwidth: float, **choices: Any) -> Any:
    """Sessions over a link of so many bytes a second."""
    choices.setdefault("heartbeat", None)
    return open_session_pair(config=kind.config(**choices), link=Link(0.05, bandwidth))


@each_kind
async def test_closing_on_a_slow_link_loses_nothing(kind: Kind, autojump_clock: MockClock) -> None:
    """All of it is accepted at once, and goes out for 8 s after the session was left."""
    size = 300_000
    link = Link(0.05, 40_000)
    received: list[int] = []

    async def serve() -> None:
        async with server_session(link.server, config=kind.config()) as session:
            received.append(len(await read_all(await session.accept_stream())))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with client_session(link.client, config=kind.config(send_buffer=size)) as session:
            async with await session.open_stream() as stream:
                await stream.send_all(bytes(size))
                assert trio.current_time() == 0
        assert (await session.wait_closed()).initiator == "local"
        assert trio.current_time() > session.config.close_timeout
    assert received == [size]


@each_wire
async def test_a_link_that_gets_on_slowly_is_not_taken_for_dead(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """The largest batch would take longer than ``send_timeout``."""
    size, bandwidth = 1_000_000, 2_500
    async with slow(kind, bandwidth) as (client, server):
        assert LARGEST_TLS / bandwidth > client.config.send_timeout
        near = await client.open_stream()
        far = await server.accept_stream()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await near.send_all(bytes(size))
                await near.send_eof()

            nursery.start_soon(send)
            assert len(await read_all(far)) == size
        assert trio.current_time() > size / bandwidth


@pytest.mark.parametrize("frozen_after", [0, 1, 100])
@each_wire
async def test_a_link_that_takes_nothing_any_more_is_given_up_in_time(
    kind: Kind, frozen_after: float, autojump_clock: MockClock
) -> None:
    """However small its batches have become."""
    link = Link(0.05, 3_000)
    config = kind.config(heartbeat=None, send_timeout=20)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            async with server_session(link.server, config=config) as session:
                await read_all(await session.accept_stream())

        nursery.start_soon(serve)
        async with client_session(link.client, config=config) as session:
            stream = await session.open_stream()
            with trio.move_on_after(frozen_after):
                await stream.send_all(bytes(1_000_000))
            link.freeze()
            frozen_at = trio.current_time()
            reason = await session.wait_closed()
            assert reason.code is ErrorCode.WRITE_TIMEOUT
            assert trio.current_time() - frozen_at <= config.send_timeout
        nursery.cancel_scope.cancel()


@with_types
async def test_a_busy_session_lives_on_a_slow_link_by_the_echoes_of_its_beats(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """5 of `test_failures.py`: the peer has nothing to say but those.

    Credit comes twice in a window, which is longer than the heartbeat's patience.
    """
    bandwidth = 3_000
    async with open_session_pair(
        config=kind.config(heartbeat=Heartbeat(interval=3, tolerance=4)),
        server_config=kind.config(heartbeat=None),
        link=Link(0.05, bandwidth),
    ) as (client, server):
        assert kind.window / 2 / bandwidth > 3 + 4
        near = await client.open_stream()
        far = await server.accept_stream()
        for _ in range(3):  # by which the link is known
            await near.send_all(bytes(1000))
            await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, bytes(1_000_000))
            nursery.start_soon(read_all, far)
            with trio.move_on_after(300):
                await client.wait_closed()
            assert client.close_reason is None
            assert server.statistics().bytes_received > 250 * bandwidth
            nursery.cancel_scope.cancel()


FLOOR = {"v1": 3_000, "v2-typed": 1_500}
"""Bytes per second from which a busy session needs no beats of the peer: see the guide."""


@pytest.mark.parametrize("peer_beats", [False, True])
@with_types
async def test_a_session_that_is_busy_from_the_start_lives_down_to_the_floor_of_the_guide(
    kind: Kind, peer_beats: bool, autojump_clock: MockClock
) -> None:
    """Nothing is known of the link, so the first batch is large: only beats make up for it."""
    bandwidth = 1_000 if peer_beats else FLOOR[kind.name]
    async with open_session_pair(
        config=kind.config(),
        server_config=kind.config(heartbeat=Heartbeat() if peer_beats else None),
        link=Link(0.05, bandwidth),
    ) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, bytes(1_000_000))
            nursery.start_soon(read_all, far)
            with trio.move_on_after(300):
                await client.wait_closed()
            assert client.close_reason is None
            nursery.cancel_scope.cancel()


@with_types
async def test_a_peer_that_is_gone_is_noticed_while_a_batch_is_stuck(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """Beats that cannot go out earn it no patience: this takes 7 seconds, not a send_timeout."""
    link = Link(0.05, 100_000)
    config = kind.config(heartbeat=Heartbeat(interval=3, tolerance=4))
    async with open_session_pair(config=config, link=link) as (client, server):
        near = await client.open_stream()
        far = await server.accept_stream()

        async def send() -> None:
            with suppress(MuxadoError):
                await near.send_all(bytes(10_000_000))

        async def read() -> None:
            with suppress(MuxadoError):
                await read_all(far)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(read)
            await trio.sleep(20)
            link.freeze()
            frozen_at = trio.current_time()
            reason = await client.wait_closed()
            assert "nothing came" in reason.message
            assert trio.current_time() - frozen_at <= 7


@each_wire
async def test_what_is_urgent_waits_for_a_small_batch_on_a_slow_link(
    kind: Kind, autojump_clock: MockClock
) -> None:
    bandwidth = 40_000
    async with slow(kind, bandwidth) as (client, server):
        bulk = await client.open_stream(priority=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bulk.send_all, bytes(10_000_000))
            nursery.start_soon(read_all, await server.accept_stream())
            urgent = await client.open_stream(priority=2)
            far = await server.accept_stream()
            await trio.sleep(5)
            waits = await waits_of(urgent, far, times=30, pause=0.0171)
            nursery.cancel_scope.cancel()
    one_batch = SMALLEST / bandwidth
    assert one_batch < max(waits) < 2 * one_batch + 0.1  # its own frame, and the way


# ---- fast ones


async def batches_of_bulk(kind: Kind) -> list[bytes]:
    """What goes out for one stream that always has something to send and may."""
    near, far = memory_stream_pair()
    recording = Recording(near)
    large = 10 * LARGEST_TLS
    choices: dict[str, Any] = {"heartbeat": None, "receive_window": large, "send_buffer": large}
    async with session_pair(kind, transports=(recording, far), **choices) as (client, server):
        stream = await client.open_stream()
        inbound = await server.accept_stream()
        await wait_all_tasks_blocked()  # the promise of the larger window has come
        await stream.send_all(bytes(8 * LARGEST_TLS))
        await together(stream.aclose, lambda: read_all(inbound))
    return recording.sent


def nearly(size: int) -> int:
    """Bytes of a batch of so many, where a frame more would have a byte less than it must."""
    return size - HEADER_SIZE


@each_wire
async def test_a_fast_transport_gets_the_largest_batches_of_the_largest_frames(kind: Kind) -> None:
    """A turn is as many frames as it takes, and the last is as long as there is room."""
    wire = WIRES[kind.wire]
    full = [batch for batch in await batches_of_bulk(kind) if len(batch) >= nearly(LARGEST_TLS)]
    assert len(full) >= 6
    for batch in full:
        assert len(batch) <= LARGEST_TLS  # more would not fit into its records
        frames = Decoder(wire, lambda stream_id, opening: True).feed(batch)
        lengths = [frame.length for frame in frames if isinstance(frame, Data)]
        whole = [length for length in lengths if length == wire.max_payload]
        assert len(lengths) <= -(-LARGEST_TLS // (HEADER_SIZE + wire.max_payload)) + 1
        assert len(whole) >= len(lengths) - 2


@each_wire
async def test_a_busy_program_is_not_taken_for_a_slow_link(
    kind: Kind, mock_clock: MockClock
) -> None:
    """Each turn of its loop takes longer than a batch may, and the transport takes all at once."""

    class Busy(trio.abc.Instrument):
        def after_io_wait(self, timeout: float) -> None:
            mock_clock.jump(5 * LONG)

    busy = Busy()
    trio.lowlevel.add_instrument(busy)
    try:
        assert max(map(len, await batches_of_bulk(kind))) >= nearly(LARGEST_TLS)
    finally:
        trio.lowlevel.remove_instrument(busy)
