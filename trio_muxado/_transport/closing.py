"""The end of a transport, which may be anything that is a stream and raise anything."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import sys

import trio

from .._lazy_event import LazyEvent
from .._nursery import failure_of
from .peer import lowest
from .receiving import READ_SIZE

if sys.platform == "linux":
    import fcntl
    import termios

logger = logging.getLogger("trio_muxado")

LINGER_SIZE = 1024 * 1024
"""Bytes that a peer may still send after a GOAWAY that ended the session at once.  Closing
over unread bytes makes TCP drop the GOAWAY; reading forever is what an attacker wants."""

_NUMBER = struct.Struct("i")


def unacknowledged(transport: trio.abc.Stream) -> int:
    """Bytes that a socket was given and the peer's system has not acknowledged; 0 if nobody says.

    Linux says so, of TCP as of Unix sockets, also where TLS lies above.
    """
    stream = lowest(transport)
    if sys.platform != "linux" or not isinstance(stream, trio.SocketStream):
        return 0
    try:
        size = fcntl.ioctl(stream.socket.fileno(), termios.TIOCOUTQ, bytes(_NUMBER.size))
    except (OSError, ValueError):  # closed, or no kind of socket that can be asked
        return 0
    return int(_NUMBER.unpack(size)[0])


async def half_close(transport: trio.abc.Stream) -> bool:
    """Tell the peer that nothing follows; whether this transport could."""
    # TLS has no half-close, and closing it over unread bytes makes TCP drop what is on its way.
    # The end of the TCP stream below does for it: GOAWAY has said, inside of TLS, that nothing
    # follows.
    stream = lowest(transport)
    if not isinstance(stream, trio.abc.HalfCloseableStream):
        return False
    try:
        if type(stream) is trio.SocketStream:
            stream.socket.shutdown(socket.SHUT_WR)  # what its send_eof does after a checkpoint
        else:
            await stream.send_eof()
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        return False  # the peer has gone, which the reader finds out as well
    except BaseException as error:
        logger.debug("half-closing the transport failed: %r", failure_of(error))
        return False
    return True


def is_reset(error: BaseException) -> bool:
    """Whether a transport has raised it because the peer has reset the connection below."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConnectionResetError):
        cause = cause.__cause__
    return cause is not None


def is_bare_tls_end(error: BaseException) -> bool:
    """Whether a TLS peer has ended the connection below without TLS's own end, as ours does.

    It has no other half-close: see ``half_close``.
    """
    return is_tls_cut(error.__cause__)


def is_tls_cut(error: BaseException | None) -> bool:
    """Whether Python's ``ssl`` has raised it because the connection below ended, and TLS did not.

    Where the context has ``OP_IGNORE_UNEXPECTED_EOF`` nothing is raised but in a handshake.
    """
    return isinstance(error, ssl.SSLEOFError) or (
        isinstance(error, ssl.SSLError)  # of older Pythons
        and getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"
    )


async def _read_out(transport: trio.abc.Stream) -> None:
    """Drop what the peer still sends until its end, but no more than ``LINGER_SIZE``."""
    left = LINGER_SIZE
    try:
        while left > 0:
            data = await transport.receive_some(READ_SIZE)
            left -= len(data) or left
    except BaseException as error:
        logger.debug("the peer did not wait for the end: %r", failure_of(error))


async def say_last_words(transport: trio.abc.Stream, flushed: LazyEvent, *, unread: bool) -> None:
    """Once all is on its way, let it reach the peer before the transport is closed.

    ``unread`` says that bytes of the peer may be.
    """
    await flushed.wait()
    if unread and await half_close(transport):
        await _read_out(transport)


async def part(transport: trio.abc.Stream, peer_ended: LazyEvent) -> None:
    """Tell the peer that nothing follows, and wait for its own end.

    Whatever the peer sends to a transport that was closed makes TCP drop what is on its way.
    """
    if await half_close(transport):
        await peer_ended.wait()
        return
    try:
        await transport.aclose()
    except BaseException as error:
        logger.debug("closing the transport failed: %r", failure_of(error))


async def close_at_once(transport: trio.abc.Stream) -> None:
    """Close it without a wait, also in a task that is cancelled."""
    if type(transport) is trio.SocketStream:
        transport.socket.close()  # all that its aclose does, but for a checkpoint
        return
    with trio.CancelScope(shield=True):
        try:
            await trio.aclose_forcefully(transport)
        except Exception as error:
            logger.debug("closing the transport failed: %r", error)
