"""The frame reader: the only task that receives from the transport.

It waits for the transport and for nothing else.  It feeds what came to the connection and carries
the events to where they belong, synchronously: data into a stream's memory channel, a new stream
into the backlog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import trio

from ._nursery import failure_of
from ._protocol.events import DataReceived
from ._protocol.states import OVER
from ._protocol.wire import DETECTION_SIZE
from ._transport.receiving import FRAMES_OF_BULK, source_of

if TYPE_CHECKING:
    from ._protocol.connection import Connection
    from ._protocol.events import Event
    from ._protocol.stream import Stream
    from ._trace import TransportTrace
    from ._writer import FrameWriter


FRAMES_OF_ONE = 2
"""Frames of a read that are taken for one stream's: the one that opens it, and its end."""


class Receiver(Protocol):
    """Who gets what comes on a stream.  Neither call waits."""

    def put(self, data: bytes, ended: bool) -> None:
        """Bytes came, or the peer's end, or both."""

    def break_off(self) -> None:
        """The stream broke."""


Receivers: TypeAlias = "dict[Stream, Receiver]"
"""The streams whose peer can still say something that somebody here hears, and who that is."""


class FrameReader:
    """Reads from a transport until it ends, or the session does.

    Args:
      handlers: what handles all other events than data, by class; called with ``owner()`` first,
        which the reader does not refer to: neither has to wait for the garbage collector.
      step_done: called after the events of a read: there may be something to send.
    """

    __slots__ = (
        "_connection",
        "_end_is_near",
        "_handlers",
        "_owner",
        "_receivers",
        "_shield",
        "_source",
        "_step_done",
        "_trace",
        "_writer",
        "alone",
        "bytes_received",
        "first_bytes",
        "last_heard",
        "stopped",
    )

    def __init__(
        self,
        transport: trio.abc.Stream,
        connection: Connection,
        receivers: Receivers,
        writer: FrameWriter,
        *,
        handlers: Mapping[type[Any], Callable[[Any, Any], None]],
        owner: Callable[[], object],
        step_done: Callable[[], None],
        trace: TransportTrace | None,
    ) -> None:
        self._source = source_of(transport)
        self._connection = connection
        self._receivers = receivers
        self._writer = writer
        self._handlers = handlers
        self._owner = owner
        self._step_done = step_done
        self._trace = trace
        self._shield: trio.CancelScope | None = None  # once it is needed
        self._end_is_near = False
        self.stopped: bool = False
        """The session is over: nothing is read any more."""
        self.alone: bool = False
        """What was read is for one stream, so that it makes one task run."""
        self.bytes_received: int = 0
        self.first_bytes: bytes = b""
        """The beginning of what came, to find out what the peer speaks."""
        self.last_heard: float = trio.current_time()
        """When the latest byte of the peer came."""

    async def run(self) -> Exception | None:
        """Read until the transport ends or the reader is stopped; the transport's error, if any.

        Raises :exc:`trio.Cancelled` where nothing is lost by it: then ``run_shielded`` goes on.
        """
        connection, writer, source = self._connection, self._writer, self._source
        counts = connection.counts
        if self._shield is None and not source.may_be_cancelled:
            return await self.run_shielded()
        others_can_wait = False
        while not self.stopped:
            try:
                waiting = source.wait(others_can_wait)
                if waiting is not None:
                    await waiting
                data = source.take()
            except BaseException as error:
                return failure_of(error)
            if data is None:
                continue
            if not data:
                break
            now = self.last_heard = trio.current_time()
            if self.bytes_received < DETECTION_SIZE:
                missing = DETECTION_SIZE - self.bytes_received
                self.first_bytes += bytes(data[:missing])
            self.bytes_received += len(data)
            if self._trace is not None:
                self._trace.saw("in", data)
            before, frames = connection.last_data_of, counts.frames_received
            happened = connection.receive_data(data, now)
            alone = counts.frames_received - frames <= FRAMES_OF_ONE
            self.alone = alone
            writer.alone = alone and writer.sends_now
            self.dispatch(happened)
            del data, happened  # the next may be long in coming
            self._step_done()
            while connection.has_more:
                await trio.lowlevel.cancel_shielded_checkpoint()
                self.dispatch(connection.receive_data(b"", now))
                self._step_done()
            # Whoever receives takes a piece in a pass of the loop: more for the same task would
            # only lie there, and for another one costs less without a pass in between.  Small
            # frames cost much for their bytes, so they always let others run.
            frames = counts.frames_received - frames
            others_can_wait = connection.last_data_of != before and frames <= FRAMES_OF_BULK
            if self._end_is_near:
                self._end_is_near = False
                others_can_wait = True
        return None

    async def run_shielded(self) -> Exception | None:
        """Go on while the user is cancelled, whose session ends later."""
        with trio.CancelScope(shield=True) as self._shield:
            return await self.run()
        return None  # it was stopped

    def expect_end(self) -> None:
        """The peer has said that it ends: its end mostly came with that, so read it at once."""
        self._end_is_near = True
        self._source.expect_more()

    def stop(self) -> None:
        """Read no more, and don't wait for what would come."""
        self.stopped = True
        if self._shield is not None:
            self._shield.cancel()
        else:
            self._source.stop()

    def dispatch(self, happened: Iterable[Event]) -> None:
        """Carry events of the connection to where they belong."""
        handlers, owner, receivers = self._handlers, self._owner, self._receivers
        for event in happened:
            if type(event) is not DataReceived:
                handlers[type(event)](owner(), event)
                continue
            stream, data, ended = event
            receiver = receivers.get(stream)
            if receiver is not None:
                receiver.put(data, ended)
                if ended and stream.state in OVER:  # this side has ended too: nothing can break it
                    receivers.pop(stream, None)
