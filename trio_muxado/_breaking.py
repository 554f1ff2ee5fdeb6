"""Breaking a stream of any kind, so that its peer can't take what came for the whole."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import trio

from ._checks import check_instance
from ._protocol.errors import ErrorCode, check_code, is_sendable
from ._stream import MuxadoStream
from ._tcp import LINGER_FOR_NO_TIME

logger = logging.getLogger("trio_muxado")


async def break_stream(
    stream: trio.abc.AsyncResource, code: ErrorCode | int = ErrorCode.STREAM_CANCELLED
) -> None:
    """Break ``stream`` at once, if a stream of its kind can be broken; never waits.

    A program that passes data on needs this: closing a stream would say that the data is complete.
    A muxado stream is reset with ``code``, and a TCP connection by RST.  A TLS stream is cut
    without close_notify, by breaking what is below it.  The same holds for any other wrapper that
    has what it wraps as ``transport_stream``.  A pipe, a Unix socket and a memory stream can't be
    broken: they are closed, which looks like a clean end to their peer.

    Takes effect even in a cancelled task, and raises no error of the stream.

    Args:
      stream: of any kind, also one that has ended.
      code: as in :meth:`MuxadoStream.reset`.

    Raises:
      TypeError, ValueError: a wrong argument; nothing has ended then.
    """
    check_instance("stream", stream, trio.abc.AsyncResource, "a trio.abc.Stream")
    check_code(code)
    await break_now(stream, code)


async def break_now(stream: trio.abc.AsyncResource, code: ErrorCode | int) -> None:
    """What :func:`break_stream` does, with any code that a peer has sent.

    A number that means nothing to another peer becomes STREAM_CANCELLED.
    """
    if isinstance(stream, MuxadoStream):
        # A number that v1 has no name for would be a code of the protocol's on v2.
        known = code if is_sendable(code) else ErrorCode.STREAM_CANCELLED
        await _at_once(stream.reset, known)
    elif isinstance(stream, trio.SocketStream):
        await _at_once(_reset_connection, stream)
    elif isinstance(stream, trio.StapledStream):
        stapled = cast("trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]", stream)
        try:
            await break_now(stapled.send_stream, code)
        finally:
            await break_now(stapled.receive_stream, code)
    else:
        try:
            # First, so that the close after it can't say anything.
            await _break_below(stream, code)
        finally:
            await _at_once(stream.aclose)


async def _break_below(stream: trio.abc.AsyncResource, code: ErrorCode | int) -> None:
    try:
        below = getattr(stream, "transport_stream", None)
    except Exception as error:  # a stream can be of any kind
        logger.debug("breaking a stream: %r", error)
        return
    if isinstance(below, trio.abc.AsyncResource):
        await break_now(below, code)


async def _reset_connection(stream: trio.SocketStream) -> None:
    if stream.socket.fileno() >= 0 and stream.socket.family != getattr(socket, "AF_UNIX", None):
        with suppress(OSError):  # macOS refuses it where the peer has gone: nothing is to be broken
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_FOR_NO_TIME)
    await stream.aclose()


async def _at_once(call: Callable[..., Awaitable[Any]], *args: Any) -> None:
    try:
        with trio.CancelScope(shield=True) as scope:
            scope.cancel()  # what it has to wait for, it does without
            await call(*args)
    except Exception as error:  # a stream can be of any kind, and is broken mostly
        logger.debug("breaking a stream: %r", error)
