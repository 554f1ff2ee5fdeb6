"""A snapshot of what a session has done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


class StreamCounts(Counter[str]):
    """How many streams are in each state.

    ``dataclasses.asdict`` makes a new one of pairs, of which a Counter would count each.
    """

    def __init__(self, counts: Mapping[str, int] | Iterable[tuple[str, int]] = ()) -> None:
        super().__init__(dict(counts))


@dataclass(frozen=True)
class SessionStatistics:
    """What a session has done so far, and what it holds now.

    Counts include the heartbeat's streams and those of other extensions.  All of it is plain data:
    ``json.dumps(dataclasses.asdict(session.statistics()))`` works.
    """

    streams: Mapping[str, int] = field(hash=False)
    """Live streams by state: ``open``, ``half_closed_local``, ``half_closed_remote``,
    ``closed_local`` (closed here, with something left to send) and ``closed`` (ended by both sides,
    with something left to send).  A state without streams is left out."""
    waiting: int
    """Streams of the peer that wait to be accepted."""
    opened: int
    """Streams that this side has opened."""
    offered: int
    """Streams of the peer that were not refused, those that still wait to be accepted included."""
    refused: int
    """Streams of the peer that were refused, for lack of slots or of a handler."""
    reset_by_us: int
    """Resets that this side has sent, the answers to late data among them."""
    reset_by_peer: int
    """Resets of the peer that ended a live stream."""
    frames_sent: int
    frames_received: int
    bytes_sent: int
    """Bytes given to the transport, headers included."""
    bytes_received: int
    """Bytes that came from the transport."""
    waited_for_window: float
    """Seconds that senders waited for the peer's window, added up over all streams, with those that
    still wait."""
    waited_for_transport: float
    """Seconds that the transport needed to accept data, with what it is accepting now."""
    latency: float | None
    """Seconds of the latest heartbeat's round trip."""
    receive_windows: int
    """Bytes that may come on all live streams before any of it is read."""
    largest_receive_window: int
    """The largest of them."""
