"""Streams without window, and peers that have closed them without a word, as Go v2 does."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_muxado import StreamResetError
from trio_muxado._protocol.errors import ErrorCode
from trio_muxado._protocol.frames import Data, Frame

from .helpers import V1, V2, Kind, RawPeer, each_kind, raw_session

WINDOW = {"v1": 65_536, "v2": 262_144}


def probes(frames: list[Frame]) -> int:
    """Empty DATA frames without an end or a beginning."""
    return sum(
        isinstance(frame, Data) and not (frame.length or frame.syn or frame.fin) for frame in frames
    )


async def probes_within(peer: RawPeer, seconds: float) -> int:
    await trio.sleep(seconds)
    return probes(await peer.frames())


@each_kind
async def test_a_sender_is_told_although_the_peer_closed_after_it_was_asked(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """The model found it: it was asked once, and its peer could close a moment later."""
    async with raw_session(kind, client=True) as (session, peer):
        stream = await session.open_stream()

        async def send() -> None:
            with pytest.raises(StreamResetError):
                await stream.send_all(bytes(2 * WINDOW[kind.wire] + 300_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await peer.frames()
            assert await probes_within(peer, 9) == 0
            assert await probes_within(peer, 2) == 1  # the peer has the stream, and closes it now
            assert await probes_within(peer, 8) == 0
            assert await probes_within(peer, 2) == 1
            peer.send(peer.rst(3, ErrorCode.STREAM_CLOSED))
        await stream.aclose()


@pytest.mark.parametrize("kind", [V1, V2], ids=str)
async def test_a_closed_stream_without_window_gives_its_slot_back(
    kind: Kind, autojump_clock: MockClock
) -> None:
    """Nobody waits to send on it any more, so nobody asked for it."""
    async with raw_session(kind, client=True, max_outbound_streams=1) as (session, peer):
        stream = await session.open_stream()
        await stream.send_all(bytes(WINDOW[kind.wire] + 10))
        await stream.aclose()
        await peer.frames()
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                assert await probes_within(peer, 11) == 1
                peer.send(peer.rst(3, ErrorCode.STREAM_CLOSED))

            nursery.start_soon(answer)
            with trio.fail_after(60):
                await (await session.open_stream()).aclose()
