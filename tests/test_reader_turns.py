"""A turn of the frame reader handles few frames, whatever one connection sends."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio

from trio_muxado import MuxadoSession, MuxadoStream, server_session
from trio_muxado._protocol.decoder import FRAMES_AT_ONCE
from trio_muxado._transport.receiving import AT_ONCE, FRAMES_OF_BULK, READ_SIZE

from .helpers import Kind, RawPeer, Transport, each_wire, read_exactly, socket_pair

BOUND = FRAMES_AT_ONCE + (AT_ONCE - 1) * FRAMES_OF_BULK
"""Reads of bulk may follow each other at once, and the last of them may be a flood."""

STREAMS = range(3, 23, 2)


class FramesPerTurn(trio.abc.Instrument):
    """The most frames that a session has handled in one turn of a task."""

    def __init__(self, session: MuxadoSession) -> None:
        self.most = 0
        self._session = session
        self._before = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        now = self._session.statistics().frames_received
        self.most = max(self.most, now - self._before)
        self._before = now


def tiny_data(peer: RawPeer) -> bytes:
    return b"".join(peer.data(i, b"x") for i in STREAMS) * 300


def credit(peer: RawPeer) -> bytes:
    return peer.wndinc(3, 1) * 3000


def goaways(peer: RawPeer) -> bytes:
    return b"".join(peer.wire.goaway(2**31 - 1 - i, 0, b"") for i in range(3000))


def resets(peer: RawPeer) -> bytes:
    return peer.rst(9999, 7) * 3000


FLOODS = [tiny_data, credit, goaways, resets]


@each_wire
@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
@pytest.mark.parametrize("socket", [True, False])
async def test_a_flood_is_handled_in_turns(
    kind: Kind, flood: Callable[[RawPeer], bytes], socket: bool
) -> None:
    peer = RawPeer(kind)
    near, far = socket_pair()
    opening = b"".join(map(peer.syn, STREAMS))
    last = peer.data(STREAMS[-1], b"end")
    sent = flood(peer)
    config = kind.config(heartbeat=None, receive_window=1 << 20, receive_budget=1 << 30)

    async def read(stream: MuxadoStream) -> None:
        while await stream.receive_some() != b"end":
            pass

    async def send() -> None:
        await far.send_all(opening + sent)
        await far.send_all(last)

    async with (
        far,
        server_session(near if socket else Transport(near), config=config) as session,
        trio.open_nursery() as nursery,
    ):
        turns = FramesPerTurn(session)
        trio.lowlevel.add_instrument(turns)
        nursery.start_soon(send)
        streams = [await session.accept_stream() for _ in STREAMS]
        async with trio.open_nursery() as readers:
            for stream in streams[:-1]:
                readers.start_soon(read, stream)
            received = b""
            while not received.endswith(b"end"):
                received = received[-2:] + await streams[-1].receive_some()
            readers.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(turns)
        nursery.cancel_scope.cancel()
        total = session.statistics().frames_received
        await far.aclose()
    assert turns.most <= BOUND < total


@each_wire
@pytest.mark.parametrize("size", [1500, 5000])
async def test_reads_that_follow_at_once_are_a_turn_together(
    kind: Kind, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as they are bulk; in frames of 1,500 bytes four of them would be too many."""
    peer = RawPeer(kind)
    sent = bytearray().join(peer.data(i, bytes(size)) for _ in range(200) for i in STREAMS)
    readv = os.readv

    def read_much(fd: int, buffers: tuple[memoryview]) -> int:
        """As if the peer had sent all of it before."""
        if readv_is_real:
            return readv(fd, buffers)
        read = min(len(sent), READ_SIZE)
        buffers[0][:read] = sent[:read]
        del sent[:read]
        if not read:
            raise BlockingIOError
        return read

    readv_is_real = True
    monkeypatch.setattr(os, "readv", read_much)
    near, far = socket_pair()
    config = kind.config(heartbeat=None, receive_window=1 << 20, receive_budget=1 << 30)
    async with far, server_session(near, config=config) as session:
        await far.send_all(b"".join(map(peer.syn, STREAMS)))
        for _ in STREAMS:
            await session.accept_stream()
        turns = FramesPerTurn(session)
        trio.lowlevel.add_instrument(turns)
        readv_is_real = False
        await far.send_all(b"readable")
        while sent:
            await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(turns)
        await trio.aclose_forcefully(session)
    at_least = READ_SIZE // size
    assert at_least // 2 < turns.most <= BOUND
    if size > 4096:
        assert turns.most > at_least * (AT_ONCE - 1)


@each_wire
async def test_others_run_between_the_parts_of_a_read(kind: Kind) -> None:
    """A neighbour's byte is there before a read of the flood has been handled to its end."""
    peer = RawPeer(kind)
    near, far = socket_pair()
    neighbour_near, neighbour_far = socket_pair()
    config = kind.config(heartbeat=None)
    flood = peer.wndinc(3, 1) * 3000
    async with (
        far,
        neighbour_far,
        server_session(near, config=config) as session,
        server_session(neighbour_near, config=config) as neighbour,
    ):
        await far.send_all(peer.syn(3))
        await neighbour_far.send_all(peer.syn(3))
        await session.accept_stream()
        stream = await neighbour.accept_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.send_all, flood)
            while session.statistics().frames_received < FRAMES_AT_ONCE:
                await trio.lowlevel.checkpoint()
            await neighbour_far.send_all(peer.data(3, b"x"))
            assert await read_exactly(stream, 1) == b"x"
            assert session.statistics().frames_received < 3000
            nursery.cancel_scope.cancel()
        await far.aclose()
        await neighbour_far.aclose()
