"""What users catch, and why a session ended.

Every error is also the trio exception that generic code already handles: *closed* means that
this side did it, *broken* that the world did, *end of channel* that there is nothing more.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import trio

from ._protocol.errors import ErrorCode

Initiator: TypeAlias = Literal["local", "remote", "transport"]
"""Who ended a stream or a session: this side, the peer, or the transport under both."""


def printable(debug: bytes) -> str:
    """The peer's text as a part of one line: what it chose can't begin another or steer a terminal.

    A backslash is escaped as well, so that nobody takes what the peer wrote for an escape.
    """
    text = debug.decode("utf-8", "replace")
    return "".join(c if c.isprintable() and c != "\\" else ascii(c)[1:-1] for c in text)


def in_words(error: BaseException) -> str:
    """An error for a message: itself, or what caused it where it says nothing itself."""
    while not str(error) and error.__cause__ is not None:
        error = error.__cause__
    return repr(error)


class Origin(NamedTuple):
    """What an error is about.  Compared by identity, never looked into."""

    session: object
    stream: object = None


ErrorT = TypeVar("ErrorT", bound="MuxadoError")


class MuxadoError(Exception):
    """Base of all errors of this library.

    It can be copied and pickled with its notes, so a worker process can raise it.  A copy keeps the
    cause; a pickled one has none, as with any exception.

    Attributes:
      code: the :class:`ErrorCode`, or a plain number that has no name in the protocol version.
      initiator: ``"local"``, ``"remote"`` or ``"transport"``: who ended it.
      debug: the debug text of the peer's GOAWAY, as it arrived; often empty.  In the message it is
        escaped.
      safe_to_retry: the peer has certainly not processed the stream, so the request can be sent
        again elsewhere.
      origin: distinguishes errors of one session or stream from those of others; None in a copy
        from another process.
    """

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | int,
        initiator: Initiator,
        debug: bytes = b"",
        safe_to_retry: bool = False,
        origin: Origin | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.initiator = initiator
        self.debug = debug
        self.safe_to_retry = safe_to_retry
        self.origin = origin

    # What Python does instead is to call the class with ``args``, which are the message alone; and
    # a subclass may be made of anything.

    def __reduce__(self) -> tuple[Any, ...]:
        state = {**self.__dict__, "origin": None}
        return _remake, (type(self), self.args), state

    def __copy__(self: ErrorT) -> ErrorT:
        error = _remake(type(self), self.args)
        error.__dict__.update(self.__dict__)
        return _like(error, self)

    def __deepcopy__(self: ErrorT, memo: dict[int, Any]) -> ErrorT:
        # The session and the stream are compared by identity, and cannot be copied.
        memo[id(self.origin)] = self.origin
        error = memo[id(self)] = _remake(type(self), copy.deepcopy(self.args, memo))
        error.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return _like(error, self)


def _remake(kind: type[ErrorT], args: tuple[object, ...]) -> ErrorT:
    return kind.__new__(kind, *args)


def _like(error: ErrorT, original: BaseException) -> ErrorT:
    """``error``, with what led to ``original``."""
    error.__cause__ = original.__cause__
    error.__context__ = original.__context__
    error.__suppress_context__ = original.__suppress_context__
    return error


class StreamResetError(MuxadoError, trio.BrokenResourceError):
    """The stream ended at once: the peer reset it, or broke the protocol on it."""


class StreamClosedError(MuxadoError, trio.ClosedResourceError):
    """This side has closed the stream, or the direction that was to be used."""


class SessionEndedError(MuxadoError, trio.BrokenResourceError):
    """The session is over, but not because this side closed it."""


class SessionClosedError(MuxadoError, trio.ClosedResourceError):
    """This side has closed the session."""


class OpenStreamError(MuxadoError, trio.BrokenResourceError):
    """No stream can be opened: the peer is going away, or all stream ids are used."""


class NoMoreStreamsError(MuxadoError, trio.EndOfChannel):
    """The peer ended the session cleanly: there is nothing left to accept."""


class HeartbeatError(MuxadoError, trio.BrokenResourceError):
    """There are no heartbeats on this session, or the peer does not answer them."""


@dataclass(frozen=True)
class CloseReason:
    """Why a session ended.

    Attributes:
      code: the code of the GOAWAY that ended it, or one for the end of the transport.
      initiator: ``"local"``, ``"remote"`` or ``"transport"``: who ended it.
      message: a sentence for a log, on one line.  What is not printable of the debug text is
        escaped.
      debug: the debug text of the peer's GOAWAY, as it arrived; at most 4 KiB.
      error: the transport's error, if that was the cause.
    """

    code: ErrorCode | int
    initiator: Initiator
    message: str
    debug: bytes = b""
    error: BaseException | None = None

    @property
    def clean(self) -> bool:
        """Whether either side ended the session in order, with NO_ERROR."""
        return self.code is ErrorCode.NO_ERROR
