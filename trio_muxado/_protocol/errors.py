"""Error codes of both protocol versions, and the two errors that leave the protocol."""

from __future__ import annotations

import enum


class ErrorCode(enum.Enum):
    """Why a stream was reset or a session ended.

    The names are those of muxado v2, which knows all that v1 knows and more; the values are
    v2's numbers on the wire.  Each wire translates to and from its own numbers.  A number
    that a version does not define stays a plain :class:`int` wherever a code is shown.
    """

    NO_ERROR = 0
    """An orderly end."""
    PROTOCOL_ERROR = 1
    """The other end broke the protocol."""
    INTERNAL_ERROR = 2
    """The end that sends it failed by itself."""
    FLOW_CONTROL_ERROR = 3
    """More data than the window allowed, or a window past 2^31 - 1."""
    STREAM_CLOSED = 4
    """Data for a stream that is gone."""
    STREAM_REFUSED = 5
    """The stream was not taken; v1 calls it REFUSED_STREAM."""
    STREAM_CANCELLED = 6
    """The stream is not wanted any more; v1 calls it CANCEL."""
    STREAM_RESET = 7
    """The stream was reset (v2 only)."""
    FRAME_SIZE_ERROR = 8
    """A frame's length does not fit its type."""
    ACCEPT_QUEUE_FULL = 9
    """Too many streams wait to be accepted (v2 only)."""
    ENHANCE_YOUR_CALM = 10
    """The other end floods (v2 only; v1 gets PROTOCOL_ERROR)."""
    REMOTE_GONE_AWAY = 11
    """No new stream: the other side has sent GOAWAY (v2 only)."""
    STREAMS_EXHAUSTED = 12
    """No stream ids are left (v2 only)."""
    WRITE_TIMEOUT = 13
    """The transport took nothing for too long (v2 only)."""
    SESSION_CLOSED = 14
    """The session was closed (v2 only)."""
    PEER_EOF = 15
    """The transport ended without a GOAWAY (v2 only)."""


def check_code(code: ErrorCode | int) -> None:
    """Raise ValueError for a plain number that no wire can carry."""
    if not isinstance(code, ErrorCode) and not 0 <= code <= 0xFFFFFFFF:
        raise ValueError(f"an error code is an unsigned 32-bit number, not {code!r}")


class ProtocolViolation(Exception):
    """The peer sent what the protocol does not allow; the session cannot go on.

    The only error that handling received bytes can raise inside the protocol; anything
    else is a bug.  :class:`~trio_muxado._protocol.connection.Connection` turns it into GOAWAY
    and a ``SessionFailed`` event.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class OpenRefused(Exception):
    """No stream can be opened on this connection any more."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
