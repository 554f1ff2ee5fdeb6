"""What a frame is, in one vocabulary for both protocol versions.

Error codes are the raw numbers of the version that carried them.  Only ``Syn`` is peculiar to
v1; on v2 the ``syn`` flag of ``Data`` opens a stream.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias, TypeVar, cast

from .errors import ErrorCode

_Kind = TypeVar("_Kind")


class Syn(NamedTuple):
    """Opens a stream (v1)."""

    stream_id: int
    priority: int
    stream_type: int
    fin: bool


class Data(NamedTuple):
    """Bytes of a stream.

    ``length`` is what the header announced.  ``payload`` may hold less, and then ``DataRest``
    frames bring what is missing, so that a receiver neither waits for a large frame nor
    reserves memory on the word of a header.  A large payload is a view of what was fed; whoever
    keeps it makes a copy of its own.
    """

    stream_id: int
    length: int
    payload: bytes | memoryview
    syn: bool
    fin: bool


class DataRun(NamedTuple):
    """More frames like the ``Data`` before: whole, of the same stream and length, without flags.

    What bulk is made of.  A v1 frame has at most 16 KiB, and to handle each by itself costs a
    receiver more than its bytes do.
    """

    stream_id: int
    length: int
    payloads: list[memoryview]


class DataRest(NamedTuple):
    """More bytes of the last ``Data``, in the pieces in which they came."""

    payload: bytes | memoryview
    last: bool


class Rst(NamedTuple):
    """Ends both directions of a stream at once."""

    stream_id: int
    error_code: int


class WndInc(NamedTuple):
    """Allows the receiver of this frame to send ``increment`` more bytes on a stream."""

    stream_id: int
    increment: int


class GoAway(NamedTuple):
    """No new streams, please; those above ``last_stream_id`` were not looked at."""

    last_stream_id: int
    error_code: int


class GoAwayDebug(NamedTuple):
    """The debug text of the last ``GoAway``, at most its first 4 KiB.

    A frame of its own, because a GOAWAY must be acted on before its debug text is there: a
    known peer announces more than it sends.
    """

    debug: bytes


class Unknown(NamedTuple):
    """A frame of a type that this version does not define; its body is skipped."""

    frame_type: int
    flags: int
    stream_id: int
    length: int


class Malformed(NamedTuple):
    """Bytes that are no frame; nothing that follows can be understood."""

    code: ErrorCode
    message: str


class _NewTuple(Protocol):
    def __call__(self, kind: type[_Kind], fields: tuple[object, ...], /) -> _Kind: ...


# Skips NamedTuple's Python-level ``__new__``, one call for each frame and event.
new_tuple = cast("_NewTuple", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]

Frame: TypeAlias = (
    Syn | Data | DataRun | DataRest | Rst | WndInc | GoAway | GoAwayDebug | Unknown | Malformed
)
