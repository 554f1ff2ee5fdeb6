"""Errors of streams, translated to those of httpx and httpcore."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager

import trio

from .. import ErrorCode, MuxadoError, StreamResetError


@contextmanager
def translated(
    timeout: float | None, too_slow: type[Exception], broken: type[Exception]
) -> Generator[None, None, None]:
    """Apply a timeout, in seconds, and raise another library's errors for those of streams."""
    try:
        with trio.fail_after(math.inf if timeout is None else timeout):
            yield
    except trio.TooSlowError as error:
        raise too_slow(f"no progress within {timeout} seconds") from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        cause = reason_of(error)
        raise broken(str(error) or str(cause) or repr(cause)) from cause


def reason_of(error: BaseException) -> BaseException:
    """The cause of an error of TLS on a stream: the error of the stream, or of OpenSSL."""
    while not isinstance(error, MuxadoError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def refused(error: BaseException | None) -> MuxadoError | None:
    """An error that is safe to retry, if ``error`` says that the server closed an idle stream.

    Only for a request on a stream that was used before.  The peer's session can't know that such a
    request was not processed, but its server does: it resets idle streams with STREAM_REFUSED.
    """
    if not isinstance(error, StreamResetError) or error.initiator != "remote":
        return None
    if error.code is not ErrorCode.STREAM_REFUSED:
        return None
    return StreamResetError(
        f"{error}: the peer had already closed the idle stream when the request came",
        code=error.code,
        initiator="remote",
        safe_to_retry=True,
    )


def is_safe_to_retry(error: BaseException | None) -> bool:
    """The peer has certainly not processed the request that failed with ``error``."""
    return isinstance(error, MuxadoError) and error.safe_to_retry
