"""One stream as the protocol sees it: its state, its windows, and what it has to send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from .byte_queue import ByteQueue
from .codec import TYPE_SIZE, Wire
from .errors import ErrorCode
from .guards import Quota
from .states import (
    ACCEPTED,
    OPEN,
    SEEN,
    STREAM_TRANSITIONS,
    UNHEARD,
    UNTYPED,
    Custody,
    PeerView,
    StreamInput,
    StreamState,
)
from .windows import MAX_WINDOW, ReceiveWindow


class BreakReason(NamedTuple):
    """Why a stream ended at once."""

    code: ErrorCode | int
    initiator: Literal["local", "remote"]
    message: str
    safe_to_retry: bool = False
    """The peer's application has not seen the stream: it is safe to try again."""
    ends_session: bool = False
    """The whole session ended."""


_ALLOWED_AT_FIRST = STREAM_TRANSITIONS[OPEN]


class Stream:
    """One stream of a connection.  All changes go through the connection."""

    # In the order in which __init__ has them, by who writes them.
    __slots__ = (  # noqa: RUF023
        "id",
        "local",
        "type",
        "priority",
        "used",
        "outgoing",
        "end_due",
        "open_due",
        "scheduled",
        "send_window",
        "type_bytes",
        "peer_view",
        "state",
        "allowed",
        "broken",
        "custody",
        "quota",
        "receive_window",
        "reserved",
    )

    def __init__(self, stream_id: int, wire: Wire, local: bool, quota: Quota | None = None) -> None:
        window = wire.initial_window
        if quota is not None:
            quota.used += 1
        # Written where it begins, by Connection.open_stream or Inbound:
        self.id: int = stream_id
        self.local: bool = local
        """We opened it."""
        self.type: int = 0
        self.priority: int = 0
        # By the calls of this side, in Connection:
        self.used: bool = False
        """The application of this side has acted on it, by more than accepting it."""
        self.outgoing: ByteQueue = ByteQueue()
        self.end_due: bool = False
        """FIN follows what is in ``outgoing``."""
        # By Outbox and Scheduler, which also take from what was queued:
        self.open_due: bool = False
        """The frame that opens it has not been collected yet (v2)."""
        self.scheduled: bool = False
        """It stands in the scheduler's queue."""
        self.send_window: int = window
        """Bytes that the peer allows us to send."""
        # By the frames of the peer, in Inbound:
        self.type_bytes: bytes = b""
        """What has come of the type while it is UNTYPED."""
        self.peer_view: PeerView = UNHEARD if local else SEEN
        # By both, in the steps of the tables, and what Streams counts it for:
        self.state: StreamState = OPEN
        self.allowed: Mapping[StreamInput, StreamState] = _ALLOWED_AT_FIRST
        """What can happen to it now: the row of its state in the table."""
        self.broken: BreakReason | None = None
        self.custody: Custody = ACCEPTED if local else UNTYPED
        self.quota: Quota | None = quota
        """Where it is counted until it leaves, if anywhere."""
        self.receive_window: ReceiveWindow = ReceiveWindow(window)
        self.reserved: int = window
        """Bytes of the session's budget that its receive window takes, or what of it is unread."""

    def __repr__(self) -> str:
        return f"<Stream {self.id} {self.state.name}>"

    def take_type(self, payload: bytes | memoryview) -> bytes | memoryview:
        """Take the type of a typed v2 stream off its first bytes; what is left of them."""
        missing = TYPE_SIZE - len(self.type_bytes)
        self.type_bytes += payload[:missing]
        self.receive_window.consume(len(payload[:missing]))
        if len(self.type_bytes) == TYPE_SIZE:
            self.type = int.from_bytes(self.type_bytes, "big")
        return payload[missing:]

    def step(self, what: StreamInput) -> None:
        """Follow the state table; KeyError where it has no cell."""
        self.state = self.allowed[what]
        self.allowed = STREAM_TRANSITIONS[self.state]

    def take_slot(self, quota: Quota) -> None:
        """Be counted in ``quota``, and nowhere else."""
        self.leave_slot()
        self.quota = quota
        quota.used += 1

    def leave_slot(self) -> None:
        """Be counted no more."""
        if self.quota is not None:
            self.quota.used -= 1
            self.quota = None

    def increase_send_window(self, increment: int) -> bool:
        """The peer allows more; False when the window would pass 2^31 - 1."""
        if increment > MAX_WINDOW - self.send_window:
            return False
        self.send_window += increment
        return True

    def is_returned_credit(self, increment: int, wire: Wire) -> bool:
        """Credit of the peer's is no more than has been sent, so its application has read it."""
        return increment <= wire.initial_window - self.send_window

    @property
    def can_send(self) -> bool:
        """A frame of it could go out now."""
        if self.outgoing.size:
            return self.send_window > 0 or self.open_due
        return self.open_due or self.end_due
