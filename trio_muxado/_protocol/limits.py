"""Every bound that keeps a peer from using up this side, with its default and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import check_int, check_number, shown


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of one session.  Raise one if legitimate traffic reaches it."""

    max_inbound_streams: int = 256
    """Streams of the peer that may be open at once; further ones are refused, the session goes on.

    HTTP/2 recommends at least 100.  256 leaves room for peers that set no limit of their own.
    """

    max_outbound_streams: int | None = 100
    """Streams that this side may have open at once; ``open_stream`` waits for a slot.

    A stream that was closed before any reply counts until the peer reacts: it may still wait to be
    accepted.  Streams of extension types count as well, heartbeats do not.

    Go v1 peers stall with more than 100 that nobody has accepted, Go v2 peers refuse more than
    128.  None sets no bound.
    """

    max_extension_streams: int = 16
    """Streams of extension types that the peer may have open at once; further ones are refused.

    They and the application's streams count apart, so that neither can keep the other out.
    Heartbeats count in neither.  An extension that keeps its stream needs one slot; raise the
    number for an extension with a stream for each request.
    """

    accept_backlog: int = 128
    """Streams that may wait to be accepted; further ones are refused.  Go v2 has the same
    number."""

    unread_resets: int = 1000
    """Streams that the peer may open and reset unread in a burst (CVE-2023-44487)."""

    provoked_resets: int = 1024
    """Resets that the peer may make us send in a burst (CVE-2025-8671)."""

    resets_per_second: float = 33.0
    """How fast both allowances for resets come back."""

    waiting_control_frames: int = 1000
    """Answers that may be queued while the transport accepts nothing."""

    empty_frames: int = 100
    """DATA frames in a row that carry nothing and change nothing."""

    receive_window: int | None = None
    """Bytes that a new stream may receive before the application reads.

    None is the initial window of the protocol version: 64 KiB on v1, 256 KiB on v2.  A stream never
    gets less, since the peer relies on that, and gets more only as far as ``receive_budget`` has
    room.  The difference is granted when the stream arrives, and its opener can't distinguish that
    from an answer: if the stream is refused afterwards, it is not safe to retry.
    """

    max_receive_window: int = 16 * 1024 * 1024
    """Bytes that a stream's receive window may grow to (as libp2p's yamux)."""

    receive_budget: int = 64 * 1024 * 1024
    """Bytes of all receive windows of a session, together.

    A new stream gets its initial window even if nothing is left, because the peer relies on it.
    Windows grow only by what is left, and half of the budget is reserved for new streams.
    """

    send_buffer: int = 256 * 1024
    """Bytes of a stream that may still wait to be sent when ``send_all`` returns.

    The default is more than the frame writer's largest batch, so that one bulk stream fills each.
    """

    def __post_init__(self) -> None:
        for name in (
            "max_inbound_streams",
            "max_extension_streams",
            "accept_backlog",
            "unread_resets",
            "provoked_resets",
            "waiting_control_frames",
            "empty_frames",
            "receive_budget",
            "send_buffer",
        ):
            check_int(name, getattr(self, name), 1)
        if self.max_outbound_streams is not None:
            check_int("max_outbound_streams", self.max_outbound_streams, 1)
        if self.receive_window is not None:
            _check_window("receive_window", self.receive_window)
        _check_window("max_receive_window", self.max_receive_window)
        check_number("resets_per_second", self.resets_per_second)


def _check_window(name: str, size: int) -> None:
    check_int(name, size, 1)
    if size > 0x7FFFFFFF:
        raise ValueError(f"{name} is at most 2^31 - 1, not {shown(size)}")
