"""Why a session ended, and the errors that say so."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from ._errors import (
    CloseReason,
    MuxadoError,
    Origin,
    SessionClosedError,
    SessionEndedError,
    StreamClosedError,
    StreamResetError,
    in_words,
    printable,
)
from ._lazy_event import LazyEvent
from ._nursery import leaves, without_cancelled
from ._protocol.errors import ErrorCode
from ._protocol.states import SEND_END
from ._protocol.stream import BreakReason
from ._protocol.wire import looks_like, what_else

if TYPE_CHECKING:
    from ._protocol.stream import Stream
    from ._protocol.wire import Wire

logger = logging.getLogger("trio_muxado")

CLOSED_HERE = CloseReason(ErrorCode.NO_ERROR, "local", "this side has closed the session")


class Ending:
    """The end of one session, from when it begins to when it is over."""

    __slots__ = (
        "closing",
        "crash",
        "cut_streams",
        "event",
        "over",
        "peer_code",
        "reason",
    )

    def __init__(self) -> None:
        self.reason: CloseReason | None = None
        """Why the session ended; None while it lives."""
        self.closing: bool = False
        """This side closes the session."""
        self.over: bool = False
        """This side closes the session, or it has ended."""
        self.crash: BaseException | None = None
        """What was raised inside the session's tasks and belongs to the user."""
        self.peer_code: ErrorCode | int | None = None
        """The code of the peer's GOAWAY."""
        self.cut_streams: bool = False
        """Streams of applications lived when the session ended."""
        self.event: LazyEvent = LazyEvent()
        """Set with ``reason``."""

    @property
    def broke(self) -> bool:
        """The session has ended, and neither side ended it in order."""
        return self.reason is not None and not self.reason.clean

    @property
    def clean(self) -> bool:
        """The session has ended cleanly, of which the log says nothing."""
        return self.reason is not None and self.reason.clean

    def because_transport_ended(
        self, error: Exception | None, debug: bytes, *, cut: bool
    ) -> CloseReason:
        """The reason when the peer sends no more: an end of the transport, or its ``error``.

        The peer's GOAWAY may have announced it, with the text ``debug``.  A break that ``cut``
        streams is a break all the same.
        """
        if self.closing:
            return CLOSED_HERE
        if self.peer_code is not None and not cut:
            code = self.peer_code
            name = code.name if isinstance(code, ErrorCode) else f"error {code}"
            text = printable(debug)
            message = f"the peer ended the session: {name}" + (f" ({text})" if text else "")
            return CloseReason(code, "remote", message, debug, error)
        if error is None:
            message = "the peer ended the transport without GOAWAY"
            return CloseReason(ErrorCode.PEER_EOF, "transport", message)
        message = f"the transport broke: {in_words(error)}"
        return CloseReason(ErrorCode.INTERNAL_ERROR, "transport", message, error=error)

    def error(
        self,
        what: str,
        when_clean: type[MuxadoError] = SessionEndedError,
        *,
        safe_to_retry: bool = False,
    ) -> MuxadoError:
        """The error of whoever uses a session that is over.

        ``when_clean`` is its class where the peer has ended the session cleanly;
        ``safe_to_retry`` says that the peer has never heard of what was to be done.
        """
        reason = self.reason or CLOSED_HERE
        kind: type[MuxadoError] = SessionEndedError
        if reason.clean:
            kind = SessionClosedError if reason.initiator == "local" else when_clean
        error = kind(
            f"{what}: {reason.message}",
            code=reason.code,
            initiator=reason.initiator,
            debug=reason.debug,
            safe_to_retry=safe_to_retry,
            origin=Origin(self),
        )
        error.__cause__ = reason.error
        return error

    def broken_error(self, stream: Stream) -> MuxadoError:
        """The error of whoever uses a stream that broke, or had ended when the session did."""
        broken = stream.broken
        if broken is None:
            return self.error(f"stream {stream.id}")
        if broken.ends_session:
            return self.error(f"stream {stream.id}", safe_to_retry=broken.safe_to_retry)
        return StreamResetError(
            f"stream {stream.id}: {broken.message}",
            code=broken.code,
            initiator=broken.initiator,
            safe_to_retry=broken.safe_to_retry,
            origin=Origin(self, stream),
        )

    def closed_error(self, stream: Stream, message: str, broke: bool = False) -> StreamClosedError:
        """The error of whoever uses what this side has closed.

        The stream ``broke`` before: another task may have closed it for that, before this one could
        hear of it.
        """
        origin = Origin(self, stream)
        error = StreamClosedError(
            message, code=ErrorCode.NO_ERROR, initiator="local", origin=origin
        )
        if broke:
            error.__cause__ = self.broken_error(stream)
        return error

    def check_sendable(self, stream: Stream) -> None:
        """Raise the error of whoever sends on a stream that takes nothing more.

        It is for streams that this side has not closed.
        """
        if SEND_END not in stream.allowed and stream.broken is None:
            raise self.closed_error(stream, "send_eof was called on this stream")
        if self.closing or stream.broken is not None:
            raise self.broken_error(stream)

    def log_end(self, core: Stream, what: str, why: object) -> None:
        """Log that ``why`` ended what ran on a stream, unless the session's end did."""
        broken = core.broken
        if broken is not None and broken.ends_session:
            return
        if self.reason is None or (broken is not None and not self.clean):
            logger.debug("%s: %r", what, why)

    def caused(self, error: BaseException) -> bool:
        """Nothing but the crash of a task of the session, as the user's calls reported it."""
        rest = without_cancelled(error)
        if self.crash is None or rest is None:
            return False
        return all(
            isinstance(leaf, MuxadoError) and leaf.__cause__ is self.crash for leaf in leaves(rest)
        )


def break_of(reason: CloseReason) -> BreakReason:
    """Why the streams of a session break that ends for this reason."""
    initiator: Literal["local", "remote"] = "local" if reason.initiator == "local" else "remote"
    return BreakReason(reason.code, initiator, reason.message, ends_session=True)


def other_version(spoken: Wire | None, first_bytes: bytes) -> str:
    """What to add to a message when a peer's first bytes are those of something else."""
    if spoken is not None and (what := what_else(first_bytes)):
        return f"; the connection begins with {what}"
    looks = looks_like(first_bytes)
    if spoken is None or looks is None or looks is spoken:
        return ""
    return (
        f"; the peer seems to speak muxado {looks.name} and this side speaks {spoken.name}: "
        f'set MuxadoConfig(wire="{looks.name}")'
    )
