"""Whose fault is it?  Telling the end of a stream or a session from a bug of its handler.

A handler that fails because its stream or its session ended ends alone.  Every other error is the
handler's own and must reach the user: a bug, an error of *another* session or connection, and the
use of a stream that the handler itself has closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ._errors import MuxadoError, Origin, StreamClosedError
from ._nursery import leaves, without_cancelled
from ._protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ._ending import Ending
    from ._protocol.stream import Stream


def is_end_of_stream(error: BaseException, stream: Stream, ending: Ending) -> bool:
    """Whether ``error``, also a group, says nothing but that ``stream`` or its session ended."""
    for leaf in leaves(error):
        found = _find(leaf)
        if found is None:
            # What a wrapper such as SSLStream raises once it has heard of the break.
            if not (isinstance(leaf, trio.BrokenResourceError) and stream.broken is not None):
                return False
        elif not _is_end(found, ending):
            return False
        elif found.origin == Origin(ending):
            if not ending.over:
                return False  # the session goes on: it has no heartbeats, or opens no streams
        elif found.origin != Origin(ending, stream):
            return False
    return True


def is_end_of_session(error: BaseException, ending: Ending) -> bool:
    """Whether ``error``, also a group, is nothing but what the session and its streams raise."""
    errors = [_find(leaf) for leaf in leaves(error)]
    return all(found is not None and _is_end(found, ending) for found in errors)


def is_safe_to_retry(error: BaseException) -> bool:
    """Whether ``error``, which is no group, is or was raised from one that is safe to retry."""
    found = _find(error)
    if isinstance(found, StreamClosedError):
        found = _find(found.__cause__)  # what it was closed for, where it broke before
    return found is not None and found.safe_to_retry


def _find(error: BaseException | None) -> MuxadoError | None:
    """The error of ours that ``error`` is or was raised from, as adapters of anyio do."""
    while error is not None and not isinstance(error, MuxadoError):
        error = error.__cause__
    return error


def _is_end(error: MuxadoError, ending: Ending) -> bool:
    if error.origin is None or error.origin.session is not ending:
        return False
    # Whoever uses a stream that this side has closed errs, unless it broke before.
    return not isinstance(error, StreamClosedError) or error.__cause__ is not None


def code_for(error: BaseException) -> ErrorCode:
    """What the peer hears when ``error`` leaves whoever used a stream."""
    cancelled = without_cancelled(error) is None
    return ErrorCode.STREAM_CANCELLED if cancelled else ErrorCode.INTERNAL_ERROR
