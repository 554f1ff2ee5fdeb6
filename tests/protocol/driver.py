"""Drives one connection by hand: frames of its peer in, events and frames out."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterable
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, TypeVar

from trio_muxado._protocol import events
from trio_muxado._protocol.codec import Wire
from trio_muxado._protocol.connection import Connection
from trio_muxado._protocol.decoder import Decoder
from trio_muxado._protocol.frames import Data, DataRest, DataRun, Frame
from trio_muxado._protocol.limits import Limits
from trio_muxado._protocol.stream import BreakReason, Stream
from trio_muxado._protocol.wire import V1, V2

from ..frames import PeerFrames

__all__ = [
    "BOTH",
    "V1",
    "V2",
    "End",
    "by_stream",
    "failed",
    "ids",
    "join",
    "only",
    "opened",
    "pipe",
    "receive",
    "reset_of",
    "spread",
    "weight",
]

BOTH = (V1, V2)

T = TypeVar("T")


class End(PeerFrames):
    """A connection, the peer's frames for it, and an ear for what it sends.

    It is a server unless it is told otherwise, so the peer's streams are 3, 5, 7 ...
    """

    def __init__(
        self,
        wire: Wire,
        *,
        client: bool = False,
        typed: bool = False,
        extensions: Iterable[int] = (),
        **limits: Any,
    ) -> None:
        self.wire = wire
        self.core = Connection(
            client=client,
            wire=wire,
            limits=Limits(**limits),
            typed=typed,
            extensions=tuple(extensions),
        )
        self.now = 1000.0
        self._ear = Decoder(wire, lambda stream_id, opening: True)
        self._reads = 0

    # ---- what the peer sends

    def feed(self, *pieces: bytes) -> list[events.Event]:
        """The events of these pieces, each of which is one read of the transport.

        Every other read is in a buffer that is used again, as on a socket.
        """
        told: list[events.Event] = []
        for piece in pieces:
            self._reads += 1
            if self._reads % 2:
                told += receive(self.core, piece, self.now)
            else:
                told += receive(self.core, bytearray(piece), self.now)
        return told

    # ---- what its application does

    def accept(self, stream_id: int, payload: bytes = b"", *, fin: bool = False) -> Stream:
        """The peer opens a stream, and the application accepts it."""
        opened = only(self.feed(self.syn(stream_id)))
        assert isinstance(opened, events.StreamOpened)
        stream = opened.stream
        if payload or fin:
            self.feed(self.data(stream_id, payload, fin=fin))
        self.core.accept(stream)
        return stream

    def open(self, **choices: int) -> Stream:
        """A stream of this end whose opening frame has been sent."""
        stream = self.core.open_stream(**choices)
        self.bytes_sent()
        return stream

    # ---- what it sends

    def bytes_sent(self, size: int = 1 << 30) -> bytes:
        """The next batch, as the bytes it becomes; credit that may wait is asked for, too."""
        if not (self.core.wants_to_send or self.core.credit_waits):
            return b""
        batch, _ = self.core.data_to_send(size)
        assert batch, "it wants to send and does not"
        return b"".join(batch)

    def sent(self, size: int = 1 << 30) -> list[Frame]:
        """The next batch, as frames."""
        return join(self._ear.feed(self.bytes_sent(size)))


def receive(
    core: Connection, data: bytes | bytearray, now: float, *, turns: int = sys.maxsize
) -> list[events.Event]:
    """All events of a read, ``turns`` of the reader at most; a buffer is used again at once."""
    told = core.receive_data(data if isinstance(data, bytes) else memoryview(data), now)
    if isinstance(data, bytearray):
        data[:] = b"\xaa" * len(data)
    while core.has_more and turns > 1:
        turns -= 1
        told += core.receive_data(b"", now)
    return told


def join(frames: Iterable[Frame]) -> list[Frame]:
    """Frames with their payload in one piece."""
    joined: list[Frame] = []
    for frame in frames:
        if isinstance(frame, DataRest):
            last = joined[-1]
            assert isinstance(last, Data)
            joined[-1] = last._replace(payload=b"".join((last.payload, frame.payload)))
        elif isinstance(frame, Data):
            joined.append(frame._replace(payload=bytes(frame.payload)))
        else:
            joined.append(frame)
    return joined


def spread(frames: list[Frame]) -> list[Frame]:
    """Frames one by one, also those of a run, with their payloads in one piece."""
    spread: list[Frame] = []
    for frame in frames:
        if isinstance(frame, DataRun):
            whole = [Data(frame.stream_id, frame.length, p, False, False) for p in frame.payloads]
            assert all(len(payload) == frame.length for payload in frame.payloads)
            spread += whole
        else:
            spread.append(frame)
    return join(spread)


def only(things: Iterable[T]) -> T:
    """The one thing that is there."""
    (thing,) = things
    return thing


def ids(count: int, first: int = 3) -> Iterable[int]:
    """Ids of one end, in the order in which it uses them."""
    return range(first, first + 2 * count, 2)


def opened(told: Iterable[events.Event]) -> list[Stream]:
    """The streams that were shown."""
    return [event.stream for event in told if isinstance(event, events.StreamOpened)]


def failed(told: Iterable[events.Event]) -> bool:
    """Whether the session failed."""
    return any(isinstance(event, events.SessionFailed) for event in told)


def reset_of(event: events.Event) -> BreakReason:
    """Why a stream broke, of which the event tells."""
    assert isinstance(event, events.StreamBroken)
    assert event.stream.broken is not None
    return event.stream.broken


def by_stream(events_told: Iterable[events.Event]) -> dict[object, list[object]]:
    """What is told, stream by stream, with data in one piece and its end behind it."""
    stories: dict[tuple[int, int], list[object]] = {}
    for event in list(events_told):  # which keeps every stream, and with it its identity
        stream = getattr(event, "stream", None)
        story = stories.setdefault((stream.id, id(stream)) if stream else (0, 0), [])
        if isinstance(event, events.DataReceived):
            if story and isinstance(story[-1], bytes):
                story[-1] += event.data
            elif event.data:
                story.append(event.data)
            if event.ended:
                story.append("end")
        elif isinstance(event, events.StreamBroken):
            story.append(event.stream.broken)
        elif stream is None:
            story.append(event)
        else:
            story.append(type(event))
    # Streams of one id one after the other (v2) are told apart by their order.
    numbers: Counter[int] = Counter()
    told: dict[object, list[object]] = {}
    for (stream_id, _), story in stories.items():
        numbers[stream_id] += 1
        told[stream_id, numbers[stream_id]] = story
    return told


def pipe(sender: End, receiver: End) -> list[events.Event]:
    """Everything that one end sends, fed to the other."""
    return receiver.feed(sender.bytes_sent())


_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, Enum, Wire, Limits)


def weight(root: object) -> int:
    """Bytes of everything that is reachable from ``root`` and not shared by all sessions."""
    seen: set[int] = set()
    waiting = [root]
    total = 0
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _SHARED):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        if isinstance(thing, memoryview):
            total += thing.obj.__sizeof__()
        waiting.extend(gc.get_referents(thing))
    return total
