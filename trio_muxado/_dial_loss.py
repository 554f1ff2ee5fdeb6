"""Why there is no session: what went wrong with an attempt, or ended the session that it made."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from ._blame import is_safe_to_retry
from ._errors import CloseReason
from ._nursery import leaves
from ._protocol.errors import ErrorCode
from ._session import MuxadoSession

LossKind: TypeAlias = Literal["unreachable", "certificate", "tls", "not_muxado", "session"]
"""What went wrong: see :class:`DialLoss`."""

HOPELESS: frozenset[LossKind] = frozenset({"certificate", "not_muxado"})
"""What an early attempt can't help: somebody has to change something first."""

VIOLATIONS = frozenset(
    {ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.FLOW_CONTROL_ERROR}
)
"""With which this side ends a session whose peer breaks the protocol."""

FIRST_FRAMES = 2
"""Frames within which a peer that speaks something else breaks the protocol: its bytes may make a
frame or so by chance."""

CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""What is in the name of each TLS alert with which a server refuses a client's certificate."""


@dataclass(frozen=True)
class DialLoss:
    """Why there is no session: what ``on_state`` of :func:`dial_muxado` is called with.

    Attributes:
      kind: ``"unreachable"``: no connection could be made.  ``"certificate"``: either side refused
        the other's certificate.  ``"tls"``: the TLS handshake failed for another reason, or took
        too long.  ``"not_muxado"``: the peer answered with something else, or with the other
        protocol version.  ``"session"``: the session ended.
      message: a sentence for a log, on one line.
      pause: seconds until the next attempt.
      error: what the attempt or the handler raised; None if neither did.
      close_reason: why the session ended; None if there was none.
    """

    kind: LossKind
    message: str
    pause: float
    error: BaseException | None = None
    close_reason: CloseReason | None = None


class Lost(Exception):
    """An attempt, or its session, came to nothing."""

    def __init__(
        self,
        kind: LossKind,
        message: str,
        error: BaseException | None,
        reason: CloseReason | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: LossKind = kind
        self._message = message
        self._error = error
        self._reason = reason

    def before(self, pause: float) -> DialLoss:
        return DialLoss(self.kind, self._message, pause, self._error, self._reason)


class SessionEnd:
    """How a session stood when its handler ended."""

    def __init__(self) -> None:
        self.reason: CloseReason | None = None
        self.takes_no_streams = False
        self.error: BaseException | None = None

    def look_at(self, session: MuxadoSession) -> None:
        self.reason = session.close_reason
        self.takes_no_streams = not session.can_open

    @property
    def was_lost(self) -> bool:
        """It had ended, and not by the handler's own close."""
        reason = self.reason
        return reason is not None and not (reason.clean and reason.initiator == "local")

    @property
    def was_refused(self) -> bool:
        """It opened no more streams, and that is all that went wrong."""
        if self.error is None or not self.takes_no_streams:
            return False
        return all(is_safe_to_retry(error) for error in leaves(self.error))

    def as_loss(self, session: MuxadoSession) -> Lost:
        reason, error = self.reason, self.error
        if reason is None or not self.was_lost:
            return Lost("session", f"the peer is going away: {error}", error)
        kind: LossKind = "session"
        if reason.error is not None and is_about_a_certificate(reason.error):
            kind = "certificate"
        elif (
            reason.initiator == "local"
            and reason.code in VIOLATIONS
            and session.statistics().frames_received <= FIRST_FRAMES
        ):
            kind = "not_muxado"
        return Lost(kind, reason.message, error, reason)


def is_about_a_certificate(error: BaseException) -> bool:
    """Of the server, as this side found; or of this side, as an alert of the server says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        if isinstance(cause, ssl.SSLError):
            name = (cause.reason or "").upper()
            return any(part in name for part in CERTIFICATE_ALERTS)
        cause = cause.__cause__
    return False


def is_of_connection(error: BaseException) -> bool:
    """Whether ``error``, also a group, says nothing but that a connection failed."""
    return all(isinstance(leaf, OSError | trio.BrokenResourceError) for leaf in leaves(error))


def first_cause(error: BaseException) -> BaseException:
    """What caused "all attempts failed"."""
    error = next(leaves(error))
    while error.__cause__ is not None:
        error = next(leaves(error.__cause__))
    return error
