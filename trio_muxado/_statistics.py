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

    Attributes:
      streams: live streams by state: ``open``, ``half_closed_local``, ``half_closed_remote``,
        ``closed_local`` (closed here, with something left to send) and ``closed`` (ended by both
        sides, with something left to send).  A state without streams is left out.
      waiting: streams of the peer that wait to be accepted.
      opened: streams that this side has opened.
      offered: streams of the peer that were not refused, including those that wait to be accepted.
      refused: streams of the peer that were refused, for lack of slots or of a handler.
      reset_by_us: resets that this side has sent, including the answers to late data.
      reset_by_peer: resets of the peer that ended a live stream.
      frames_sent: frames that were sent.
      frames_received: frames that were received.
      bytes_sent: bytes given to the transport, headers included.
      bytes_received: bytes that came from the transport.
      waited_for_window: seconds that senders waited for the peer's window: the sum over all
        streams, including those that still wait.
      waited_for_transport: seconds that the transport needed to accept data, including what it is
        accepting now.
      latency: seconds of the latest heartbeat's round trip; None before the first.
      receive_windows: bytes that may arrive on all live streams before any of them is read.
      largest_receive_window: the largest receive window of a live stream, in bytes.
    """

    streams: Mapping[str, int] = field(hash=False)
    waiting: int
    opened: int
    offered: int
    refused: int
    reset_by_us: int
    reset_by_peer: int
    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int
    waited_for_window: float
    waited_for_transport: float
    latency: float | None
    receive_windows: int
    largest_receive_window: int
