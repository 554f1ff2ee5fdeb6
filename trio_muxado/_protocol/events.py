"""What happened: the answers of a connection to the bytes it was fed."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .codec import Wire
from .errors import ErrorCode
from .stream import Stream


class WireDetected(NamedTuple):
    """The first bytes showed which version the peer speaks."""

    wire: Wire


class StreamOpened(NamedTuple):
    """The peer opened a stream, and its type is known."""

    stream: Stream


class DataReceived(NamedTuple):
    """Bytes of a stream, within its window, or its end, or both: never nothing.

    Give the bytes back with ``Connection.consume`` once the application has taken them.
    """

    stream: Stream
    data: bytes
    ended: bool = False
    """The peer will send no more on this stream."""


class StreamBroken(NamedTuple):
    """The stream ended at once: ``stream.broken`` says why."""

    stream: Stream


class GoAwayReceived(NamedTuple):
    """The peer takes no more streams of ours; ``Connection.peer_debug`` may say why."""

    code: ErrorCode | int


class PeerEnded(NamedTuple):
    """Behind the peer's GOAWAY comes nothing that can be read: take it for the end."""


class SessionFailed(NamedTuple):
    """The peer broke the protocol.  GOAWAY is queued, nothing more will be read."""

    code: ErrorCode
    message: str


Event: TypeAlias = (
    WireDetected
    | StreamOpened
    | DataReceived
    | StreamBroken
    | GoAwayReceived
    | PeerEnded
    | SessionFailed
)
