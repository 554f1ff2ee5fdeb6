"""What goes wrong on a stream, as httpx and httpcore raise it."""

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
    """Bound what is done in time, and raise errors of another library's for those of streams."""
    try:
        with trio.fail_after(math.inf if timeout is None else timeout):
            yield
    except trio.TooSlowError as error:
        raise too_slow(f"no progress within {timeout} seconds") from error
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        cause = reason_of(error)
        raise broken(str(error) or str(cause) or repr(cause)) from cause


def reason_of(error: BaseException) -> BaseException:
    """What an error of TLS on a stream was raised for: the error of the stream, or of OpenSSL."""
    while not isinstance(error, MuxadoError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def refused(error: BaseException | None) -> MuxadoError | None:
    """The error of a request that was refused on a stream on which others had been answered.

    The peer's session can't know that it was not processed, and the peer's server does: it gives
    up an idle stream with STREAM_REFUSED.
    """
    if not isinstance(error, StreamResetError) or error.initiator != "remote":
        return None
    if error.code is not ErrorCode.STREAM_REFUSED:
        return None
    return StreamResetError(
        f"{error}: the request came when the peer had given up the idle stream",
        code=error.code,
        initiator="remote",
        safe_to_retry=True,
    )


def is_safe_to_retry(error: BaseException | None) -> bool:
    """The peer has certainly not processed what has failed."""
    return isinstance(error, MuxadoError) and error.safe_to_retry
