"""Error codes of both protocol versions, and the two errors that leave the protocol."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Literal

from .checks import check_choice, shown

FIRST_FREE_CODE = 16
"""Error codes from here on are the application's; those below are the protocol's."""


class ErrorCode(enum.Enum):
    """Why a stream was reset or a session ended.

    The names are those of muxado v2, which has all codes of v1 and more.  The two versions have
    different numbers for some, and each session translates to and from those of its own: see
    :meth:`number`.  A number that a version does not define stays a plain :class:`int` wherever a
    code is shown.

    The numbers 0 to 15 are the protocol's.  **16 and up are the application's**, and mean on both
    versions what the two applications agree on: ``await stream.reset(16)``.
    """

    NO_ERROR = 0
    """A clean end."""
    PROTOCOL_ERROR = 1
    """The other side broke the protocol."""
    INTERNAL_ERROR = 2
    """The side that sends it has failed."""
    FLOW_CONTROL_ERROR = 3
    """More data than the window allowed, or a window past 2^31 - 1."""
    STREAM_CLOSED = 4
    """Data for a stream that has ended."""
    STREAM_REFUSED = 5
    """The stream was not accepted; v1 calls it REFUSED_STREAM."""
    STREAM_CANCELLED = 6
    """The side that sends it no longer wants the stream; v1 calls it CANCEL."""
    STREAM_RESET = 7
    """The stream was reset (v2 only)."""
    FRAME_SIZE_ERROR = 8
    """A frame's length does not fit its type."""
    ACCEPT_QUEUE_FULL = 9
    """Too many streams wait to be accepted (v2 only)."""
    ENHANCE_YOUR_CALM = 10
    """The other side floods (v2 only; v1 gets PROTOCOL_ERROR)."""
    REMOTE_GONE_AWAY = 11
    """No new stream: the other side has sent GOAWAY (v2 only)."""
    STREAMS_EXHAUSTED = 12
    """No stream ids are left (v2 only)."""
    WRITE_TIMEOUT = 13
    """The transport accepted nothing for too long (v2 only)."""
    SESSION_CLOSED = 14
    """The session was closed (v2 only)."""
    PEER_EOF = 15
    """The transport ended without a GOAWAY (v2 only)."""

    def number(self, version: Literal["v1", "v2"]) -> int:
        """The code's number in frames of that version.

        v1 has no number for codes that only v2 has.  Then it is that of the nearest code of v1, to
        which a peer reacts in the same way.

        Raises:
          TypeError, ValueError: ``version`` is neither ``"v1"`` nor ``"v2"``.
        """
        check_choice("version", version, ("v1", "v2"))
        number: int = self.value
        return number if version == "v2" else _V1_NUMBERS[self]


_V1_NUMBERS: Mapping[ErrorCode, int] = {
    ErrorCode.NO_ERROR: 0,
    ErrorCode.PROTOCOL_ERROR: 1,
    ErrorCode.INTERNAL_ERROR: 2,
    ErrorCode.FLOW_CONTROL_ERROR: 3,
    ErrorCode.STREAM_CLOSED: 4,
    ErrorCode.FRAME_SIZE_ERROR: 5,
    ErrorCode.STREAM_REFUSED: 6,
    ErrorCode.STREAM_CANCELLED: 7,
    # v1 has no number for these: the nearest that tells the peer what to do.
    ErrorCode.STREAM_RESET: 7,
    ErrorCode.ACCEPT_QUEUE_FULL: 6,
    ErrorCode.ENHANCE_YOUR_CALM: 1,
    ErrorCode.REMOTE_GONE_AWAY: 6,
    ErrorCode.STREAMS_EXHAUSTED: 2,
    ErrorCode.WRITE_TIMEOUT: 2,
    ErrorCode.SESSION_CLOSED: 0,
    ErrorCode.PEER_EOF: 2,
}


def check_code(code: object) -> None:
    """A code that this side may send: an ErrorCode, or a number of the application's.

    A plain number below 16 would mean one thing on v1 and another on v2, and could make the peer
    repeat what must not happen twice.  0 is no error on both.
    """
    if isinstance(code, ErrorCode):
        return
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"code must be an ErrorCode or an int, not {shown(code)}")
    if not 0 <= code <= 0xFFFFFFFF:
        raise ValueError(f"code must be an unsigned 32-bit number, not {shown(code)}")
    if 0 < code < FIRST_FREE_CODE:
        raise ValueError(
            f"code must be an ErrorCode, or a number of the application's from {FIRST_FREE_CODE} "
            f"on, not {code}: the numbers below are the protocol's"
        )


def is_sendable(code: ErrorCode | int) -> bool:
    """Whether a code that came from one peer means the same to another, of whichever version."""
    return isinstance(code, ErrorCode) or code >= FIRST_FREE_CODE


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
