"""Keepalive: the heartbeat of the known peers, as the first extension.

The requester opens one stream of the heartbeat type and keeps it.  Every interval it writes
four bytes, and the other end sends them back.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ._errors import CloseReason, HeartbeatError, MuxadoError
from ._protocol.codec import MAX_PRIORITY
from ._protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ._session import MuxadoSession
    from ._stream import MuxadoStream

logger = logging.getLogger("trio_muxado")

BEAT_SIZE = 4
"""Bytes of a beat: a u32 of the requester's choice."""

MAX_UNANSWERED = 64
"""Beats that may wait for their echo, from a peer that talks but does not answer beats."""

READING_TURNS = 16
"""Turns of trio's loop in which the frame reader gets what has come.  Over a socket or TLS it needs
one, over a transport that passes it from task to task one or two for each of those."""


async def respond(stream: MuxadoStream) -> None:
    """Send every beat of the peer back; the handler of the heartbeat extension."""
    _overtake_all(stream)
    beat = b""
    while received := await stream.receive_some():
        beat += received
        whole = len(beat) - len(beat) % BEAT_SIZE
        if whole:
            await stream.send_all(beat[:whole])
            beat = beat[whole:]


def _overtake_all(stream: MuxadoStream) -> None:
    # A beat that waits behind bulk tells nothing, and users may choose the highest priority
    # that the wire carries.
    stream._engine.connection.put_above_all(stream._core)


class Keepalive:
    """The requester, and the watch over a peer's silence.

    A session is dead when *nothing at all* came from the peer for interval and tolerance: any
    byte is a sign of life, also one that nobody has read yet.  What the transport takes is none: it
    takes much for a peer that is gone.  While trio's loop stands still (a call that blocks, a
    machine that pauses) this end neither asks nor hears, so that is no silence of the peer's.
    """

    def __init__(self, session: MuxadoSession) -> None:
        self._session = session
        self._engine = session._engine
        self._stream: MuxadoStream | None = None
        self._wanted = trio.Event()
        self._known = trio.Event()  # whether this session has heartbeats
        self._why_none = "this session has no heartbeats (v2 has them only when typed)"
        self._beats = 0
        self._waiting: dict[bytes, _Beat] = {}
        self.latency: float | None = None
        """Seconds of the latest round trip."""

    async def run(self) -> None:
        """Beat as long as the session lives and the peer answers."""
        config = self._session.config
        try:
            await self._engine.wire_known.wait()
            wire = self._engine.connection.wire
            if wire is None or not (wire.has_syn_frame or config.typed):
                return
            if config.heartbeat is None:
                await self._wanted.wait()
            try:
                self._stream = self._session._open(wire.heartbeat_type, MAX_PRIORITY)
                _overtake_all(self._stream)
            except MuxadoError as error:
                self._why_none = f"heartbeats could not begin: {error}"
                return
        finally:
            self._known.set()
        async with trio.open_nursery() as nursery:
            if config.heartbeat is not None:
                interval, tolerance = config.heartbeat.interval, config.heartbeat.tolerance
                interval = wire.heartbeat_interval if interval is None else interval
                tolerance = wire.heartbeat_tolerance if tolerance is None else tolerance
                nursery.start_soon(self._watch, self._stream, interval, interval + tolerance)
            await self._read_echoes(self._stream)
            nursery.cancel_scope.cancel()

    async def ping(self) -> float:
        """One round trip on the heartbeat stream, in seconds."""
        self._wanted.set()
        await self._known.wait()
        if self._engine.reason is not None:
            raise self._engine.ended_error("ping")
        if self._stream is None:
            raise _no_heartbeats(self._why_none)
        beat = self._send_beat(self._stream)
        await beat.answered.wait()
        if beat.latency is not None:
            return beat.latency
        if self._engine.reason is not None:
            raise self._engine.ended_error("ping")
        raise _no_heartbeats(self._why_none)

    async def _watch(self, stream: MuxadoStream, interval: float, patience: float) -> None:
        engine = self._engine
        silent_since = engine.last_heard
        next_beat = trio.current_time() + interval
        while True:
            due = min(next_beat, silent_since + patience)
            await trio.sleep_until(due)
            now = trio.current_time()
            # As late as this the loop stood still: the beat that was due is still to be answered.
            silent_since = min(now, max(silent_since, engine.last_heard) + (now - due))
            if now >= silent_since + patience:
                for _ in range(READING_TURNS):
                    await trio.lowlevel.checkpoint()
                silent_since = max(silent_since, engine.last_heard)
            if now >= silent_since + patience:
                message = f"nothing came from the peer for {patience:g} s"
                engine.abort(CloseReason(ErrorCode.INTERNAL_ERROR, "transport", message))
                return
            if now >= next_beat:
                next_beat = now + interval
                # Also while an echo is due: where ours waits in a slow link, the peer hears us.
                if len(self._waiting) < MAX_UNANSWERED:
                    self._send_beat(stream)

    def _send_beat(self, stream: MuxadoStream) -> _Beat:
        # Go v1 wants its own four bytes back and nothing else; a number is as good as any.
        number = self._beats.to_bytes(BEAT_SIZE, "big")
        self._beats = (self._beats + 1) & 0xFFFFFFFF
        beat = self._waiting[number] = _Beat()
        if stream._core.broken is None:  # else it is told when reading echoes ends
            stream._queue(number)
        return beat

    async def _read_echoes(self, stream: MuxadoStream) -> None:
        self._why_none = "the peer has ended the heartbeat stream"
        try:
            echo = b""
            while received := await stream.receive_some():
                echo += received
                while len(echo) >= BEAT_SIZE:
                    number, echo = echo[:BEAT_SIZE], echo[BEAT_SIZE:]
                    beat = self._waiting.pop(number, None)
                    if beat is None:
                        self._why_none = "the peer sent a heartbeat back that was not sent"
                        logger.debug(self._why_none)
                        self._engine.reset_stream(stream._core, ErrorCode.PROTOCOL_ERROR)
                        return
                    self.latency = beat.answer()
        except MuxadoError as error:
            self._why_none = f"heartbeats have ended: {error}"
            # A peer that goes away need not take up what crosses its GOAWAY: that is no mishap.
            if self._engine.connection.can_open or not error.safe_to_retry:
                self._engine.tell_end(stream._core, "heartbeats end", error)
        finally:
            self._stream = None
            for beat in self._waiting.values():
                beat.answered.set()
            self._waiting.clear()


class _Beat:
    __slots__ = ("answered", "latency", "sent")

    def __init__(self) -> None:
        self.sent = trio.current_time()
        self.answered = trio.Event()
        self.latency: float | None = None

    def answer(self) -> float:
        self.latency = trio.current_time() - self.sent
        self.answered.set()
        return self.latency


def _no_heartbeats(message: str) -> HeartbeatError:
    return HeartbeatError(message, code=ErrorCode.NO_ERROR, initiator="remote")
