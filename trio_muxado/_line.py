"""A line in memory that takes its time: what is between the two sides of a link."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio

from ._checks import checked_size
from ._protocol.checks import check_bytes

READ_SIZE = 64 * 1024
"""Bytes that ``receive_some()`` returns at most, and the largest segment; as trio's sockets."""

ENDLESS_LINE = 16 * 1024 * 1024
"""Bytes on a line of infinite bandwidth.  It has to end somewhere, or a task that sends until it
must wait would send forever at one moment of a mocked clock."""


class Line:
    """One direction of a link, driven by the tasks that send and receive.

    A line has a time of its own, which stands still while it is frozen: ``_lost`` is how far it
    is behind.  All moments kept here are in it.
    """

    def __init__(
        self,
        latency: float,
        bandwidth: float,
        buffer: int,
        segment: int,
        tap: Callable[[bytes], object] | None,
    ) -> None:
        self._latency = latency
        self._bandwidth = bandwidth
        self._segment = segment
        self._tap = tap
        self._segments: deque[tuple[float, bytes]] = deque()  # when each arrives; b"" is the end
        self._room = buffer
        self._free_at = -math.inf  # when all that was sent will have been put on the line
        self._frozen_at: float | None = None
        self._lost = 0.0
        self._ended: str | None = None  # how the sender has ended it
        self._reader_closed = False
        self._sender_knows_at = math.inf  # when the sender learns that nobody reads
        self._cut: tuple[BaseException | None] | None = None
        self._changed = trio.lowlevel.ParkingLot()

    # ---- time

    def _now(self) -> float:
        return (trio.current_time() if self._frozen_at is None else self._frozen_at) - self._lost

    def _is_due(self, moment: float) -> bool:
        # The same sum as in _wait: a difference in the last digit would make it spin.
        now = trio.current_time() if self._frozen_at is None else self._frozen_at
        return moment + self._lost <= now

    async def _wait(self, until: float) -> None:
        """Wait for a moment, or until something changes."""
        deadline = until + self._lost if self._frozen_at is None else math.inf
        with trio.move_on_at(deadline):
            await self._changed.park()

    def freeze(self) -> None:
        if self._frozen_at is None:
            self._frozen_at = trio.current_time()
            self._changed.unpark_all()

    def thaw(self) -> None:
        if self._frozen_at is not None:
            self._lost += trio.current_time() - self._frozen_at
            self._frozen_at = None
            self._changed.unpark_all()

    # ---- the sender's side

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        with memoryview(data) as view, view.cast("B") as octets:
            for start in range(0, len(octets), self._segment):
                await self._wait_to_send(needs_room=True)
                segment = bytes(octets[start : start + self._segment])
                self._room -= len(segment)
                self._free_at = max(self._free_at, self._now()) + len(segment) / self._bandwidth
                self._put(segment)
                if self._tap is not None:
                    self._tap(segment)
        await self._wait_to_send(needs_room=False)

    async def wait_until_free(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._wait_to_send(needs_room=True)

    async def _wait_to_send(self, *, needs_room: bool) -> None:
        while True:
            self._check_sender()
            held_up = self._frozen_at is not None or (needs_room and self._room <= 0)
            free_at = math.inf if held_up else self._free_at
            if self._is_due(free_at):
                return
            await self._wait(min(free_at, self._sender_knows_at))

    def _check_sender(self) -> None:
        if self._ended is not None:
            raise trio.ClosedResourceError(self._ended)
        self._check_cut()
        if self._is_due(self._sender_knows_at):
            raise trio.BrokenResourceError("the other side was closed")

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._ended == _CLOSED:
            raise trio.ClosedResourceError(_CLOSED)
        self._check_cut()
        self._end(_ENDED)

    def close_sender(self) -> None:
        self._end(_CLOSED)

    def _end(self, how: str) -> None:
        if self._ended is None:
            self._put(b"")
        self._ended = how
        self._changed.unpark_all()

    def inject(self, data: bytes) -> None:
        if self._ended is not None:
            raise trio.ClosedResourceError(f"nothing can follow: {self._ended}")
        self._check_cut()
        if data:
            self._room -= len(data)
            self._put(bytes(data))

    def _put(self, segment: bytes) -> None:
        arrival = max(self._free_at, self._now()) + self._latency
        self._segments.append((arrival, segment))
        if len(self._segments) == 1:
            self._changed.unpark_all()

    # ---- the reader's side

    async def receive(self, limit: int) -> bytes:
        if self._is_due(self._next_arrival()):
            await trio.lowlevel.checkpoint()
        while True:
            self._check_reader()
            arrival = self._next_arrival()
            if self._is_due(arrival):
                return self._take(limit)
            await self._wait(arrival)

    def _next_arrival(self) -> float:
        return self._segments[0][0] if self._segments else math.inf

    def _take(self, limit: int) -> bytes:
        """What has arrived, up to ``limit`` bytes."""
        segments = self._segments
        pieces: list[bytes] = []
        size = 0
        while size < limit and segments and self._is_due(segments[0][0]) and segments[0][1]:
            arrival, segment = segments.popleft()
            pieces.append(segment[: limit - size])
            size += len(pieces[-1])
            if len(pieces[-1]) < len(segment):
                segments.appendleft((arrival, segment[len(pieces[-1]) :]))
        if self._room <= 0 < size:
            self._changed.unpark_all()
        self._room += size
        return b"".join(pieces)

    def _check_reader(self) -> None:
        if self._reader_closed:
            raise trio.ClosedResourceError(_CLOSED)
        self._check_cut()

    def close_reader(self) -> None:
        """Nothing more is read, as the sender finds out when the news has reached it."""
        if not self._reader_closed:
            self._reader_closed = True
            self._sender_knows_at = self._now() + self._latency
            self._changed.unpark_all()

    # ---- both

    def cut(self, error: BaseException | None) -> None:
        if self._cut is None:
            self._cut = (error,)
            self._segments.clear()
            self._changed.unpark_all()

    def _check_cut(self) -> None:
        if self._cut is not None:
            raise trio.BrokenResourceError("the link was cut") from self._cut[0]


_CLOSED = "this side was closed"
_ENDED = "send_eof was called"


class LineEnd(trio.abc.HalfCloseableStream):
    """One end of a link: sends onto one line, receives from the other."""

    def __init__(self, *, outgoing: Line, incoming: Line) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._busy: set[str] = set()

    @contextmanager
    def _alone(self, doing: str) -> Generator[None, None, None]:
        if doing in self._busy:
            raise trio.BusyResourceError(f"another task is {doing} this side")
        self._busy.add(doing)
        try:
            yield
        finally:
            self._busy.remove(doing)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        check_bytes("data", data)
        with self._alone("sending on"):
            await self._outgoing.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        with self._alone("sending on"):
            await self._outgoing.wait_until_free()

    async def send_eof(self) -> None:
        with self._alone("sending on"):
            await self._outgoing.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        limit = READ_SIZE if max_bytes is None else checked_size("max_bytes", max_bytes)
        with self._alone("receiving from"):
            return await self._incoming.receive(limit)

    async def aclose(self) -> None:
        self._outgoing.close_sender()
        self._incoming.close_reader()
        await trio.lowlevel.checkpoint()
