"""Playing a vector to an echo peer, over a connection to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from .frames import HEARTBEAT_TYPE, FrameReader, data, opening
from .judge import Judge
from .vectors import Frame, Vector

READ_SIZE = 64 * 1024
"""Bytes of one read of the transport."""

_PROBES = {"server": (2001, 2003), "client": (2000, 2002)}
"""Ids of the streams that show that a session goes on, above all those of the vectors.  There are
two, since an answer to what was sent before the first may be written by another thread."""

_PROBE = b"probe"


@dataclass(frozen=True)
class Result:
    """What an endpoint did with a vector."""

    vector: Vector
    difference: str | None
    """Where it is not what the specification says; None where it is."""
    malformed: str | None
    """What is wrong with the frames themselves.  A peer that writes one wrongly does so in every
    vector, so this is no difference of the vector."""


async def play(vector: Vector, stream: trio.abc.Stream, *, timeout: float = 2.0) -> Result:
    """Play a vector to an echo peer over a new connection, which is closed in the end.

    Args:
      vector: one of ``echo_vectors``.
      stream: the transport, on which nothing has been sent or received.
      timeout: seconds to wait for an answer that is due.  A peer that answers costs less.

    A connection that breaks is an answer as any other, and never raises.
    """
    player = _Player(vector, stream, timeout)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(player.read)
            difference = await player.run()
            if player.going_away:
                await player.until_ended()
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
    return Result(vector, difference, player.malformed)


class _Player:
    def __init__(self, vector: Vector, stream: trio.abc.Stream, timeout: float) -> None:
        self._vector = vector
        self._stream = stream
        self._timeout = timeout
        self._judge = Judge(vector, from_outside=True)
        self._reader = FrameReader(vector.version)
        self._came = trio.Event()  # replaced whenever something has
        self._ended = False
        self._sending = trio.Lock()  # the echo of a heartbeat may be due at any time
        self._heartbeat: int | None = None  # the stream on which the peer sends its own
        self._probe_echoes: dict[int, bytes] = {}
        self._probes_ended: set[int] = set()

    @property
    def malformed(self) -> str | None:
        return self._reader.goaway_fault()

    @property
    def going_away(self) -> bool:
        return self._reader.goaway is not None

    # ---- the transport

    async def read(self) -> None:
        """Take what the peer sends until it ends."""
        try:
            while received := await self._stream.receive_some(READ_SIZE):
                for frame in self._reader.feed(bytes(received)):
                    await self._take(frame)
                self._wake()
        except trio.BrokenResourceError:
            pass
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._came.set()
        self._came = trio.Event()

    async def _send(self, payload: bytes) -> None:
        # A transport that takes nothing or is broken shows in what comes, or doesn't.
        with trio.move_on_after(self._timeout), contextlib.suppress(trio.BrokenResourceError):
            async with self._sending:
                await self._stream.send_all(payload)

    async def _take(self, frame: Frame) -> None:
        stream_id = frame.get("stream_id", 0)
        if self._begins_heartbeats(frame):
            self._heartbeat = stream_id
        if stream_id and stream_id == self._heartbeat:
            if frame["frame"] == "DATA" and (heartbeat := self._without_type(frame)):
                await self._send(data(self._vector.version, stream_id, heartbeat))
        elif stream_id in _PROBES[self._vector.role] and frame["frame"] != "RST":
            self._take_probe(frame)
        else:
            self._judge.receive(frame)

    def _take_probe(self, frame: Frame) -> None:
        if frame["frame"] == "DATA":
            stream_id = frame["stream_id"]
            self._probe_echoes[stream_id] = (
                self._probe_echoes.get(stream_id, b"") + frame["payload"]
            )
            if frame["fin"]:
                self._probes_ended.add(stream_id)

    def _begins_heartbeats(self, frame: Frame) -> bool:
        """The peer may have heartbeats that can't be switched off."""
        kind = HEARTBEAT_TYPE[self._vector.version]
        if frame["frame"] == "SYN":
            return bool(frame["type"] == kind)
        typed = self._vector.typed and frame["frame"] == "DATA" and frame["syn"]
        return typed and frame["payload"][:4] == kind.to_bytes(4, "big")

    def _without_type(self, frame: Frame) -> bytes:
        payload: bytes = frame["payload"]
        return payload[4:] if frame.get("syn") else payload

    def _probe_done(self, stream_id: int) -> bool:
        return stream_id in self._probes_ended or not self._judge.possible

    async def _until(self, condition: Callable[[], Any]) -> bool:
        """Wait until something holds; False if it doesn't in time."""
        with trio.move_on_after(self._timeout):
            while not condition():
                if self._ended:
                    return False
                await self._came.wait()
        return bool(condition())

    async def until_ended(self) -> bool:
        """Wait for the end of the transport; False if it doesn't come in time."""
        return await self._until(lambda: self._ended)

    # ---- the vector

    async def run(self) -> str | None:
        """Play all steps; what is different."""
        judge = self._judge
        for step in self._vector.steps:
            judge.step(step)
            if step.eof:
                return await self._end()
            if step.sent:
                await self._send(step.sent)
            # An answer that may also be missing is not waited for here: it may come later.
            await self._until(lambda: judge.fits or not judge.possible)
            if not judge.fits:
                return self._why(judge.difference())
            if judge.over:
                return await self._over()
        return await self._goes_on()

    def _why(self, difference: str) -> str:
        return f"{difference}; the transport has ended" if self._ended else difference

    async def _over(self) -> str | None:
        """The session is over: the transport has to end."""
        if not await self.until_ended():
            return "the transport stays open"
        return next(self._judge.echo_differences(session_over=True), None)

    async def _end(self) -> str | None:
        """The transport ends: nothing may be told to have ended well that has not."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            with contextlib.suppress(trio.BrokenResourceError):
                await self._stream.send_eof()
        await self.until_ended()
        return next(self._judge.echo_differences(session_over=True), None)

    async def _goes_on(self) -> str | None:
        """The session goes on: streams that open now are answered, and nothing else comes."""
        judge, version = self._judge, self._vector.version
        kind = bytes(4) if self._vector.typed else b""
        for stream_id in _PROBES[self._vector.role]:
            probe = opening(version, stream_id, kind + _PROBE)
            await self._send(probe + data(version, stream_id, fin=True))
            done = await self._until(partial(self._probe_done, stream_id))
            if not judge.possible:
                return self._why(judge.difference())
            if judge.over:
                return await self._over()
            if not done or self._probe_echoes.get(stream_id) != _PROBE:
                return self._why("a stream that opens afterwards is not answered")
        await self._until(lambda: judge.echoes_fit() or not judge.possible)
        if not judge.fits:
            return self._why(judge.difference())
        return next(judge.echo_differences(session_over=False), None)
